"""Every candidate of the grid, fitted on the projected mixture subsample."""

import functools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.candidate_grid import grid, largest_k, missing_ks
from distcluster.numerics.mixture.criteria import Criteria, add_fitted_criteria
from distcluster.stages.context import open_run, read_model, read_models
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.projecting import read_points
from distcluster.stages.stage import Output, Stage
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.array_store import at_once
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ItemArray
from distcluster.storage.settings import RunRef

if TYPE_CHECKING:
    from distcluster.numerics.mixture.parameters import Mixture, NaturalParameters
    from distcluster.numerics.mixture.start import Starts

Float64 = npt.NDArray[np.float64]

_SECONDS = 2e-7  # a row of the mixture subsample and component, k-means included


# --- the grid ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExtendFacts:
    """The ks that a round has added to the automatic grid, and why; no ks where the grid is complete."""

    ks: tuple[int, ...]
    why: Literal["extended", "between", "complete"]


def candidates(run: Run) -> list[Candidate]:
    """The grid of a run, once its subsamples are known: as the job says, and what has been added since."""
    table = run.job.mixture
    first = grid(table.n_components, table.covariance_type, SUBSAMPLE.facts_of(run).mixture)
    added = [k for each in _additions(run) for k in each.ks]
    ks = sorted({each.n_components for each in first} | set(added))
    return [Candidate(k, kind) for k in ks for kind in table.covariance_type]


def _additions(run: Run) -> list[ExtendFacts]:
    """What each round has added to the automatic grid."""
    found: list[ExtendFacts] = []
    while (facts := EXTEND_GRID.find_facts(run, len(found))) is not None:
        found.append(facts)
    return found


def grid_round(run: Run) -> int | None:
    """The round in which the automatic grid may grow next, or None where it is complete."""
    added = _additions(run)
    is_complete = run.job.mixture.n_components != "auto" or (added and not added[-1].ks)
    return None if is_complete else len(added)


def extend_grid(run: Run, number: int) -> Output[ExtendFacts]:
    """Decide in a round which ks the automatic grid still lacks, from the rows that its candidates were fitted on."""
    facts = SUBSAMPLE.facts_of(run)
    table = []
    for each, of_fit in facts_of_fits(run).items():
        row = unscored(each, of_fit)
        if of_fit.mean_log_likelihood is not None:
            n_parameters = each.n_parameters(run.job.projection.n_components)
            row = add_fitted_criteria(row, n_parameters, of_fit.mean_log_likelihood, facts.mixture)
        table.append(row)
    has_between = any(each.why == "between" for each in _additions(run)[:number])
    limit = largest_k(facts.sample, facts.mixture)
    added = missing_ks(table, facts.mixture, limit, has_between=has_between)
    return Output(ExtendFacts(added.ks, added.why))


def _rounds(run: Run) -> range | None:
    """Rounds come as many as the grid turns out to need."""
    if run.job.mixture.n_components != "auto":
        return range(0)
    if SUBSAMPLE.find_facts(run) is None or grid_round(run) is not None:
        return None
    return range(len(_additions(run)))


def unscored(wanted: Candidate, facts: "CandidateFacts") -> Criteria:
    """A candidate's row of the selection table before it has criteria."""
    return Criteria(wanted.n_components, wanted.covariance_type, *(float("nan"),) * 4, facts.n_iter,
                    facts.converged, facts.error)  # fmt: skip


# --- fits -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartFacts:
    """Whether fits start from small clusters that are merged, and not from k-means' k: for all k the same."""

    are_merged: bool


def start_kmeans(run: Run, n_components: int) -> Output[StartFacts]:
    """The start that the covariance types of one k share."""
    starts = _starts_of(run.ref)
    return Output(StartFacts(starts.are_merged), arrays={layout.KMEANS_LABEL: starts.labels(n_components)})


@functools.lru_cache(maxsize=1)
def _starts_of(ref: RunRef) -> "Starts":
    run = open_run(ref)
    return numerics.mixture.start.Starts(read_points(run), run.job.mixture.n_init, run.job.sample.seed)


def _ks(run: Run) -> list[int] | None:
    """The largest first, for it takes longest."""
    if SUBSAMPLE.find_facts(run) is None:
        return None
    return sorted({each.n_components for each in candidates(run)}, reverse=True)


START_KMEANS = Stage(
    "start_kmeans",
    start_kmeans,
    facts=StartFacts,
    items=_ks,
    reads=("subsample", "project_subsample"),
    cost=lambda sizes: Cost(tasks=sizes.ks),
)


