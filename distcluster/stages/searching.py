"""The index over the UMAP subsample, and the nearest sample rows of every row."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.numerics.index_facts import INDEX_ARRAYS, IndexFacts
from distcluster.numerics.support import local_scale, support_limit
from distcluster.stages.context import open_run, read_model, read_models
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.stage import NoFacts, Output, Stage, one, partitions
from distcluster.stages.subsampling import READ_SECONDS, SUBSAMPLE, read_blocks
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE
from distcluster.storage.settings import RunRef

if TYPE_CHECKING:
    from distcluster.numerics.neighbors import NeighbourIndex

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_SEARCH_SECONDS = 1.5e-7  # a value of a row that is searched
_INDEX_SECONDS = 3.5e-7  # a value of the sample: the graph, the search for the least effort, its own neighbours
_PROBES = 200  # of all rows, compared with the whole sample: a second of work, a standard error of half a percent
_LINK_BYTES = 2 * 32 * 4 + 16  # of a vertex of the index's lowest layer; the layers above are a few percent


def index_bytes(sizes: Sizes) -> int:
    """The index as stored: 8-bit codes and links."""
    return sizes.sample_rows * (sizes.n_searched + _LINK_BYTES)


def index_seconds(sizes: Sizes) -> float:
    """Of an index over the sample."""
    return sizes.sample_rows * sizes.n_features * _INDEX_SECONDS


def search_seconds(sizes: Sizes, n_rows: int) -> float:
    """Of searching so many rows."""
    return n_rows * sizes.n_features * _SEARCH_SECONDS


# --- principal components ---------------------------------------------------------------------------------------


FIT_PCA = Stage(
    "fit_pca",
    task=None,  # execution.pca: dask-ml works on Dask arrays
    facts=NoFacts,
    items=lambda run: [] if run.job.projection.pca is None else [ONE],
    reads=("subsample",),
    cost=lambda sizes: Cost(tasks=int(sizes.has_pca)),
)


def searched(run: Run, prepared: Float32) -> Float32:
    """Prepared rows as the index compares them: their principal components, where the job asks for them."""
    if run.job.projection.pca is None:
        return prepared
    mean, components = read_model(run, layout.PCA_MEAN), read_model(run, layout.PCA_COMPONENTS)
    return np.asarray(numerics.prepared_rows.principal(np.ascontiguousarray(prepared), mean, components))


# --- the index --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuildIndexFacts:
    """The sample's mean neighbour distance, the support that one in a thousand of its rows exceeds, and the search."""

    mean_distance: float
    support_limit: float
    search: IndexFacts


def index_sample(run: Run) -> Output[BuildIndexFacts]:
    """Build the neighbour index, and find the sample's own neighbours for UMAP."""
    k, metric = run.job.projection.n_neighbors, run.job.projection.metric
    sample = searched(run, read_model(run, layout.SAMPLE))
    arrays, facts = numerics.neighbors.build_index(
        sample, searched(run, read_model(run, layout.MIXTURE_SAMPLE)), k, metric
    )
    found, distance = numerics.neighbors.nearest(
        numerics.neighbors.open_index(arrays, facts, sample), sample, k, metric
    )
    scale = local_scale(distance)
    return Output(
        BuildIndexFacts(
            mean_distance=float(distance.mean(dtype=np.float64)),
            support_limit=support_limit(found, distance, scale),
            search=facts,
        ),
        arrays={
            **{layout.INDEX[name]: values for name, values in arrays.items()},
            layout.SAMPLE_NEIGHBOURS: found,
            layout.SAMPLE_DISTANCES: distance,
            layout.SAMPLE_SCALE: scale,
        },
    )


def _index_cost(sizes: Sizes) -> Cost:
    both = sizes.sample_rows + sizes.mixture_rows
    return Cost(
        tasks=1,
        seconds=index_seconds(sizes),
        bytes_written=index_bytes(sizes),
        memory_bytes=4 * both * sizes.n_searched + index_bytes(sizes),  # codes as floats, the probes, the graph
    )


BUILD_INDEX = Stage(
    "build_index",
    index_sample,
    facts=BuildIndexFacts,
    items=one,
    reads=("subsample", "fit_pca"),
    cost=_index_cost,
)


def find_nearest(run: Run, rows: Float32) -> tuple[Int32, Float32]:
    """Neighbours of prepared rows in the run's sample."""
    table = run.job.projection
    return numerics.neighbors.nearest(_opened(run), searched(run, rows), table.n_neighbors, table.metric)


def _opened(run: Run) -> "NeighbourIndex":
    records = (run.records.read(stage.name, ONE) for stage in (BUILD_INDEX, SUBSAMPLE))
    return _opened_index(run.ref, tuple(record.id for record in records if record))


@functools.lru_cache(maxsize=2)
def _opened_index(ref: RunRef, _commit_ids: tuple[str, ...]) -> "NeighbourIndex":
    run = open_run(ref)
    arrays = dict(zip(INDEX_ARRAYS, read_models(run, [layout.INDEX[name] for name in INDEX_ARRAYS]), strict=True))
    return numerics.neighbors.open_index(
        arrays, BUILD_INDEX.facts_of(run).search, searched(run, read_model(run, layout.SAMPLE))
    )


# --- every row --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NeighbourFacts:
    """Where a finished model labels rows: of some of a partition's, how many of their nearest rows the search finds.

    ``probes`` of them; the sums of these numbers and of their squares.
    """

    probes: int
    found: int
    found_squared: int


def find_neighbours(run: Run, index: int) -> Output[NeighbourFacts]:
    """The nearest sample rows of every row of a partition; -1 and NaN for invalid rows."""
    table, partition = run.job.projection, run.partitioning[index]
    new = run.partitioning.n_rows - (run.settings.appended or (0,))[-1]
    every, counts = max(1, new // _PROBES), [np.empty(0, np.int64)]
    measures = bool(run.settings.model) and BUILD_INDEX.facts_of(run).search.kind != "exact"
    found = np.full((len(partition), table.n_neighbors), -1, np.int32)
    distance = np.full(found.shape, np.nan, np.float32)
    for block, rows, valid in read_blocks(run, partition):
        here = np.flatnonzero(valid) + block.start - partition.start
        prepared = numerics.prepared_rows.prepare(rows[valid], table.metric)
        found[here], distance[here] = find_nearest(run, prepared)
        if measures:
            probes = np.ascontiguousarray(prepared[(here + partition.start) % every == 0])
            counts.append(
                numerics.neighbors.count_found(_opened(run), searched(run, probes), table.n_neighbors, table.metric)
            )
    n = np.concatenate(counts)
    return Output(
        NeighbourFacts(len(n), int(n.sum()), int((n**2).sum())),
        rows={layout.NEIGHBOUR_INDEX: found, layout.NEIGHBOUR_DISTANCE: distance},
    )


def _neighbours_cost(sizes: Sizes) -> Cost:
    values, row_bytes = sizes.n_rows * sizes.n_features, 8 * sizes.n_neighbors
    return Cost(
        tasks=sizes.partitions,
        seconds=search_seconds(sizes, sizes.n_rows) + values * READ_SECONDS,
        bytes_read=values * sizes.itemsize,
        bytes_written=sizes.n_rows * row_bytes,
        memory_bytes=sizes.partition_rows * row_bytes,
    )


FIND_NEIGHBOURS = Stage(
    "find_neighbours",
    find_neighbours,
    facts=NeighbourFacts,
    items=partitions,
    reads=("scan", "subsample", "fit_pca", "build_index"),
    unit="rows",
    reads_input=True,
    cost=_neighbours_cost,
)
