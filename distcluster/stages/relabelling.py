"""The labels of another candidate, beside those of the chosen one."""

from dataclasses import dataclass

import numpy as np

from distcluster.numerics.mixture.assignment import assign_rows
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.fitting import candidates, fitted_mixture
from distcluster.stages.refining import chosen_mixture
from distcluster.stages.stage import NoFacts, Output, Stage, partitions
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.run import Run


@dataclass(frozen=True, slots=True)
class PartitionOfCandidate:
    """An item of ``relabel``: a partition under a candidate."""

    candidate: Candidate
    index: int

    def __str__(self) -> str:
        return f"{self.candidate}/{self.index}"

    def __index__(self) -> int:
        return self.index


def relabelled(run: Run) -> list[Candidate]:
    """The candidates that a person has asked for, beside the chosen one."""
    asked = {key.split("/")[1] for key in run.store.keys_under("relabel")}
    if not asked or SUBSAMPLE.find_facts(run) is None:
        return []
    return [each for each in candidates(run) if str(each) in asked]


def of_candidate(run: Run, candidate: Candidate) -> list[PartitionOfCandidate]:
    """The items of one candidate."""
    return [PartitionOfCandidate(candidate, index) for index in partitions(run)]


def relabel(run: Run, item: PartitionOfCandidate) -> Output[NoFacts]:
    """Labels of a partition under another candidate, and how they meet those of the chosen one."""
    partition = run.partitioning[item.index]
    rows = run.read_rows(layout.PROJECTION, partition)
    result = assign_rows(rows, fitted_mixture(run, item.candidate), top=1)
    chosen = run.read_rows(layout.LABEL, partition)
    valid = result.label >= 0
    met = np.zeros((chosen_mixture(run).candidate.n_components, item.candidate.n_components), np.int64)
    np.add.at(met, (chosen[valid], result.label[valid]), 1)
    return Output(
        NoFacts(),
        rows={layout.RELABELLED: result.label, layout.RELABELLED_PROBABILITY: result.probability},
        arrays={layout.RELABEL_COUNTS: met},
    )


def _only_when_asked(_sizes: Sizes) -> Cost:
    return Cost(tasks=0)


RELABEL = Stage(
    "relabel",
    relabel,
    facts=NoFacts,
    items=lambda run: [item for each in relabelled(run) for item in of_candidate(run, each)],
    reads=("fit_candidates", "project_rows", "select_candidate", "publish_mixture", "label_rows"),
    unit="rows",
    cost=_only_when_asked,
)


def crosswalk(run: Run, candidate: Candidate) -> Output[NoFacts]:
    """Rows by the chosen label and by the other candidate's."""
    counts = run.read_items([layout.RELABEL_COUNTS], of_candidate(run, candidate), under=str(candidate))
    return Output(NoFacts(), arrays={layout.CROSSWALK: np.sum([met for (met,) in counts], axis=0)})


CROSSWALK = Stage(
    "crosswalk",
    crosswalk,
    facts=NoFacts,
    items=relabelled,
    reads=("relabel",),
    cost=_only_when_asked,
)
