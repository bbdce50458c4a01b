"""A kernel over the rows of an array, a range of them at a time, on some threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

TASK_ROWS = 4_096
RowTasks = Callable[..., None]


def even(n_rows: int, threads: int) -> int:
    """Rows of a range, at most ``TASK_ROWS``, such that every thread has as many ranges, all but alike.

    For kernels whose sums do not go by range: the number depends on the threads.

    Examples
    --------
    >>> even(30_000, threads=1), even(30_000, threads=2), even(30_000, threads=3)
    (3750, 3750, 3334)
    """
    rounds = -(-n_rows // (threads * TASK_ROWS))
    return -(-n_rows // (threads * rounds))


@contextmanager
def row_tasks(threads: int) -> Iterator[RowTasks]:
    """A function that calls a kernel with the first row and the stop of every range, and its other arguments.

    Ranges have ``TASK_ROWS`` rows, or ``task_rows``. The kernel must let go of the interpreter's lock, and write a row
    from what it does not write.

    Examples
    --------
    >>> with row_tasks(threads=2) as run:
    ...     run(5_000, lambda first, stop, name: print(name, stop - first), "rows:")
    rows: 4096
    rows: 904
    """
    with ThreadPoolExecutor(threads) as pool:

        def run(n_rows: int, kernel: Callable[..., None], *arguments: Any, task_rows: int = TASK_ROWS) -> None:
            ranges = [(first, min(n_rows, first + task_rows)) for first in range(0, n_rows, task_rows)]
            several = threads > 1 and len(ranges) > 1
            list((pool.map if several else map)(lambda rows: kernel(*rows, *arguments), ranges))

        yield run
