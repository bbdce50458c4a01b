"""As many worker pods as there is work for: more at once, fewer when they have had nothing to do for a while."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from distributed import Client

from distcluster.deploy import DeployTable
from distcluster.kubernetes.in_pod import DISMISSAL
from distcluster.kubernetes.worker_job import PodCounts, WorkerJob, find_worker_job

log = logging.getLogger("distcluster")

LOOK_SECONDS = 5.0
"""Between two looks at how much there is to do. Each asks Kubernetes for one Job: an answer of kilobytes, to one
driver, needs no watch that would have to be kept alive beside it."""
CALM_SECONDS = 60.0
"""How long workers stay that have nothing to do: a stage of one task may be over sooner, and a node takes as long."""


@contextlib.asynccontextmanager
async def elastic(client: Client, table: DeployTable, tasks_left: Callable[[], int]) -> AsyncIterator[None]:
    """Have the number of worker pods follow the tasks, where the job asks for it and this pod may.

    Parameters
    ----------
    client : Client
        Asynchronous.
    table : DeployTable
    tasks_left : callable
        Tasks of the stages under way that are not done.
    """
    job = find_worker_job() if table.workers is not None else None
    if job is None:
        yield
        return
    follower = asyncio.create_task(follow_tasks(client, job, table, tasks_left, LOOK_SECONDS, CALM_SECONDS))
    try:
        yield
    finally:
        follower.cancel()
        (ended,) = await asyncio.gather(follower, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):  # worth a word, and no job
            log.warning("the number of workers stays as it is: %r", ended)


async def follow_tasks(
    client: Client,
    job: WorkerJob,
    table: DeployTable,
    tasks_left: Callable[[], int],
    look_seconds: float,
    calm_seconds: float,
) -> None:
    """Look again and again, for ever; a worker that has a task is never sent away.

    Parameters
    ----------
    client, table, tasks_left
        As ``elastic``.
    job : WorkerJob
    look_seconds, calm_seconds : float
        Between two looks; after how long without need workers leave.
    """
    assert table.workers is not None
    least, most = table.workers.min, table.workers.max
    recent = deque[int](maxlen=max(1, round(calm_seconds / look_seconds)))
    told = ""
    while True:
        recent.append(min(max(-(-tasks_left() // table.cpu), least), most))
        try:
            await _resize(client, job, max(recent), may_shrink=len(recent) == recent.maxlen)
            told = ""
        except OSError as error:  # no reason to stop: there are workers, as many as there are
            if str(error) != told:
                log.warning("the number of workers stays as it is: %s", error)
            told = str(error)
        await asyncio.sleep(look_seconds)


async def _resize(client: Client, job: WorkerJob, wanted: int, may_shrink: bool) -> None:
    counts = await asyncio.to_thread(job.counts)
    missing = wanted - (counts.made - counts.gone)  # pods of those who leave are there until they have left
    if missing > 0:
        log.info("%d workers are wanted, and %d more asked for", wanted, missing)
        counts = await asyncio.to_thread(job.grow, counts.made + missing)
    left = await client.run_on_scheduler(_resized, counts, wanted if may_shrink else None)
    if left:
        log.info("%d workers are wanted, and %d without a task leave", wanted, left)


async def _resized(counts: PodCounts, keep: int | None, dask_scheduler: Any) -> int:
    """On the scheduler: take note of the workers that there are, and have those leave that are too many."""
    plugin = dask_scheduler.plugins[DISMISSAL]
    plugin.expect(*counts)
    return 0 if keep is None else int(await plugin.release(keep))
