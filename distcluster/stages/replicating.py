"""The pipeline over again, on other rows and on rows without clusters."""

import numpy as np
import numpy.typing as npt

from distcluster.numerics.stability import cluster_again, null_rows, parts_of, project_through, replicate_rows
from distcluster.stages.context import job_of, model_of, record_of, task
from distcluster.stages.fitting import candidates
from distcluster.stages.projecting import searched
from distcluster.storage.run import Run


def replicates(run: Run) -> list[str]:
    """The replicates of a run: of its data, and of rows without clusters."""
    job = job_of(run)
    n = job.selection.replicates
    rows = replicate_rows(record_of(run, "draw")["facts"]["mixture"], max(n, 1))
    if rows <= job.projection.n_neighbors + 1:
        return []  # too few rows to replicate anything
    return [f"{what}-{number}" for what in ("data", "null") for number in range(n)]


@task
def replicate(run: Run, item: str) -> None:
    """Project a replicate's rows, and the common ones, by a UMAP of its own."""
    job = job_of(run)
    what, number = item.split("-")
    count = job.selection.replicates
    rows = model_of(run, "draw")["partial/draw"]
    if what == "null":
        wanted = (2 * count + 1) * replicate_rows(len(rows), count)
        rows = null_rows(model_of(run, "draw")["model/sample"], wanted, job.projection.metric, job.sample.seed)
    sample, fitted, common = (searched(run, part) for part in parts_of(rows, int(number), count))
    points = project_through(
        sample,
        np.concatenate([fitted, common]),
        n_components=job.projection.n_components,
        n_neighbors=job.projection.n_neighbors,
        metric=job.projection.metric,
        min_dist=job.projection.min_dist,
        n_epochs=job.projection.n_epochs,
        seed=job.sample.seed + 1 + int(number),
    )
    run.commit(
        "replicate",
        item,
        models={
            f"partial/replicate/{item}/fitted": points[: len(fitted)],
            f"partial/replicate/{item}/common": points[len(fitted) :],
        },
    )


@task
def recluster(run: Run, item: str) -> None:
    """Fit the whole grid to a replicate, and label the common rows."""
    job = job_of(run)
    points = model_of(run, "replicate", item)
    labels = cluster_again(
        points[f"partial/replicate/{item}/fitted"],
        points[f"partial/replicate/{item}/common"],
        candidates(run),
        tol=job.mixture.tol,
        reg_covar=job.mixture.reg_covar,
        max_iter=job.mixture.max_iter,
        seed=job.sample.seed + 1 + int(item.split("-")[1]),
    )
    run.commit("recluster", item, models={f"partial/recluster/{item}": labels})


def replicated_labels(run: Run, what: str) -> list[npt.NDArray[np.int16]]:
    """Labels of the common rows by every replicate of ``what``: (candidates, rows) each, -1 where a fit failed."""
    items = [item for item in replicates(run) if item.startswith(what)]
    return [model_of(run, "recluster", item)[f"partial/recluster/{item}"] for item in items]
