"""The pipeline over again, on halves of the subsamples and on rows without clusters."""

from functools import partial

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.numerics.sampling import replicate_sizes
from distcluster.stages.context import read_model
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.fitting import START_KMEANS, candidates
from distcluster.stages.projecting import FIT_SECONDS, LAYOUT_SECONDS, read_points
from distcluster.stages.searching import index_bytes, index_seconds, search_seconds, searched
from distcluster.stages.stage import NoFacts, Output, Stage
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.array_store import at_once
from distcluster.storage.run import Run

_NULLS = 2  # they differ less than replicates of data do
_FIT_SECONDS = 1.9e-7  # a row and component, k-means included
_KEPT_ROWS = 5_000  # of the null, for its silhouettes: a standard error of the mean below 0.01
_GIVES_WAY = -1  # to all other stages: nothing but the verdict waits for replicates


def replicates(run: Run) -> list[str] | None:
    """The replicates of a run: of its data, and of rows without clusters."""
    facts, n = SUBSAMPLE.find_facts(run), run.job.selection.replicates
    if facts is None:
        return None
    if min(facts.distinct // 3, *replicate_sizes(facts.mixture)) <= run.job.projection.n_neighbors + 1:
        return []  # too few rows to replicate anything
    return [f"{what}-{number}" for what, count in _counts(n).items() for number in range(count)]


def _counts(replicates: int) -> dict[str, int]:
    return {"data": replicates, "null": min(replicates, _NULLS)}


def replicate(run: Run, item: str) -> Output[NoFacts]:
    """Project a replicate's rows, and the common ones, by a UMAP of its own."""
    table, seed = run.job.projection, run.job.sample.seed
    what, number = item.split("-")
    sample, mixture_sample = read_model(run, layout.SAMPLE), read_model(run, layout.MIXTURE_SAMPLE)
    of_replicate = (
        numerics.stability.half_of(sample, mixture_sample, int(number), seed)
        if what == "data"
        else numerics.stability.null_half(sample, len(mixture_sample), int(number), table.metric, seed)
    )
    sample, fitted, common = (searched(run, part) for part in of_replicate)
    points = numerics.stability.project_through(
        sample,
        np.concatenate([fitted, common]),
        n_components=table.n_components,
        n_neighbors=table.n_neighbors,
        metric=table.metric,
        min_dist=table.min_dist,
        n_epochs=table.n_epochs,
        seed=seed + 1 + int(number),
        optimizer=table.optimizer,
    )
    return Output(
        NoFacts(),
        arrays={
            layout.REPLICATE_FITTED: points[: len(fitted)],
            layout.REPLICATE_COMMON: points[len(fitted) :],
            layout.REPLICATE_ROWS: of_replicate[2][: _KEPT_ROWS if item == "null-0" else 0],
        },
    )


def _replicate_cost(sizes: Sizes) -> Cost:
    count, half = sum(_counts(sizes.replicates).values()), sizes.sample_rows // 2
    placed = sum(replicate_sizes(sizes.mixture_rows))
    seconds = index_seconds(sizes) / 2 + search_seconds(sizes, half + placed) + half * FIT_SECONDS
    return Cost(
        tasks=count,
        seconds=count * (seconds + placed * LAYOUT_SECONDS),
        memory_bytes=half * sizes.n_searched * 4 + index_bytes(sizes),
    )


REPLICATE = Stage(
    "replicate",
    replicate,
    facts=NoFacts,
    items=replicates,
    reads=("subsample", "fit_pca"),
    priority=_GIVES_WAY,
    cost=_replicate_cost,
)


def _recluster_cost(sizes: Sizes) -> Cost:
    count, (_, fitted) = sum(_counts(sizes.replicates).values()), replicate_sizes(sizes.mixture_rows)
    return Cost(tasks=count, seconds=count * fitted * sizes.components * _FIT_SECONDS)


def recluster(run: Run, item: str) -> Output[NoFacts]:
    """Fit the whole grid to a replicate, and label the common rows."""
    table, tried = run.job.mixture, candidates(run)
    labels = numerics.stability.cluster_again(
        read_model(run, layout.REPLICATE_FITTED, item),
        read_model(run, layout.REPLICATE_COMMON, item),
        tried,
        tol=table.tol,
        reg_covar=table.reg_covar,
        max_iter=table.max_iter,
        seed=run.job.sample.seed + 1 + int(item.split("-")[1]),
        are_merged=START_KMEANS.facts_of(run, tried[0].n_components).are_merged,
    )
    return Output(NoFacts(), arrays={layout.REPLICATE_LABEL: labels})


RECLUSTER = Stage(
    "recluster",
    recluster,
    facts=NoFacts,
    items=replicates,
    reads=("subsample", "extend_grid", "replicate", "start_kmeans"),
    priority=_GIVES_WAY,
    cost=_recluster_cost,
)


def common_points(run: Run) -> npt.NDArray[np.float32]:
    """The rows that all replicates label, in the run's own projection; (n, d)."""
    points = read_points(run)
    return points[: replicate_sizes(len(points))[0]]


def replicated_labels(run: Run, what: str) -> list[npt.NDArray[np.int16]]:
    """Labels of the common rows by every replicate of ``what``: (candidates, rows) each, -1 where a fit failed."""
    SUBSAMPLE.facts_of(run)  # without it there is no telling how many there should be
    items = [item for item in replicates(run) or [] if item.startswith(what)]
    return at_once(partial(run.read, layout.REPLICATE_LABEL), items)
