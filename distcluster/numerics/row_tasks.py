"""A kernel over the rows of an array, a range of them at a time, on some threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

TASK_ROWS = 4_096
RowTasks = Callable[..., None]


@contextmanager
def row_tasks(threads: int) -> Iterator[RowTasks]:
    """A function that calls a kernel with the first row and the stop of every range, and its other arguments.

    The kernel must let go of the interpreter's lock, and write a row from what it does not write.

    Examples
    --------
    >>> with row_tasks(threads=2) as run:
    ...     run(5_000, lambda first, stop, name: print(name, stop - first), "rows:")
    rows: 4096
    rows: 904
    """
    with ThreadPoolExecutor(threads) as pool:

        def run(n_rows: int, kernel: Callable[..., None], *arguments: Any) -> None:
            ranges = [(first, min(n_rows, first + TASK_ROWS)) for first in range(0, n_rows, TASK_ROWS)]
            several = threads > 1 and len(ranges) > 1
            list((pool.map if several else map)(lambda rows: kernel(*rows, *arguments), ranges))

        yield run
