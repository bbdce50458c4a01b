"""The pipeline over again, on other rows and on rows without clusters."""

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.numerics.sampling import replicate_rows
from distcluster.stages.context import read_model
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.fitting import candidates
from distcluster.stages.searching import searched
from distcluster.stages.stage import NoFacts, Output, Stage
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.run import Run

_SECONDS = 8.4e-4  # a row of a replicate: its own index and fit
_FIT_SECONDS = 1.9e-7  # a row and component, k-means included
_KEPT_ROWS = 5_000  # of the null, for its silhouettes: a standard error of the mean below 0.01
_GIVES_WAY = -1  # to all other stages: nothing but the verdict waits for replicates


def replicates(run: Run) -> list[str] | None:
    """The replicates of a run: of its data, and of rows without clusters."""
    facts, n = SUBSAMPLE.find_facts(run), run.job.selection.replicates
    if facts is None:
        return None
    if replicate_rows(facts.mixture, max(n, 1)) <= run.job.projection.n_neighbors + 1:
        return []  # too few rows to replicate anything
    return [f"{what}-{number}" for what in ("data", "null") for number in range(n)]


def replicate(run: Run, item: str) -> Output[NoFacts]:
    """Project a replicate's rows, and the common ones, by a UMAP of its own."""
    table, seed, count = run.job.projection, run.job.sample.seed, run.job.selection.replicates
    what, number = item.split("-")
    rows = read_model(run, layout.MIXTURE_SAMPLE)
    if what == "null":
        wanted = (2 * count + 1) * replicate_rows(len(rows), count)
        rows = numerics.stability.null_rows(read_model(run, layout.SAMPLE), wanted, table.metric, seed)
    of_replicate = numerics.stability.parts_of(rows, int(number), count)
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
    count = 2 * sizes.replicates
    rows = replicate_rows(sizes.mixture_rows, max(sizes.replicates, 1))
    return Cost(tasks=count, seconds=count * rows * _SECONDS)


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
    count = 2 * sizes.replicates
    rows = replicate_rows(sizes.mixture_rows, max(sizes.replicates, 1))
    return Cost(tasks=count, seconds=count * rows * sizes.components * _FIT_SECONDS)


def recluster(run: Run, item: str) -> Output[NoFacts]:
    """Fit the whole grid to a replicate, and label the common rows."""
    table = run.job.mixture
    labels = numerics.stability.cluster_again(
        read_model(run, layout.REPLICATE_FITTED, item),
        read_model(run, layout.REPLICATE_COMMON, item),
        candidates(run),
        tol=table.tol,
        reg_covar=table.reg_covar,
        max_iter=table.max_iter,
        seed=run.job.sample.seed + 1 + int(item.split("-")[1]),
    )
    return Output(NoFacts(), arrays={layout.REPLICATE_LABEL: labels})


RECLUSTER = Stage(
    "recluster",
    recluster,
    facts=NoFacts,
    items=replicates,
    reads=("subsample", "extend_grid", "replicate"),
    priority=_GIVES_WAY,
    cost=_recluster_cost,
)


def replicated_labels(run: Run, what: str) -> list[npt.NDArray[np.int16]]:
    """Labels of the common rows by every replicate of ``what``: (candidates, rows) each, -1 where a fit failed."""
    SUBSAMPLE.facts_of(run)  # without it there is no telling how many there should be
    items = [item for item in replicates(run) or [] if item.startswith(what)]
    return [run.read(layout.REPLICATE_LABEL, item) for item in items]
