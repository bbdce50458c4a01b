"""Files of vectors to Zarr, in parallel on the cluster of a run; what is written already is not written again."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from distributed import Client, as_completed
from distributed.scheduler import KilledWorker

from distcluster.deploy import DeployTable
from distcluster.errors import JobError, JobFailedError
from distcluster.execution.connect import connect
from distcluster.execution.progress import Reporter
from distcluster.execution.session import one_cause, run_coroutine, scheduler_kept
from distcluster.storage.faults import storage_errors
from distcluster.storage.ingest import (
    Chunk,
    Ingest,
    begin,
    chunks_of,
    find_invalid,
    finish,
    finished,
    give_up,
    open_ingest,
    parts_of,
    write_chunks,
)


def ingest(
    source: str,
    target: str,
    deploy: DeployTable,
    reporter: Reporter,
    *,
    column: str | None = None,
    on_invalid: Literal["error", "skip"] = "error",
) -> Ingest:
    """Write files' vectors to a new Zarr v3 group, as its array ``embeddings``; or go on with what was begun.

    No group can be opened there until all is written. What is small is written by this process, without a cluster.

    Parameters
    ----------
    source : str
        .npy (N, D), .npz with such an array, or Parquet with a column of lists of equal length: a file, but for .npz
        also a folder or a pattern, in order of the names; a path or a URL. Parquet files may have different types of
        values: the widest is taken.
    target : str
        A place of its own.
    deploy : DeployTable
    reporter : Reporter
    column : str, optional
        The array of an .npz or the column of Parquet; may be left out where there is only one that fits.
    on_invalid : "error" or "skip"
        What to do with rows that are no vectors: a missing list, one of another length, one with missing values. Rows
        with NaN are vectors, and ``input.on_invalid`` is about them. To skip rows, Parquet is read twice.

    Raises
    ------
    JobError
        When the source cannot be read as (N, D) embeddings, or the target is something else or cannot be written.
    JobFailedError
        When a task kills its workers.
    SchedulerLostError, StorageError
        What was written stays: the same call goes on.
    """
    with storage_errors():
        found = open_ingest(source, target, column, on_invalid)
        if (whole := finished(found)) is not None:
            return whole
        there = begin(found)
    done: list[Ingest] = []

    async def work() -> None:
        done.append(await _copy(found, there, deploy, reporter))

    try:
        with storage_errors(), one_cause():
            run_coroutine(work())
    except JobError as error:
        give_up(found, unless_begun=not isinstance(error, _InvalidRowsError))
        raise
    return done[0]


async def _copy(found: Ingest, there: set[int], deploy: DeployTable, reporter: Reporter) -> Ingest:
    invalid = np.empty(0, np.int64)
    everything = parts_of(found, chunks_of(found, invalid))
    async with _workers(deploy, len(everything), reporter) as client:
        if found.counts_first:
            each = _each(client, find_invalid, found, everything, reporter)
            invalid = np.sort(np.concatenate([rows async for rows in each]))
            found = replace(found, skipped=len(invalid))
            if not found.rows:
                raise JobError(f"{found.source} has no row that is a vector: there is nothing to cluster.")
        missing = [chunk for chunk in chunks_of(found, invalid) if chunk.index not in there]
        async for wrong in _each(client, write_chunks, found, parts_of(found, missing), reporter):
            if wrong:
                raise _InvalidRowsError(
                    f"{found.source} has rows that are no vectors: {wrong}. Mend them, or leave them out with "
                    f"--on-invalid skip."
                )
    finish(found)
    return found


class _InvalidRowsError(JobError):
    """The source must be changed: nothing that was written can be used."""


@contextlib.asynccontextmanager
async def _workers(deploy: DeployTable, n_parts: int, reporter: Reporter) -> AsyncIterator[Client | None]:
    """Yield the cluster's client; none where there is nothing to share."""
    if deploy.kind == "local" and n_parts < 2:
        yield None
        return
    async with connect(deploy) as client:
        reporter.dashboard(client.dashboard_link)
        with scheduler_kept():
            yield client


async def _each(
    client: Client | None,
    task: Callable[[Ingest, Sequence[Chunk]], Any],
    found: Ingest,
    parts: Sequence[Sequence[Chunk]],
    reporter: Reporter,
) -> AsyncIterator[Any]:
    """Have a task done for every part; yields what they give, in any order."""
    rows = [sum(chunk.stop - chunk.start for chunk in part) for part in parts]
    reporter.start(task.__name__, found.source_rows, found.source_rows - sum(rows), "rows")
    began = time.perf_counter()
    if client is None:
        for part, count in zip(parts, rows, strict=True):
            yield task(found, part)
            reporter.advance(task.__name__, count)
    else:
        futures = {client.submit(task, found, part, pure=False): place for place, part in enumerate(parts)}
        async for future in as_completed(futures):
            place = futures[future]
            try:
                yield await future
            except KilledWorker as error:
                raise JobFailedError(
                    f"the task that reads {found.source} from row {parts[place][0].start:,} on killed every worker "
                    f"that tried it, most likely for lack of memory: give workers more (deploy.memory_limit)."
                ) from error
            reporter.advance(task.__name__, rows[place])
    reporter.finish(task.__name__, time.perf_counter() - began)
