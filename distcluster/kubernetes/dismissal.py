"""The scheduler's part in the job's end: it tells the workers, also those that come late, and leaves after them."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine
from typing import Any

from distributed import Scheduler
from distributed.core import Status
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from distcluster.kubernetes.in_pod import DISMISSAL, N_WORKERS, lonely_seconds, take_leave

log = logging.getLogger("distributed.distcluster")

_ANSWER_SECONDS = 10.0


class Dismissal(SchedulerPlugin):  # type: ignore[misc]
    """Ends scheduler and workers when the driver says so, or when none has been connected for long.

    Parameters
    ----------
    n_workers : int
        How many are to be told before the scheduler leaves: pods may still be starting.
    seconds : float
        How long none may be connected, and how long workers are waited for.
    """

    name = DISMISSAL

    def __init__(self, n_workers: int, seconds: float) -> None:
        self._n_workers, self._seconds = n_workers, seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()
        self._all_told = asyncio.Event()
        self._is_over = False

    async def start(self, scheduler: Scheduler) -> None:
        """As Dask's: begin to look for drivers."""
        self._scheduler = scheduler
        self._begin(self._watch())

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:  # noqa: ARG002 - as Dask calls it
        """As Dask's: tell a worker that has come too late."""
        if self._is_over:
            self._begin(self._tell(worker))

    def expect(self, made: int, gone: int) -> None:
        """Take note of how many workers there were so far, and how many of them have ended well."""
        self._n_workers = len(self._told) + made - max(gone, len(self._told))

    async def release(self, keep: int) -> int:
        """Have workers without a task leave, but so many stay that can take one; how many leave."""
        workers = self._scheduler.workers
        ready = [address for address, worker in workers.items() if worker.status is Status.running]
        idle = [each for each in ready if not workers[each].processing][: max(len(ready) - keep, 0)]
        if not idle:
            return 0
        # From then on they get no task. One that has got one just before loses it, and it runs again elsewhere.
        retired = await self._scheduler.retire_workers(idle, close_workers=False, remove=False)
        before = len(self._told)
        await asyncio.gather(*(self._tell(each) for each in retired if each in workers))
        for each in retired:  # who could not be told comes back as a new one, for this one would do nothing any more
            self._scheduler.close_worker(each)
        return len(self._told) - before

    def end(self) -> None:
        """Begin to tell everybody."""
        if not self._is_over:
            self._is_over = True
            take_leave()
            self._begin(self._leave())

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        seen = clock()
        while clock() - seen < self._seconds:
            await asyncio.sleep(min(10.0, self._seconds / 10))
            if len(self._scheduler.clients) > 1:  # one is Dask's own
                seen = clock()
        log.warning("no driver for %.0f s: scheduler and workers leave", self._seconds)
        self.end()

    async def _leave(self) -> None:
        for worker in list(self._scheduler.workers):
            self._begin(self._tell(worker))
        with contextlib.suppress(TimeoutError):  # a worker that never comes finds nobody, and leaves by itself
            await asyncio.wait_for(self._all_told.wait(), self._seconds)
        await self._scheduler.close(reason="the job is over")

    async def _tell(self, worker: str) -> None:
        name = self._scheduler.workers[worker].name
        call = {"op": "run", "function": dumps(take_leave), "wait": True}
        with contextlib.suppress(OSError, TimeoutError):
            sent = self._scheduler.broadcast(msg=call, workers=[worker], on_error="ignore")
            await asyncio.wait_for(sent, _ANSWER_SECONDS)
            self._scheduler.close_worker(worker)
            self._told.add(str(name))
        if len(self._told) >= self._n_workers:
            self._all_told.set()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def dask_setup(scheduler: Scheduler) -> None:
    """Dask's hook for ``dask scheduler --preload``."""
    scheduler.add_plugin(Dismissal(int(os.environ.get(N_WORKERS, "0")), lonely_seconds()))
