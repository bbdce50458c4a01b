"""What other rows are under a model: how many there are in each cluster, beside the rows that it was made from."""

from dataclasses import dataclass

import numpy as np

from distcluster.numerics.support import BEYOND_LIMIT
from distcluster.stages.labelling import LABEL_ROWS, SUMMARISE_CLUSTERS
from distcluster.stages.projecting import PROJECT_ROWS
from distcluster.stages.refining import published_mixture
from distcluster.stages.stage import partitions
from distcluster.storage import layout
from distcluster.storage.layout import ONE
from distcluster.storage.run import Run


@dataclass(frozen=True, slots=True)
class Share:
    """A cluster's rows, their share, and its share of the rows that the model was made from, where that is known."""

    label: int
    size: int
    share: float
    before: float | None


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """What was predicted.

    Attributes
    ----------
    n_rows, n_invalid, n_unsure : int
        Rows with a label; without one; with a probability below 0.5.
    clusters : list of Share
        All of the model's, by falling size.
    support : str
        How many rows the model's subsample does not represent, a sentence with its figures.
    url : str
    """

    n_rows: int
    n_invalid: int
    n_unsure: int
    clusters: list[Share]
    support: str
    url: str


def summarise_prediction(model: Run, run: Run) -> PredictionSummary:
    """Read the summary of a finished prediction.

    Parameters
    ----------
    model : Run
        Whose clusters' sizes are shown beside, if it has them.
    run : Run
        The prediction.
    """
    n_components = published_mixture(run).candidate.n_components
    size = np.zeros(n_components, np.int64)
    for (part,) in run.read_items([layout.PARTIAL_SIZE], partitions(run)):
        size += part
    is_known = SUMMARISE_CLUSTERS.find_facts(model, ONE) is not None
    before = model.read(layout.CLUSTER_SIZE) if is_known else None
    n_rows = int(size.sum())
    outside = sum(each.n_outside_support for each in PROJECT_ROWS.facts_of_all(run, partitions(run)))
    order = np.argsort(-size, kind="stable")
    return PredictionSummary(
        n_rows=n_rows,
        n_invalid=run.partitioning.n_rows - n_rows,
        n_unsure=sum(each.n_unsure for each in LABEL_ROWS.facts_of_all(run, partitions(run))),
        clusters=[
            Share(
                int(k),
                int(size[k]),
                size[k] / max(n_rows, 1),
                None if before is None else float(before[k] / before.sum()),
            )
            for k in order
        ],
        support=f"{outside / max(n_rows, 1):.2%} of the rows lie beyond the support of the model's subsample "
        f"({BEYOND_LIMIT:.1%} expected).",
        url=str(run.url),
    )
