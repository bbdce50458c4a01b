"""A choice beside the run around it: how the labels of the two meet."""

import numpy as np

from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.context import reading_around
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.stage import NoFacts, Output, Stage, one, partitions
from distcluster.storage import layout
from distcluster.storage.run import Run


def cross_labels(run: Run, index: int) -> Output[NoFacts]:
    """How the labels of a partition's rows meet those of the run around."""
    partition = run.partitioning[index]
    with reading_around(run) as around:
        before, K = around.read_rows(layout.LABEL, partition), SELECT_CANDIDATE.facts_of(around).n_components
    label = run.read_rows(layout.LABEL, partition)
    valid = label >= 0
    met = np.zeros((K, SELECT_CANDIDATE.facts_of(run).n_components), np.int64)
    np.add.at(met, (before[valid], label[valid]), 1)
    return Output(NoFacts(), arrays={layout.CROSSED_LABELS: met})


def _only_in_choices(_sizes: Sizes) -> Cost:
    return Cost(tasks=0)


CROSS_LABELS = Stage(
    "cross_labels",
    cross_labels,
    facts=NoFacts,
    items=partitions,
    reads=("select_candidate", "label_rows"),
    unit="rows",
    cost=_only_in_choices,
)


def sum_crosswalk(run: Run) -> Output[NoFacts]:
    """Rows by the label of the run around and by the choice's."""
    counts = run.read_items([layout.CROSSED_LABELS], partitions(run))
    return Output(NoFacts(), arrays={layout.CROSSWALK: np.sum([met for (met,) in counts], axis=0)})


SUM_CROSSWALK = Stage(
    "sum_crosswalk",
    sum_crosswalk,
    facts=NoFacts,
    items=one,
    reads=("cross_labels",),
    cost=_only_in_choices,
    is_result=True,
)