@dataclass(frozen=True, slots=True)
class CandidateFacts:
    """How a fit ended: ``CandidateFit``'s, and the silhouette in Euclidean distance; None where there is an error."""

    n_iter: int
    converged: bool
    error: str
    note: str
    mean_log_likelihood: float | None
    silhouette_euclidean: float | None
    silhouette_euclidean_error: float | None
    seconds: float


def fit(run: Run, wanted: Candidate) -> Output[CandidateFacts]:
    """Fit one candidate of the grid on the projected mixture subsample; a failure is a result."""
    table, points = run.job.mixture, read_points(run)
    labels = read_model(run, layout.KMEANS_LABEL, wanted.n_components)
    fitted = numerics.mixture.candidate_fit.fit_candidate(
        points, labels, wanted, tol=table.tol, reg_covar=table.reg_covar, max_iter=table.max_iter
    )
    arrays: dict[ItemArray, npt.NDArray[np.float64]] = {}
    silhouette = error = None
    if fitted.mixture is not None:
        arrays = of_mixture(layout.CANDIDATE, fitted.mixture)
        silhouette, error = numerics.mixture.silhouettes.stratified_silhouette(
            points, numerics.mixture.assignment.assign_rows(points, fitted.mixture, top=1).label
        )
    return Output(
        CandidateFacts(
            n_iter=fitted.n_iter,
            converged=fitted.converged,
            error=fitted.error,
            note=fitted.note,
            mean_log_likelihood=None if fitted.error else fitted.mean_log_likelihood,
            silhouette_euclidean=silhouette,
            silhouette_euclidean_error=error,
            seconds=fitted.seconds,
        ),
        arrays=arrays,
    )


def _fit_items(run: Run) -> list[Candidate] | None:
    """The largest first, for they take longest."""
    if SUBSAMPLE.find_facts(run) is None:
        return None
    return sorted(candidates(run), key=lambda each: -each.n_components)


def _fit_cost(sizes: Sizes) -> Cost:
    return Cost(
        tasks=sizes.candidates,
        seconds=sizes.mixture_rows * sizes.components * _SECONDS,
        memory_bytes=sizes.mixture_rows * (4 * sizes.n_components + 3 * 8 * sizes.largest_k),
    )


FIT_CANDIDATES = Stage(
    "fit_candidates",
    fit,
    facts=CandidateFacts,
    items=_fit_items,
    reads=("subsample", "project_subsample", "start_kmeans"),
    cost=_fit_cost,
)

EXTEND_GRID = Stage(
    "extend_grid",
    extend_grid,
    facts=ExtendFacts,
    items=_rounds,
    reads=("subsample", "fit_candidates", "extend_grid"),
    cost=lambda sizes: Cost(tasks=int(sizes.has_auto_grid)),  # the decision that the grid is complete
)


# --- what later stages read -------------------------------------------------------------------------------------


def of_mixture(arrays: dict[str, ItemArray], mixture: "Mixture") -> dict[ItemArray, Float64]:
    """A mixture's parameters as the arrays that hold them."""
    return {array: getattr(mixture, name) for name, array in arrays.items()}


def fitted_mixture(run: Run, wanted: Candidate) -> "Mixture":
    """A candidate as it was fitted on the mixture subsample."""
    return numerics.mixture.parameters.Mixture(wanted, *read_models(run, layout.CANDIDATE.values(), wanted))


def facts_of_fits(run: Run) -> dict[Candidate, CandidateFacts]:
    """How the fit of every candidate of the grid ended, in its order."""
    wanted = candidates(run)
    return dict(zip(wanted, at_once(partial(FIT_CANDIDATES.facts_of, run), wanted), strict=True))


def fitted_candidates(run: Run) -> list[Candidate]:
    """The candidates of the grid that could be fitted, in its order."""
    return [each for each, facts in facts_of_fits(run).items() if not facts.error]


def fitted_mixtures(run: Run) -> "dict[Candidate, Mixture]":
    """The same with their parameters."""
    fitted = fitted_candidates(run)
    return dict(zip(fitted, at_once(partial(fitted_mixture, run), fitted), strict=True))


def centre_of(run: Run) -> Float64:
    """The mean of the projected mixture subsample, (d,): what all sums over rows are relative to."""
    return np.asarray(read_points(run).mean(axis=0, dtype=np.float64))


@functools.lru_cache(maxsize=2)
def _parameters_of(ref: RunRef) -> "tuple[Float64, list[NaturalParameters]]":
    run = open_run(ref)
    centre = centre_of(run)
    mixtures = fitted_mixtures(run).values()
    return centre, [numerics.mixture.parameters.natural_parameters(each, centre) for each in mixtures]


def grid_parameters(run: Run) -> "tuple[Float64, list[NaturalParameters]]":
    """The centre of the mixture subsample, and all fitted candidates relative to it."""
    return _parameters_of(run.ref)
