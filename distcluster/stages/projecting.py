"""UMAP fitted on its subsample, and every row's place among its neighbours."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.job import Job
from distcluster.numerics.support import support
from distcluster.stages.context import read_model, task_threads
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.searching import BUILD_INDEX, find_nearest, search_seconds
from distcluster.stages.stage import NoFacts, Output, Stage, one, partitions
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.array_store import at_once
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE

Float32 = npt.NDArray[np.float32]

FIT_SECONDS = 7e-5  # a sample row and space
_FIT_BYTES = 4_000  # of a sample row: its graph, and the vectors of the spectral start
LAYOUT_SECONDS = 1.7e-5  # a row, where it is clustered
_VIEW_SECONDS = 1.2e-5  # a row and view


def views(job: Job) -> dict[str, int]:
    """The projections for looking, name to dimensions."""
    return {f"view_{d}d": d for d in job.projection.views}


def spaces(job: Job) -> dict[str, int]:
    """The projections of a job, name to dimensions: the one that is clustered, then the views."""
    return {"projection": job.projection.n_components} | views(job)


# --- fits -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FitFacts:
    """UMAP's curve: the low-dimensional similarity is 1 / (1 + a x^2b)."""

    a: float
    b: float


def fit_umap(run: Run) -> Output[FitFacts]:
    """Fit UMAP on its subsample, for the space that is clustered."""
    facts, anchors = _fit(run, "projection")
    return Output(facts, arrays={layout.ANCHORS: anchors, layout.FIELD: numerics.repulsion.repulsion_field(anchors)})


def fit_view(run: Run, space: str) -> Output[FitFacts]:
    """Fit UMAP on its subsample, for a view."""
    facts, anchors = _fit(run, space)
    field = numerics.repulsion.view_field(anchors, facts.a, facts.b)
    return Output(facts, arrays={layout.VIEW_ANCHORS: anchors, layout.VIEW_FIELD: field})


def _fit(run: Run, space: str) -> tuple[FitFacts, Float32]:
    table = run.job.projection
    anchors = numerics.umap_fit.fit_anchors(
        read_model(run, layout.SAMPLE),
        read_model(run, layout.SAMPLE_NEIGHBOURS),
        read_model(run, layout.SAMPLE_DISTANCES),
        n_components=spaces(run.job)[space],
        metric=table.metric,
        min_dist=table.min_dist,
        n_epochs=table.n_epochs,
        seed=run.job.sample.seed,
        optimizer=table.optimizer,
        threads=task_threads.get(),
    )
    return FitFacts(*numerics.umap_fit.curve_parameters(table.min_dist)), anchors


def _fit_cost(sizes: Sizes, fits: int) -> Cost:
    return Cost(tasks=fits, seconds=fits * sizes.sample_rows * FIT_SECONDS, memory_bytes=sizes.sample_rows * _FIT_BYTES)


FIT_UMAP = Stage(
    "fit_umap",
    fit_umap,
    facts=FitFacts,
    items=one,
    reads=("subsample", "build_index"),
    cost=lambda sizes: _fit_cost(sizes, 1),
)

FIT_VIEWS = Stage(
    "fit_views",
    fit_view,
    facts=FitFacts,
    items=lambda run: list(views(run.job)),
    reads=("subsample", "build_index"),
    cost=lambda sizes: _fit_cost(sizes, sizes.n_views),
)


# --- rows -------------------------------------------------------------------------------------------------------


def project_into(run: Run, space: str, found: npt.NDArray[np.int32], distance: Float32) -> Float32:
    """Coordinates of rows in one of the job's spaces, from their neighbours."""
    is_view = space != "projection"
    stage, item = (FIT_VIEWS, space) if is_view else (FIT_UMAP, ONE)
    anchors, field = (layout.VIEW_ANCHORS, layout.VIEW_FIELD) if is_view else (layout.ANCHORS, layout.FIELD)
    curve = stage.facts_of(run, item)
    return numerics.projection.project(
        found,
        distance,
        read_model(run, anchors, item),
        read_model(run, field, item),
        a=curve.a,
        b=curve.b,
        mean_distance=BUILD_INDEX.facts_of(run).mean_distance,
    )


def _subsample_parts(run: Run) -> list[int] | None:
    """The parts, of a block's rows, in which the mixture subsample is projected ahead of the rest."""
    facts = SUBSAMPLE.find_facts(run)
    return None if facts is None else list(range(-(-facts.mixture // run.partitioning.block_rows)))


def project_subsample(run: Run, index: int) -> Output[NoFacts]:
    """Project a part of the mixture subsample into the space that is clustered."""
    size = run.partitioning.block_rows
    rows = read_model(run, layout.MIXTURE_SAMPLE)[index * size : (index + 1) * size]
    points = project_into(run, "projection", *find_nearest(run, np.ascontiguousarray(rows)))
    return Output(NoFacts(), arrays={layout.MIXTURE_POINTS: points})


PROJECT_SUBSAMPLE = Stage(
    "project_subsample",
    project_subsample,
    facts=NoFacts,
    items=_subsample_parts,
    reads=("subsample", "fit_pca", "build_index", "fit_umap"),
    cost=lambda sizes: Cost(
        tasks=-(-sizes.mixture_rows // sizes.block_rows), seconds=search_seconds(sizes, sizes.mixture_rows)
    ),
)


def read_points(run: Run) -> Float32:
    """The projected mixture subsample, (M, d)."""
    parts = range(-(-SUBSAMPLE.facts_of(run).mixture // run.partitioning.block_rows))
    return np.concatenate(at_once(partial(read_model, run, layout.MIXTURE_POINTS), parts))


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """Rows of a partition whose support lies above the sample's limit."""

    n_outside_support: int


def project_rows(run: Run, index: int) -> Output[ProjectFacts]:
    """Project a partition into every space, from its neighbours."""
    partition = run.partitioning[index]
    found = run.read_rows(layout.NEIGHBOUR_INDEX, partition)
    distance = run.read_rows(layout.NEIGHBOUR_DISTANCE, partition)
    projected = {layout.SPACES[space]: project_into(run, space, found, distance) for space in spaces(run.job)}
    of_rows = support(found, distance, read_model(run, layout.SAMPLE_SCALE))
    outside = int((of_rows > BUILD_INDEX.facts_of(run).support_limit).sum())
    return Output(ProjectFacts(outside), rows={**projected, layout.SUPPORT: of_rows})


def _project_cost(sizes: Sizes) -> Cost:
    row_bytes = 4 * (sizes.dimensions + 1)
    return Cost(
        tasks=sizes.partitions,
        seconds=sizes.n_rows * (LAYOUT_SECONDS + sizes.n_views * _VIEW_SECONDS),
        bytes_written=sizes.n_rows * row_bytes,
        memory_bytes=sizes.partition_rows * 3 * (8 * sizes.n_neighbors + row_bytes),
    )


PROJECT_ROWS = Stage(
    "project_rows",
    project_rows,
    facts=ProjectFacts,
    items=partitions,
    reads=("find_neighbours", "build_index", "fit_umap", "fit_views"),
    unit="rows",
    drops=(layout.NEIGHBOURS,),
    is_result=True,
    cost=_project_cost,
)
