"""All candidates scored by the held-out rows, and the verdict."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.numerics.mixture.candidate import Candidate, CovarianceType
from distcluster.numerics.mixture.criteria import Criteria, add_criteria, table_columns, table_rows
from distcluster.numerics.mixture.selection import select
from distcluster.numerics.mixture.trust import Trust, assess
from distcluster.numerics.partition import RowRange, tree_sum, tree_sums
from distcluster.stages.context import read_model, reading_around
from distcluster.stages.cost import Cost, one_reduction
from distcluster.stages.fitting import candidates, facts_of_fits, fitted_mixtures, grid_parameters, unscored
from distcluster.stages.replicating import common_points, replicated_labels
from distcluster.stages.stage import NoFacts, Output, Stage, one, partitions
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.run import Run

_SCORE_SECONDS = 5e-9  # a row and component
_SILHOUETTE_SECONDS = 3e-9


# --- sums over all rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoreFacts:
    """Held-out rows of a partition."""

    n_rows: int


def score(run: Run, index: int) -> Output[ScoreFacts]:
    """Sums over a partition's rows under every candidate: one node of the sums' tree."""
    parts = run.partitioning
    partition = parts[index]
    centre, parameters = grid_parameters(run)
    rows = run.read_rows(layout.PROJECTION, partition)
    held_out = np.asarray(~np.isnan(rows).any(axis=1))
    held_out[_subsampled_in(run, partition)] = False
    criteria, components, scatter = [], [], []
    for block in parts.blocks(partition):
        here = slice(block.start - partition.start, block.stop - partition.start)
        of_candidates, of_components = numerics.mixture.scores.score_rows(
            rows[here], held_out[here], centre, parameters
        )
        criteria.append(of_candidates)
        components.append(of_components)
        scatter.append(numerics.mixture.row_moments.scatter_rows(rows[here], centre))
    return Output(
        ScoreFacts(int(held_out.sum())),
        arrays={
            layout.SCORED_CRITERIA: tree_sum(criteria),
            layout.SCORED_COMPONENTS: tree_sum(components),
            layout.SCORED_SCATTER: tree_sum(scatter),
        },
    )


SCORE_CANDIDATES = Stage(
    "score_candidates",
    score,
    facts=ScoreFacts,
    items=partitions,
    reads=("subsample", "project_subsample", "extend_grid", "fit_candidates", "project_rows"),
    unit="rows",
    cost=lambda sizes: Cost(tasks=sizes.partitions, seconds=sizes.n_rows * sizes.components * _SCORE_SECONDS),
)


def _subsampled_in(run: Run, partition: RowRange) -> npt.NDArray[np.int64]:
    """Positions in a partition of rows that are not held out: those of both subsamples.

    Where that leaves none, those that are not in the mixture subsample: it scores its own fits, and flatters them.
    """
    taken = [read_model(run, layout.SAMPLE_ROW), read_model(run, layout.MIXTURE_ROW)]
    if SUBSAMPLE.facts_of(run).n_held_out == 0:
        taken = [np.setdiff1d(np.arange(partition.start, partition.stop), taken[1])]
    rows = np.concatenate(taken)
    return rows[(rows >= partition.start) & (rows < partition.stop)] - partition.start


def sum_components(run: Run) -> Output[NoFacts]:
    """Sums over all rows, and for every component of every candidate: what a silhouette compares a row with."""
    arrays = [layout.SCORED_CRITERIA, layout.SCORED_COMPONENTS, layout.SCORED_SCATTER]
    criteria, sums, scatter = tree_sums(run.read_items(arrays, partitions(run)))
    centre, _ = grid_parameters(run)
    with np.errstate(invalid="ignore"):  # an empty component has no mean
        mean = sums[:, 1:-1] / sums[:, :1] + centre
    return Output(
        NoFacts(),
        arrays={
            layout.CRITERIA_SUMS: criteria,
            layout.COMPONENT_SUMS: sums,
            layout.SCATTER: scatter,
            layout.COMPONENT_ROWS: sums[:, 0].astype(np.int64),
            layout.COMPONENT_MEAN: mean,
        },
    )


SUM_COMPONENTS = Stage(
    "sum_components",
    sum_components,
    facts=NoFacts,
    items=one,
    reads=("subsample", "project_subsample", "extend_grid", "fit_candidates", "score_candidates"),
    cost=one_reduction,
)


def sum_silhouettes(run: Run, index: int) -> Output[NoFacts]:
    """Sums over a partition's rows of their silhouettes under every candidate."""
    parts = run.partitioning
    partition = parts[index]
    centre, parameters = grid_parameters(run)
    of_components = read_model(run, layout.COMPONENT_SUMS)
    rows = run.read_rows(layout.PROJECTION, partition)
    sums = [
        numerics.mixture.silhouettes.silhouette_rows(
            rows[block.start - partition.start : block.stop - partition.start], centre, parameters, of_components
        )
        for block in parts.blocks(partition)
    ]
    return Output(NoFacts(), arrays={layout.SILHOUETTE_SUMS: tree_sum(sums)})


