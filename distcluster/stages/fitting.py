"""Every candidate of the grid, fitted on the projected mixture draw."""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.assignment import assign_rows
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.candidate_fit import fit_candidate, initial_labels
from distcluster.numerics.mixture.candidate_grid import grid, largest_k, missing_ks
from distcluster.numerics.mixture.criteria import Criteria, add_fitted_criteria
from distcluster.numerics.mixture.parameters import Mixture, NaturalParameters, natural_parameters
from distcluster.numerics.mixture.silhouettes import stratified_silhouette
from distcluster.stages.context import PARAMETERS, RunRef, job_of, model_of, open_run, record_of, task
from distcluster.stages.projecting import points_of
from distcluster.storage.run import Run


def candidates(run: Run) -> list[Candidate]:
    """The grid of a run, once the draws are known: as the job says, and what has been added since."""
    table = job_of(run).mixture
    first = grid(table.n_components, table.covariance_type, record_of(run, "draw")["facts"]["mixture"])
    added = [k for ks in _additions(run) for k in ks]
    ks = sorted({each.n_components for each in first} | set(added))
    return [Candidate(k, kind) for k in ks for kind in table.covariance_type]


def _additions(run: Run) -> list[list[int]]:
    """The ks that each round has added to the automatic grid; the last is empty where the grid is complete."""
    found: list[list[int]] = []
    while record := run.record("grid", str(len(found))):
        found.append(record["facts"]["ks"])
    return found


def grid_round(run: Run) -> int | None:
    """The round in which the automatic grid may grow next, or None where it is complete."""
    added = _additions(run)
    is_complete = job_of(run).mixture.n_components != "auto" or (added and not added[-1])
    return None if is_complete else len(added)


@task
def extend_grid(run: Run, round_number: int) -> None:
    """Decide which ks the automatic grid still lacks, from the rows that its candidates were fitted on."""
    facts = record_of(run, "draw")["facts"]
    n_rows = facts["mixture"]
    table = []
    for each in candidates(run):
        row = unjudged(run, each)
        if not row.error:
            mean = record_of(run, "candidate", str(each))["facts"]["mean_log_likelihood"]
            row = add_fitted_criteria(row, fitted_mixture(run, each).n_parameters, mean, n_rows)
        table.append(row)
    has_between = any(record_of(run, "grid", str(i))["facts"]["why"] == "between" for i in range(round_number))
    added = missing_ks(table, n_rows, largest_k(facts["sample"], n_rows), has_between=has_between)
    run.commit("grid", str(round_number), {"ks": list(added.ks), "why": added.why})


def unjudged(run: Run, wanted: Candidate) -> Criteria:
    """A candidate's row of the table before it is judged."""
    facts = record_of(run, "candidate", str(wanted))["facts"]
    return Criteria(wanted.n_components, wanted.covariance_type, *(float("nan"),) * 4, facts["n_iter"],
                    facts["converged"], facts["error"])  # fmt: skip


@task
def kmeans(run: Run, n_components: int) -> None:
    """The start that the covariance types of one k share."""
    job = job_of(run)
    labels = initial_labels(points_of(run), n_components, job.mixture.n_init, job.sample.seed)
    run.commit("kmeans", str(n_components), models={f"partial/kmeans/{n_components}": labels})


@task
def candidate(run: Run, wanted: Candidate) -> None:
    """Fit one candidate of the grid on the projected mixture draw; a failure is a result."""
    job = job_of(run)
    points = points_of(run)
    k = wanted.n_components
    labels = model_of(run, "kmeans", str(k))[f"partial/kmeans/{k}"]
    fitted = fit_candidate(
        points, labels, wanted, tol=job.mixture.tol, reg_covar=job.mixture.reg_covar, max_iter=job.mixture.max_iter
    )
    models: dict[str, npt.NDArray[Any]] = {}
    silhouette = error = None
    if fitted.mixture is not None:
        prefix = f"selection/fit/{wanted}"
        models = {
            f"{prefix}/weights": fitted.mixture.weights,
            f"{prefix}/means": fitted.mixture.means,
            f"{prefix}/covariances": fitted.mixture.covariances,
        }
        label = assign_rows(points, fitted.mixture, top=1).label
        silhouette, error = stratified_silhouette(points, label)
    run.commit(
        "candidate",
        str(wanted),
        {
            "n_iter": fitted.n_iter,
            "converged": fitted.converged,
            "error": fitted.error,
            "note": fitted.note,
            "mean_log_likelihood": None if fitted.error else fitted.mean_log_likelihood,
            "silhouette_euclidean": silhouette,
            "silhouette_euclidean_error": error,
            "seconds": fitted.seconds,
        },
        models=models,
    )


def fitted_mixture(run: Run, wanted: Candidate) -> Mixture:
    """A candidate as it was fitted on the mixture draw."""
    prefix = f"selection/fit/{wanted}"
    arrays = model_of(run, "candidate", str(wanted))
    return Mixture(wanted, *(arrays[f"{prefix}/{name}"] for name in PARAMETERS))


def fitted_candidates(run: Run) -> list[Candidate]:
    """The candidates of the grid that could be fitted, in its order."""
    return [each for each in candidates(run) if not record_of(run, "candidate", str(each))["facts"]["error"]]


@functools.lru_cache(maxsize=2)
def _parameters_of(
    ref: RunRef, _commit_ids: tuple[str, ...]
) -> tuple[npt.NDArray[np.float64], list[NaturalParameters]]:
    run = open_run(ref)
    centre = points_of(run).mean(axis=0, dtype=np.float64)
    return centre, [natural_parameters(fitted_mixture(run, each), centre) for each in fitted_candidates(run)]


def grid_parameters(run: Run) -> tuple[npt.NDArray[np.float64], list[NaturalParameters]]:
    """The centre of the mixture draw, and all fitted candidates relative to it."""
    ids = tuple(record_of(run, "candidate", str(each))["id"] for each in candidates(run))
    return _parameters_of(RunRef(run.url, run.attributes["run_id"]), ids)
