"""EM of the chosen mixture over all rows, one iteration two stages."""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.numerics.partition import RowRange, groups, tree_sum, tree_sums
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.context import read_model, read_models
from distcluster.stages.cost import Cost, one_task
from distcluster.stages.fitting import centre_of, fitted_mixture, of_mixture
from distcluster.stages.stage import NoFacts, Output, Stage, one
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.run import Run

if TYPE_CHECKING:
    from distcluster.numerics.mixture.parameters import Mixture

_LINE = "refine"


@dataclass(frozen=True, slots=True)
class GroupOfIteration:
    """An item of ``refine_expect``: a group of partitions in an iteration."""

    iteration: int
    group: int

    def __str__(self) -> str:
        return f"{self.iteration}/{self.group}"


@dataclass(frozen=True, slots=True)
class StepFacts:
    """Mean log-likelihood of a row before an M-step, nats, and whether it has changed by less than ``mixture.tol``."""

    mean_log_likelihood: float
    converged: bool


def iterations_done(run: Run) -> int:
    """Iterations of EM over all rows that are complete, from the first on without a gap."""
    found, most = REFINE_MAXIMISE.all_facts(run), most_iterations(run)
    return next(number for number in itertools.count() if number == most or str(number) not in found)


def most_iterations(run: Run) -> int:
    """The iterations of EM over all rows that a run may need."""
    return run.job.mixture.max_iter if run.job.selection.refine else 0


def is_refined(run: Run, iterations: int) -> bool:
    """Whether the mixture needs no iteration beyond so many."""
    if iterations == most_iterations(run):
        return True
    return iterations > 0 and REFINE_MAXIMISE.facts_of(run, iterations - 1).converged


def expectations(run: Run, iteration: int) -> list[GroupOfIteration]:
    """The E-step's items in one iteration."""
    return [GroupOfIteration(iteration, group) for group in range(len(groups(run.fitted)))]


def _iterations(run: Run) -> range | None:
    done = iterations_done(run)
    return range(done) if is_refined(run, done) else None


def _expectations(run: Run) -> list[GroupOfIteration] | None:
    iterations = _iterations(run)
    return None if iterations is None else [item for each in iterations for item in expectations(run, each)]


def _before(run: Run, iteration: int) -> "Mixture":
    """The mixture that an iteration starts from."""
    candidate = SELECT_CANDIDATE.facts_of(run).candidate
    if iteration == 0:
        return fitted_mixture(run, candidate)
    return numerics.mixture.parameters.Mixture(candidate, *read_models(run, layout.STEP.values(), iteration - 1))


def refined_mixture(run: Run) -> "Mixture":
    """The chosen candidate as it is after the last iteration over all rows, its components as they were fitted."""
    return _before(run, iterations_done(run))


def expect(run: Run, item: GroupOfIteration) -> Output[NoFacts]:
    """Sums for the M-step over a group of partitions: one node of the sums' tree."""
    parts, centre = run.fitted, centre_of(run)
    mixture = _before(run, item.iteration).moved(-centre)

    def of_partition(partition: RowRange, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        blocks = (slice(b.start - partition.start, b.stop - partition.start) for b in parts.blocks(partition))
        return tree_sum(
            numerics.mixture.em.packed(numerics.mixture.em.expect_rows(rows[here], centre, mixture)) for here in blocks
        )

    group = [parts[index] for index in groups(parts)[item.group]]
    total = tree_sum(map(of_partition, group, run.read_partitions(layout.PROJECTION, group)))
    return Output(NoFacts(), arrays={layout.EXPECTATION: total})


REFINE_EXPECT = Stage(
    "refine_expect",
    expect,
    facts=NoFacts,
    items=_expectations,
    reads=("subsample", "project_subsample", "fit_candidates", "project_rows", "select_candidate", "refine_maximise"),
    line=_LINE,
    cost=lambda sizes: Cost(tasks=sizes.groups if sizes.is_refined else 0, is_iterated=True),
)


def take_step(run: Run, iteration: int) -> Output[StepFacts]:
    """The M-step of an iteration of EM over all rows."""
    (sums,) = tree_sums(run.read_items([layout.EXPECTATION], expectations(run, iteration), under=str(iteration)))
    expected = numerics.mixture.em.unpacked(sums)
    table, centre = run.job.mixture, centre_of(run)
    of_rows = numerics.mixture.row_moments.moments(read_model(run, layout.SCATTER))
    mixture = numerics.mixture.em.m_step(
        expected, of_rows, _before(run, iteration).moved(-centre), table.reg_covar
    ).moved(centre)
    mean = expected.log_likelihood / of_rows.n_rows
    converged = False
    if iteration > 0:
        previous = REFINE_MAXIMISE.facts_of(run, iteration - 1).mean_log_likelihood
        converged = abs(mean - previous) < table.tol
    return Output(StepFacts(mean, converged), arrays=of_mixture(layout.STEP, mixture))


REFINE_MAXIMISE = Stage(
    "refine_maximise",
    take_step,
    facts=StepFacts,
    items=_iterations,
    reads=(
        "subsample", "project_subsample", "fit_candidates", "sum_components", "select_candidate", "refine_expect",
        "refine_maximise",
    ),
    line=_LINE,
    cost=lambda sizes: Cost(tasks=int(sizes.is_refined), is_iterated=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MixtureFacts:
    """How the refinement ended, and what a reader must know of single components."""

    n_iter: int
    converged: bool
    mean_log_likelihoods: tuple[float, ...]
    n_rows: int
    note: str


def publish(run: Run) -> Output[MixtureFacts]:
    """The chosen mixture, as it is after the last iteration over all rows; its ids follow a previous run's, if any."""
    iterations = iterations_done(run)
    mixture = refined_mixture(run)
    if run.job.mixture.previous is not None:
        mixture = mixture.reordered(read_model(run, layout.LINEAGE["component"]))
    steps = [REFINE_MAXIMISE.facts_of(run, i) for i in range(iterations)]
    of_rows = numerics.mixture.row_moments.moments(read_model(run, layout.SCATTER))
    return Output(
        MixtureFacts(
            n_iter=iterations,
            converged=bool(steps) and steps[-1].converged,
            mean_log_likelihoods=tuple(each.mean_log_likelihood for each in steps),
            n_rows=SUBSAMPLE.facts_of(run).n_valid,
            note=numerics.mixture.em.remarks(mixture.moved(-centre_of(run)), of_rows, run.job.mixture.reg_covar),
        ),
        arrays=of_mixture(layout.MIXTURE, mixture),
    )


PUBLISH_MIXTURE = Stage(
    "publish_mixture",
    publish,
    facts=MixtureFacts,
    items=one,
    reads=("subsample", "project_subsample", "fit_candidates", "sum_components", "select_candidate",
           "refine_maximise", "match_clusters"),
    cost=one_task,
    is_result=True,
)  # fmt: skip


def chosen_mixture(run: Run) -> "Mixture":
    """The mixture that the verdict chose, refined."""
    return numerics.mixture.parameters.Mixture(
        SELECT_CANDIDATE.facts_of(run).candidate, *read_models(run, layout.MIXTURE.values())
    )


def published_mixture(run: Run) -> "Mixture":
    """The same for reports and exports, which any machine may make: no row is labelled by it."""
    return numerics.mixture.parameters.Mixture(
        SELECT_CANDIDATE.facts_of(run).candidate, *run.read_together(list(layout.MIXTURE.values()))
    )