SUM_SILHOUETTES = Stage(
    "sum_silhouettes",
    sum_silhouettes,
    facts=NoFacts,
    items=partitions,
    reads=("subsample", "project_subsample", "extend_grid", "fit_candidates", "project_rows", "sum_components"),
    unit="rows",
    cost=lambda sizes: Cost(tasks=sizes.partitions, seconds=sizes.n_rows * sizes.components * _SILHOUETTE_SECONDS),
)


# --- the verdict ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SelectFacts:
    """The verdict: what was chosen and why, by how many held-out rows.

    ``trust`` and ``advice`` say in a word and a sentence whether the clusters return when other rows are drawn.
    ``uses_mixture_rows`` says that no row was left outside both subsamples, so that the mixture subsample scored its
    own fits.
    """

    n_components: int
    covariance_type: CovarianceType
    finding: str
    reason: str
    trust: Trust
    advice: str
    n_held_out: int
    uses_mixture_rows: bool

    @property
    def candidate(self) -> Candidate:
        """The point of the grid."""
        return Candidate(self.n_components, self.covariance_type)


def select_candidate(run: Run) -> Output[SelectFacts]:
    """Reduce the scores to the selection table and the verdict; a choice has a person's verdict beside it."""
    if run.settings.around is not None:
        return _chosen_by_hand(run, run.settings.around.candidate)
    n_rows = sum(each.n_rows for each in SCORE_CANDIDATES.facts_of_all(run, partitions(run)))
    table = _selection_table(run, n_rows)
    verdict = select(table, run.job.selection.rule, n_rows)
    return Output(
        SelectFacts(
            **asdict(verdict.candidate),
            finding=verdict.finding,
            reason=verdict.reason,
            trust=verdict.trust,
            advice=verdict.advice,
            n_held_out=n_rows,
            uses_mixture_rows=SUBSAMPLE.facts_of(run).n_held_out == 0,
        ),
        arrays={layout.SELECTION[name]: values for name, values in table_columns(table).items()},
    )


def _chosen_by_hand(run: Run, candidate: Candidate) -> Output[SelectFacts]:
    with reading_around(run) as around:
        verdict = SELECT_CANDIDATE.facts_of(around)
        columns = {name: around.read(array) for name, array in layout.SELECTION.items()}
    return Output(
        replace(
            verdict,
            n_components=candidate.n_components,
            covariance_type=candidate.covariance_type,
            finding="chosen by hand",
            **asdict(assess(table_rows(columns), candidate)),
            reason=f"{candidate} was chosen by hand. The run's own verdict is {verdict.candidate}. {verdict.reason}",
        ),
        arrays={layout.SELECTION[name]: values for name, values in columns.items()},
    )


def _selection_table(run: Run, n_rows: int) -> list[Criteria]:
    n_valid = SUBSAMPLE.facts_of(run).n_valid
    (silhouettes,) = tree_sums(run.read_items([layout.SILHOUETTE_SUMS], partitions(run)))
    fitted = iter(zip(read_model(run, layout.CRITERIA_SUMS), silhouettes, strict=True))
    data, null = (replicated_labels(run, what) for what in ("data", "null"))
    nan = np.full(len(candidates(run)), np.nan)
    common, mixtures = (common_points(run), fitted_mixtures(run)) if data else (None, {})
    (agreed, error), (agreed_null, _) = (
        numerics.stability.agreement(labels) if labels else (nan, nan) for labels in (data, null)
    )
    table = []
    for place, (each, facts) in enumerate(facts_of_fits(run).items()):
        row = unscored(each, facts)
        if not facts.error:
            sums, of_rows = next(fitted)
            n_parameters = each.n_parameters(run.job.projection.n_components)
            row = add_criteria(row, n_parameters, sums, n_rows, n_valid)
            row = replace(
                row,
                silhouette=float("nan") if each.n_components == 1 else float(of_rows) / n_valid,
                silhouette_euclidean=_number(facts.silhouette_euclidean),
                silhouette_euclidean_error=_number(facts.silhouette_euclidean_error),
                note=facts.note,
                stability=float(agreed[place]),
                stability_error=float(error[place]),
                stability_null=float(agreed_null[place]),
            )
            if common is not None and not np.isnan(row.stability):
                label = numerics.mixture.assignment.assign_rows(common, mixtures[each], top=1).label
                of_clusters = numerics.stability.cluster_agreement(label, [a[place] for a in data], each.n_components)
                row_stability, n_returning = numerics.stability.row_stability(of_clusters, label)
                row = replace(row, row_stability=row_stability, n_returning=n_returning)
        table.append(row)
    return table


def _number(value: float | None) -> float:
    """A number from a record: JSON has no NaN."""
    return float("nan") if value is None else value


SELECT_CANDIDATE = Stage(
    "select_candidate",
    select_candidate,
    facts=SelectFacts,
    items=one,
    reads=(
        "subsample",
        "project_subsample",
        "extend_grid",
        "fit_candidates",
        "recluster",
        "score_candidates",
        "sum_components",
        "sum_silhouettes",
    ),
    cost=one_reduction,
    is_result=True,
)
