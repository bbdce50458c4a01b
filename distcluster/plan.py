"""What a job will cost, before it costs anything: the sum of what its stages cost."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distcluster.errors import JobError
from distcluster.job import Job, subsample_sizes
from distcluster.numerics.mixture.candidate_grid import grid
from distcluster.numerics.partition import Partitioning, groups
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.flow import STAGES
from distcluster.stages.searching import index_bytes
from distcluster.stages.stage import Stage
from distcluster.storage.urls import local_path

_PARTITION_BYTES = 2**27  # of float32 rows: some seconds of work, a small part of a worker's memory
_LEAST_PARTITIONS = 16  # so that a handful of workers finish together

_PROCESS_BYTES = 450 * 2**20  # Python, dask, scikit-learn, umap-learn, faiss and the compiled kernels
_FRAGMENTATION = 1.1  # what the allocator keeps beside what is in use
_START_SECONDS = 8.0  # of workers, and of the report
_ITERATIONS = 5  # of the refinement: a guess
_TRIPS = 10  # to the store that a task waits for, one after the other
_TRIP_SECONDS = 0.03  # where the store is no file system
_DECODE_SECONDS = 3.5e-9  # a byte of what is decoded for nothing
_TOO_OFTEN, _TOO_MUCH = 1.5, 2**27  # times that a pass decodes the input, and bytes for nothing: a person should know


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of a job.

    Attributes
    ----------
    rows, features : int
        N and D.
    sample_rows, mixture_rows : int
        S and M.
    partitions, partition_rows : int
    candidates, tasks : int
        Without those that an automatic grid adds once its elbow is known.
    refine_tasks : int
        Tasks of each iteration of EM over all rows, beyond ``tasks``.
    bytes_read, bytes_written : int
        Decoded bytes; compression makes it less.
    memory_bytes : int
        Peak of one worker.
    seconds : float
        A rough estimate for ``workers`` workers of one thread, like those of docs/performance.md.
    workers : int
    times_decoded : float
        How often a pass over the input decodes it, as in ``times_decoded``; ``bytes_read`` and ``seconds`` count it.
    advice : str
        What would make that less, where it is much.
    """

    rows: int
    features: int
    sample_rows: int
    mixture_rows: int
    partitions: int
    partition_rows: int
    candidates: int
    tasks: int
    refine_tasks: int
    bytes_read: int
    bytes_written: int
    memory_bytes: int
    seconds: float
    workers: int
    times_decoded: float = 1.0
    advice: str = ""


