"""What other rows are under a model, and whether they are like those that it was made from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import repack_fields

from distcluster.errors import JobError
from distcluster.numerics.drift import Drift, Rows, compare
from distcluster.numerics.shown_rows import HELD_OUT_ROWS, spread_evenly
from distcluster.stages.flow import is_finished
from distcluster.stages.freezing import model_id
from distcluster.stages.labelling import LABEL_ROWS, SUMMARISE_CLUSTERS
from distcluster.stages.refining import published_mixture
from distcluster.stages.searching import BUILD_INDEX
from distcluster.stages.stage import partitions
from distcluster.storage import layout
from distcluster.storage.run import Run


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """What was predicted.

    Attributes
    ----------
    n_rows, n_invalid, n_unsure : int
        Rows with a label; without one; with a probability below 0.5.
    size, before : (K,) int64
        Rows of each cluster, now and of those that the model was made from; the second is None where it has them not.
    drift : Drift or None
        None where the model does not say what its rows were.
    url : str
    """

    n_rows: int
    n_invalid: int
    n_unsure: int
    size: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64] | None
    drift: Drift | None
    url: str


def summarise_prediction(model: Run, run: Run) -> PredictionSummary:
    """Read the summary of a finished prediction.

    Parameters
    ----------
    model : Run
        Whose rows they are held against, if it says what they were.
    run : Run
        The prediction.

    Raises
    ------
    JobError
        When the prediction is not finished, or was made by another model.
    """
    if run.settings.model != model_id(model):
        raise JobError(f"{run.url} was not labelled by the model of {model.url}.")
    if not is_finished(run):
        raise JobError(f"the prediction {run.url} is not finished: run its command to the end first.")
    now, before = _labelled(run), _made_from(model)
    n_rows = int(now.size.sum())
    return PredictionSummary(
        n_rows=n_rows,
        n_invalid=run.partitioning.n_rows - n_rows,
        n_unsure=sum(each.n_unsure for each in LABEL_ROWS.facts_of_all(run, partitions(run))),
        size=now.size,
        before=before.size if before is not None else None,
        drift=compare(before, now, BUILD_INDEX.facts_of(run).support_limit) if before is not None and n_rows else None,
        url=str(run.url),
    )


def _labelled(run: Run) -> Rows:
    size, shown = np.zeros(published_mixture(run).candidate.n_components, np.int64), []
    for of_partition, rows in run.read_items([layout.PARTIAL_SIZE, layout.SHOWN_ROWS], partitions(run)):
        size += of_partition
        shown.append(repack_fields(rows[list(layout.HELD_OUT)]))
    some = spread_evenly(np.concatenate(shown), HELD_OUT_ROWS)
    return Rows(size, *(some[name] for name in layout.HELD_OUT))


def _made_from(model: Run) -> Rows | None:
    """What the model's run left of its rows; None in a prediction's copy of a model."""
    if SUMMARISE_CLUSTERS.find_facts(model) is None:
        return None
    return Rows(model.read(layout.CLUSTER_SIZE), *(model.read(array) for array in layout.HELD_OUT.values()))
