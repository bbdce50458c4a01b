"""What a worker does with a task: opens the run once a process, computes in one thread, commits."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any

from distcluster.environment import differences, environment, pin_to_one_thread
from distcluster.errors import CorruptError, EnvironmentMismatchError, JobFailedError, LeaseLostError
from distcluster.stages.stage import Output
from distcluster.storage.array_store import Array
from distcluster.storage.faults import storage_errors
from distcluster.storage.records import Kept
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE, ItemArray
from distcluster.storage.settings import RunRef

task_threads = ContextVar("task_threads", default=1)
"""How many threads a task may use for what has the same bits on any number: as many as its worker has."""


@functools.lru_cache(maxsize=8)
def open_run(ref: RunRef) -> Run:
    """Open a run once per process, and refuse it when this process would give other bits.

    Raises
    ------
    EnvironmentMismatchError
        Naming every package version and instruction level that differs.
    LeaseLostError
        When another writer has taken the run, or another run lies there.
    """
    run = Run(ref.url, ref.input_url, ref.token, attempt=ref.attempt)
    found = run.find_settings()
    if ref.token is not None:
        run.require_lease()  # names who has taken it; only now, as this process may have stood still until here
    if found is None or found.run_id != ref.run_id:
        raise LeaseLostError(f"{ref.url} now holds another run than the one that was started")
    differing = differences(dict(found.environment), environment())
    if differing:
        raise EnvironmentMismatchError("this worker differs from what the run was made with: " + "; ".join(differing))
    return run


def perform(
    ref: RunRef, stage: str, task: Callable[..., Output[Any]], item: Any, commits: bool, *, threads: int
) -> Any:
    """Compute one item of a stage and commit it; gives its record, or facts of a stage that only checks."""
    pin_to_one_thread()
    task_threads.set(threads)
    with storage_errors():
        run = open_run(ref)
        began = time.perf_counter()
        output = task(run) if item == ONE else task(run, item)
        if not commits:
            return output.facts
        return commit(run, stage, item, output, time.perf_counter() - began)


@contextmanager
def reading_around(run: Run) -> Iterator[Run]:
    """The run around a choice; damage there is not the choice's to mend.

    Raises
    ------
    JobFailedError
        When what is read there differs from what was committed.
    """
    assert run.around is not None
    try:
        yield run.around
    except CorruptError as error:
        raise JobFailedError(f"{error}. Run the job of {run.around.url} again with --verify.") from error


def commit(run: Run, stage: str, item: Any, output: Output[Any], seconds: float) -> Kept:
    """Commit what a task has given, and how long it took."""
    facts = asdict(output.facts)
    return run.commit(stage, str(item), facts, rows=output.rows, arrays=output.arrays, seconds=seconds, is_new=True)


def read_model(run: Run, array: ItemArray, item: object = ONE) -> Any:
    """An array that an item has published, read once per process and attempt, checked against its record.

    Raises
    ------
    CorruptError
        When the item is not committed, or the array differs from what was committed.
    """
    return read_models(run, [array], item)[0]


def read_models(run: Run, arrays: Iterable[ItemArray], item: object = ONE) -> list[Array]:
    """The same for arrays of one item that are always read together: they are read at a time, and kept together."""
    wanted = tuple(arrays)
    record = run.records.read(wanted[0].stage, str(item))
    if record is None:
        raise CorruptError(f"{wanted[0].stage} {item} is not committed", wanted[0].stage, str(item))
    return _read_once(run.ref, wanted, str(item), record.id)


@functools.lru_cache(maxsize=128)
def _read_once(ref: RunRef, arrays: tuple[ItemArray, ...], item: str, _commit_id: str) -> list[Array]:
    return open_run(ref).read_together(arrays, item)