def choose_partitioning(job: Job, n_rows: int, n_features: int) -> Partitioning:
    """Rows of a task: the job's, else the largest that leaves 16 tasks and 128 MiB of float32 rows in each."""
    block_rows = job.assign.block_rows
    if job.assign.partition_rows is not None:
        return Partitioning(n_rows, block_rows, job.assign.partition_rows)
    most = min(_PARTITION_BYTES // (4 * n_features), n_rows // _LEAST_PARTITIONS)
    blocks = 2 ** max(0, int(np.log2(max(1, most // block_rows))))
    return Partitioning(n_rows, block_rows, block_rows * blocks)


def make_plan(
    job: Job,
    shape: tuple[int, int],
    itemsize: int,
    stages: Sequence[Stage[Any]] | None = None,
    *,
    fitted: int | None = None,
    starts: npt.NDArray[np.int64] | None = None,
) -> Plan:
    """Compute the cost of a job on an input of N x D values, all rows taken as valid, or of some of its stages.

    ``fitted`` is the number of rows that the subsamples were taken from, where it is not N; ``starts`` are the rows at
    which decoding the input begins anew, where it cannot begin anywhere.

    Raises
    ------
    JobError
        When the subsamples cannot be taken.
    """
    sizes = measure(job, shape, itemsize, fitted)
    workers = job.deploy.n_workers or len(os.sched_getaffinity(0))
    times = 1.0 if starts is None else times_decoded(starts, sizes.n_rows, sizes.partition_rows, workers)
    costs = [_decoded(stage, stage.cost(sizes), times) for stage in stages or STAGES]
    trip = 0.0 if local_path(job.output.url) else _TRIP_SECONDS
    return Plan(
        rows=sizes.n_rows,
        features=sizes.n_features,
        sample_rows=sizes.sample_rows,
        mixture_rows=sizes.mixture_rows,
        partitions=sizes.partitions,
        partition_rows=sizes.partition_rows,
        candidates=sizes.candidates,
        tasks=sum(each.tasks for each in costs if not each.is_iterated),
        refine_tasks=sum(each.tasks for each in costs if each.is_iterated),
        bytes_read=sum(each.bytes_read for each in costs),
        bytes_written=sum(each.bytes_written for each in costs),
        memory_bytes=int(
            _FRAGMENTATION * (_PROCESS_BYTES + _model_bytes(sizes) + max(each.memory_bytes for each in costs))
        ),
        seconds=_START_SECONDS + sum(_wall_seconds(each, workers, trip) for each in costs),
        workers=workers,
        times_decoded=times,
        advice="" if starts is None else _advice(starts, sizes, times),
    )


def times_decoded(starts: npt.NDArray[np.int64], n_rows: int, partition_rows: int, workers: int) -> float:
    """How often a pass over all rows decodes one, on average.

    A worker decodes forward, from the start before its rows to their end. So of what lies between two starts every
    worker that has a partition there decodes all up to its last one; the last partitions are of different workers.

    Parameters
    ----------
    starts : (groups,) int64
        The rows at which decoding begins anew: those of Parquet's row groups.
    n_rows, partition_rows, workers : int

    Examples
    --------
    >>> times_decoded(np.array([0]), 1_000, 100, workers=2)  # one decodes all 1,000 rows, the other one the first 900
    1.9
    >>> times_decoded(np.arange(0, 1_000, 50), 1_000, 100, workers=2)
    1.0
    """
    stops = np.append(starts[1:], n_rows)
    first, last = starts // partition_rows, (stops - 1) // partition_rows
    decoded = 0
    for before in range(min(workers, int((last - first).max()) + 1)):
        ends = np.minimum(stops, (last - before + 1) * partition_rows)
        decoded += int((ends - starts)[last - before >= first].sum())
    return decoded / n_rows


def _decoded(stage: Stage[Any], cost: Cost, times: float) -> Cost:
    """A stage's cost, where its input is decoded so often."""
    if not stage.reads_input:
        return cost
    again = int(cost.bytes_read * (times - 1.0))
    return replace(cost, bytes_read=cost.bytes_read + again, seconds=cost.seconds + again * _DECODE_SECONDS)


def _advice(starts: npt.NDArray[np.int64], sizes: Sizes, times: float) -> str:
    """What would make it less, where the input is decoded too often; of a small one it does not matter."""
    again = sizes.n_rows * sizes.n_features * sizes.itemsize * (times - 1.0)
    if times < _TOO_OFTEN or again < _TOO_MUCH:
        return ""
    largest = int(np.diff(np.append(starts, sizes.n_rows)).max())
    return (
        f"The input's row groups have up to {largest:,} rows, the partitions {sizes.partition_rows:,}. Every worker "
        f"that has rows of a group decodes it from its beginning: each pass reads the input {times:.1f} times. Write "
        "it with row groups of some ten thousand rows (row_group_size), or copy it by distcluster ingest, which reads "
        "it once."
    )


def _wall_seconds(cost: Cost, workers: int, trip: float) -> float:
    """Of a stage, none other beside it: a task is one worker's, and waits for the store."""
    turns = -(-cost.tasks // workers) * (_ITERATIONS if cost.is_iterated else 1)
    return cost.seconds / max(1, min(workers, cost.tasks)) + turns * _TRIPS * trip


def measure(job: Job, shape: tuple[int, int], itemsize: int, fitted: int | None = None) -> Sizes:
    """All sizes that costs depend on.

    Raises
    ------
    JobError
        When the subsamples cannot be taken, or there would be too many partitions.
    """
    N, D = shape
    try:
        parts = choose_partitioning(job, N, D)
    except ValueError as error:
        raise JobError(f"an input of {N:,} x {D:,}: {error}.") from error
    subsamples = subsample_sizes(job, fitted or N)
    pca = job.projection.pca
    if pca is not None and min(D, subsamples.sample) <= pca:
        raise JobError(
            f"projection.pca = {pca} must be less than the input's {D:,} features and the sample's "
            f"{subsamples.sample:,} rows."
        )
    ks = [each.n_components for each in grid(job.mixture.n_components, job.mixture.covariance_type, subsamples.mixture)]
    return Sizes(
        n_rows=N,
        n_features=D,
        n_searched=D if pca is None else pca,
        sample_rows=subsamples.sample,
        mixture_rows=subsamples.mixture,
        n_neighbors=job.projection.n_neighbors,
        top=job.assign.top,
        n_views=len(job.projection.views),
        n_components=job.projection.n_components,
        dimensions=job.projection.n_components + sum(job.projection.views),
        itemsize=itemsize,
        partitions=len(parts),
        partition_rows=parts.partition_rows,
        groups=len(groups(parts)),
        block_rows=parts.block_rows,
        candidates=len(ks),
        ks=len(set(ks)),
        components=sum(ks),
        largest_k=max(ks),
        has_top_up=job.sample.top_up,
        has_auto_grid=job.mixture.n_components == "auto",
        has_pca=pca is not None,
        has_previous=job.mixture.previous is not None,
        is_refined=job.selection.refine,
        replicates=job.selection.replicates,
    )


def _model_bytes(sizes: Sizes) -> int:
    """What a worker keeps whatever its task: both subsamples, the index twice, and a block of the input.

    The index as stored and as opened; the block as read, checked, converted, prepared, coded.
    """
    searched = 0 if not sizes.has_pca else sizes.n_searched
    sample = 4 * sizes.sample_rows * (sizes.n_features + searched)
    mixture = 4 * sizes.mixture_rows * sizes.n_features
    return sample + mixture + 2 * index_bytes(sizes) + 6 * 4 * sizes.block_rows * sizes.n_features
