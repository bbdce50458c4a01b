"""What a job will cost, before it costs anything: tasks, bytes, memory, time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distcluster.errors import JobError
from distcluster.job import Job, subsample_sizes
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.candidate_grid import grid
from distcluster.numerics.partition import Partitioning, groups
from distcluster.numerics.sampling import REPLICATE_ROWS

_PARTITION_BYTES = 2**27  # of float32 rows: some seconds of work, a small part of a worker's memory
_LEAST_PARTITIONS = 16  # so that a handful of workers finish together

_PROCESS_BYTES = 450 * 2**20  # Python, dask, scikit-learn, umap-learn, faiss and the compiled kernels
_FRAGMENTATION = 1.1  # what the allocator keeps beside what is in use
_TRUST_BYTES = 6 * 8 * 2_048**2  # scikit-learn's trustworthiness of 2,048 rows
_LINK_BYTES = 2 * 32 * 4 + 16  # of a vertex of the index's lowest layer; the layers above are a few percent
_FIT_BYTES = 4_000  # of a sample row in umap-learn: its fuzzy graph, and the vectors of the spectral start

# Seconds a unit on the reference machine (docs/architecture.md), for the estimate alone.
_SCAN_PER_VALUE = 4e-9
_SEARCH_PER_VALUE = 1.5e-7
_LAYOUT_PER_ROW = 1.7e-5
_FIT_PER_ROW = 6e-4
_REPLICATE_PER_ROW = 2e-3  # its own fit takes 500 epochs
_GRID_PER_ROW_COMPONENT = 2e-6  # mostly k-means
_SCORE_PER_ROW_COMPONENT = 6e-9
_START_SECONDS = 8.0


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
        A rough estimate for ``workers`` workers of one thread.
    workers : int
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


def choose_partitioning(job: Job, n_rows: int, n_features: int) -> Partitioning:
    """Rows of a task: the job's, else the largest that leaves 16 tasks and 128 MiB of float32 rows in each."""
    block_rows = job.assign.block_rows
    if job.assign.partition_rows is not None:
        return Partitioning(n_rows, block_rows, job.assign.partition_rows)
    most = min(_PARTITION_BYTES // (4 * n_features), n_rows // _LEAST_PARTITIONS)
    blocks = 2 ** max(0, int(np.log2(max(1, most // block_rows))))
    return Partitioning(n_rows, block_rows, block_rows * blocks)


def make_plan(job: Job, shape: tuple[int, int], itemsize: int) -> Plan:
    """Compute the cost of a job on an input of N x D values, all rows taken as valid.

    Raises
    ------
    JobError
        When the draws cannot be made.
    """
    N, D = shape
    parts = choose_partitioning(job, N, D)
    sizes = subsample_sizes(job, N)
    S, M = sizes.sample, sizes.mixture
    P = D if job.projection.pca is None else job.projection.pca
    if job.projection.pca is not None and min(D, S) <= P:
        raise JobError(
            f"projection.pca = {P} must be less than the input's {D:,} features and the sample's {S:,} rows."
        )
    k, top, d = job.projection.n_neighbors, job.assign.top, job.projection.n_components
    candidates = grid(job.mixture.n_components, job.mixture.covariance_type, M)
    components = sum(each.n_components for each in candidates)
    largest = max(each.n_components for each in candidates)
    n_spaces = 1 + len(job.projection.views)
    dimensions = d + sum(job.projection.views)
    workers = job.deploy.n_workers or len(os.sched_getaffinity(0))

    sample_bytes = 4 * S * (D + (0 if job.projection.pca is None else P))
    index_bytes = S * (P + _LINK_BYTES)  # 8-bit codes and links
    block_bytes = 4 * parts.block_rows * D
    row_bytes = 8 * k + 4 * dimensions + 4 * (4 + 2 * top)
    seconds = {
        "per row": N * D * _SCAN_PER_VALUE * 2
        + (N + M + S) * D * _SEARCH_PER_VALUE
        + N * n_spaces * _LAYOUT_PER_ROW
        + N * components * _SCORE_PER_ROW_COMPONENT,
        "fit": S * n_spaces * _FIT_PER_ROW,
        "replicates": job.selection.replicates * 2 * min(REPLICATE_ROWS, M / 5) * _REPLICATE_PER_ROW,
        "grid": M * components * _GRID_PER_ROW_COMPONENT,
    }
    return Plan(
        rows=N,
        features=D,
        sample_rows=S,
        mixture_rows=M,
        partitions=len(parts),
        partition_rows=parts.partition_rows,
        candidates=len(candidates),
        tasks=_tasks(job, parts, candidates, M),
        refine_tasks=len(groups(parts)) + 1 if job.selection.refine else 0,
        bytes_read=2 * N * D * itemsize,
        bytes_written=N * row_bytes + 4 * (S + M) * D + index_bytes,
        memory_bytes=int(
            _FRAGMENTATION
            * (
                _PROCESS_BYTES
                + sample_bytes
                + 2 * index_bytes
                + 4 * M * D  # models that a process keeps
                + 6 * block_bytes  # a block of the input: as read, checked, converted, prepared, coded
                + max(
                    3 * 4 * (S + M) * D,  # draw: as gathered, side by side, chosen
                    4 * (S + M) * P + index_bytes,  # index: codes as floats, the probes, the graph's bytes
                    S * _FIT_BYTES,  # fit
                    parts.partition_rows * max(8 * k, 3 * row_bytes),  # neighbours, project
                    M * (4 * d + 3 * 8 * largest),  # EM
                    _TRUST_BYTES,
                )
            )
        ),
        seconds=_START_SECONDS + sum(seconds.values()) / workers,
        workers=workers,
    )


def _tasks(job: Job, parts: Partitioning, candidates: Sequence[Candidate], mixture_rows: int) -> int:
    """Items of all stages but the refinement's, as ``distcluster.stages.context.STAGES`` names them."""
    of_every_row = 6  # scan, neighbours, project, score, silhouette, assign
    of_the_run = 9  # draw, index, fit, clusters, select, mixture, quality, hierarchy, cluster
    n_replicates = 4 * job.selection.replicates  # of the data and the null, projected and clustered
    ks = {each.n_components for each in candidates}
    return (
        of_every_row * len(parts)
        + of_the_run
        + (job.projection.pca is not None)
        + len(job.projection.views)
        + -(-mixture_rows // parts.block_rows)  # sketch
        + len(ks)  # k-means
        + len(candidates)
        + n_replicates
        + (job.mixture.n_components == "auto")  # the decision that the grid is complete
    )
