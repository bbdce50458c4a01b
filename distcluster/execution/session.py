"""One session on a cluster: connect, check the workers, work, repair what is damaged, and say how it ended."""

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from distcluster.deploy import DeployTable
from distcluster.errors import CorruptError, JobFailedError, LeaseLostError, SchedulerLostError, StorageError
from distcluster.execution.connect import connect
from distcluster.execution.elastic import elastic
from distcluster.execution.progress import Counts, Reporter, on_dashboard, performance_saved
from distcluster.execution.runner import Runner
from distcluster.execution.session_log import session_log
from distcluster.execution.told_events import as_events
from distcluster.execution.worker_check import check_workers
from distcluster.stages.stage import Stage
from distcluster.storage.faults import of_storage
from distcluster.storage.run import Run
from distcluster.url import without_secrets

log = logging.getLogger("distcluster")

Work = Callable[[Runner], Awaitable[None]]
"""Runs stages. Whatever is committed is skipped, so it is called again when something has to be made again."""

_REPAIRS = 5  # times that an item is made again before its storage is to blame


@dataclass(frozen=True, slots=True)
class Session:
    """Work on a run, on the cluster that a job asks for.

    Attributes
    ----------
    run : Run
    deploy : DeployTable
    reporter : Reporter
    makes : collection of Stage
        The stages that the work runs: what they have written is made again where it is damaged.
    read_input : bool
        Whether the tasks read the input: workers that do not see it are refused.
    performance : bool
        Save Dask's performance report into the run.
    """

    run: Run
    deploy: DeployTable
    reporter: Reporter
    makes: Collection[Stage[Any]]
    read_input: bool
    performance: bool = False

    def hold(self, work: Work) -> None:
        """Do the work, from connecting to the note of how it ended.

        Raises
        ------
        JobError
            When job, input or workers are wrong.
        JobFailedError
            When a task fails for good.
        SchedulerLostError
            When the cluster is gone; what was committed stays.
        StorageError
            When the storage is away or full.
        """
        try:
            with (
                session_log(self.run, self.reporter) as kept,
                as_events(self.run, kept) as reporter,
                one_cause(),
            ):
                run_coroutine(self._hold(work, reporter))
        except Exception as cause:
            if not isinstance(cause, LeaseLostError | StorageError):  # the run is another's, or away
                self.run.note_error(without_secrets(f"{type(cause).__name__}: {cause}"))
            raise
        self.run.note_error("")

    async def _hold(self, work: Work, reporter: Reporter) -> None:
        counts = Counts()
        async with (
            connect(self.deploy) as client,
            performance_saved(self.run, self.performance),
            on_dashboard(client, self.run, reporter, counts) as live,
        ):
            runner = Runner(client, self.run, live, counts)
            with scheduler_kept():
                await check_workers(client, self.run, read_input=self.read_input)
                async with elastic(client, self.deploy, counts.tasks_left.total):
                    await self._work_and_repair(runner, work, counts)

    async def _work_and_repair(self, runner: Runner, work: Work, counts: Counts) -> None:
        """Work until nothing that it reads is damaged."""
        makes, times = {stage.name for stage in self.makes}, Counter[tuple[str, str]]()
        for self.run.attempt in itertools.count():
            try:
                await work(runner)
                return
            except* CorruptError as group:
                for error in _leaves(group):
                    if error.stage not in makes:
                        raise JobFailedError(f"{error}. Run its job again with --verify.") from None
                    self.run.records.discard(error.stage, error.item)
                    times[error.stage, error.item] += 1
                    counts.retries[error.stage] += 1
                    if times[error.stage, error.item] > _REPAIRS:
                        raise JobFailedError(f"{error}, for the {_REPAIRS + 1}th time: check the storage") from None
                    log.warning("%s; it is made again", error)


@contextlib.contextmanager
def scheduler_kept() -> Iterator[None]:
    """Raise what comes of a scheduler that has gone as that."""
    try:
        yield
    except* (FutureCancelledError, CommClosedError) as group:
        raise SchedulerLostError(
            "the Dask scheduler was lost. What was committed stays: run again to resume."
        ) from group


@contextlib.contextmanager
def one_cause() -> Iterator[None]:
    """Of the errors of many tasks, raise the first, as what it means."""
    try:
        yield
    except Exception as error:
        cause = _leaves(error)[0]
        raise (of_storage(cause) or cause) from error.__cause__


def run_coroutine(work: Coroutine[Any, Any, None]) -> None:
    """``asyncio.run``; where this thread's event loop is running, as a notebook's is, in a thread beside it.

    Ctrl-C, or a notebook's interrupt, cancels the work there too, which then ends in its own order.
    """
    if not _is_loop_running():
        asyncio.run(work)
        return
    begun = Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]]()

    async def told() -> None:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        await work

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, told())
        try:
            done.result()
        except KeyboardInterrupt:
            loop, task = begun.result()
            assert task is not None
            loop.call_soon_threadsafe(task.cancel)
            raise


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _leaves(error: BaseException) -> list[Any]:
    """The exceptions of a group of groups, flat; a single exception is one leaf."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]
