"""What other rows are under a model, and whether they are like those that it was made from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.errors import JobError
from distcluster.numerics.drift import Drift, Recall, Rows, compare
from distcluster.numerics.partition import RowRange
from distcluster.numerics.shown_rows import HELD_OUT_ROWS, columns_of, spread_evenly
from distcluster.stages.flow import is_finished
from distcluster.stages.freezing import model_id
from distcluster.stages.labelling import LABEL_ROWS, SUMMARISE_CLUSTERS, UNSURE
from distcluster.stages.refining import published_mixture
from distcluster.stages.searching import BUILD_INDEX, FIND_NEIGHBOURS
from distcluster.storage import layout
from distcluster.storage.run import Run

_RECALL_ERROR = 0.0025  # of the recall of an index, which is measured on 1,000 rows
_FEW_PROBES = 50


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
    return _summary(run, 0, _made_from(model))


def summarise_appended(run: Run) -> PredictionSummary:
    """The same of the rows that were appended to a run last, beside those that its model was made from."""
    return _summary(run, run.settings.appended[-1], _made_from(run))


def _summary(run: Run, since: int, before: Rows | None) -> PredictionSummary:
    now, n_unsure = _labelled(run, since)
    n_rows = int(now.size.sum())
    return PredictionSummary(
        n_rows=n_rows,
        n_invalid=run.partitioning.n_rows - since - n_rows,
        n_unsure=n_unsure,
        size=now.size,
        before=before.size if before is not None else None,
        drift=_drift(run, since, before, now) if before is not None and n_rows else None,
        url=str(run.url),
    )


def _drift(run: Run, since: int, before: Rows, now: Rows) -> Drift:
    index = BUILD_INDEX.facts_of(run)
    recall = _recall(run, since)
    was = Recall(index.search.recall, _RECALL_ERROR)
    return compare(before, now, index.support_limit, (was, recall) if recall is not None else (None, None))


def _recall(run: Run, since: int) -> Recall | None:
    """Of the search for the neighbours of rows from a partition on; None where it was not measured on enough."""
    parts = run.partitioning
    facts = FIND_NEIGHBOURS.facts_of_all(run, range(since // parts.partition_rows, len(parts)))
    n, found, squared = (sum(getattr(each, name) for each in facts) for name in ("probes", "found", "found_squared"))
    if n < _FEW_PROBES:
        return None
    k = run.job.projection.n_neighbors
    variance = max(squared / n - (found / n) ** 2, 0.0) / k**2
    return Recall(found / (n * k), (variance / n) ** 0.5)


def _labelled(run: Run, since: int) -> tuple[Rows, int]:
    """The rows from a certain one on, and how many of them have a probability below 0.5."""
    parts, shown = run.partitioning, []
    first = parts[since // parts.partition_rows]
    items = range(first.index, len(parts))
    size = np.zeros(published_mixture(run).candidate.n_components, np.int64)
    for of_partition, rows in run.read_items([layout.PARTIAL_SIZE, layout.SHOWN_ROWS], items):
        size += of_partition
        shown.append(columns_of(rows[rows["row"] >= since], list(layout.HELD_OUT)))
    n_unsure = sum(each.n_unsure for each in LABEL_ROWS.facts_of_all(run, items))
    if since > first.start:
        others = RowRange(first.index, first.start, since)
        label, probability = (run.read_rows(array, others) for array in (layout.LABEL, layout.PROBABILITY))
        size -= np.bincount(label[label >= 0], minlength=len(size))
        n_unsure -= int((probability < UNSURE).sum())
    some = spread_evenly(np.concatenate(shown), HELD_OUT_ROWS)
    return Rows(size, *(some[name] for name in layout.HELD_OUT)), n_unsure


def _recalls(drift: Drift) -> str:
    if drift.recall is None or drift.recall_before is None:
        return ""
    return f"; the search finds {drift.recall.share:.1%} of their nearest rows, {drift.recall_before.share:.1%} before"


def drift_lines(drift: Drift | None) -> list[str]:
    """What there is to say about a drift, for people."""
    if drift is None:
        return ["Drift: the model does not say what the rows were that it was made from."]
    if drift.reasons:
        return [f"Drift: {drift.verdict}.", *(f"  {reason}" for reason in drift.reasons)]
    return [
        f"Drift: as before. Stability index of the clusters' shares {drift.psi:.3f}, {drift.psi_by_chance:.3f} by "
        f"chance; distribution functions differ by {drift.density_distance:.3f} (log density) and "
        f"{drift.support_distance:.3f} (support), each by {drift.distance_error:.3f} more or less at most; "
        f"{drift.beyond:.2%} of the rows have no support, {drift.beyond_before:.2%} before{_recalls(drift)}."
    ]


def _made_from(model: Run) -> Rows | None:
    """What the model's run left of the rows that it was made from; None in a prediction's copy of a model.

    An exported model of a run that rows were appended to has the clusters' sizes with those.
    """
    if SUMMARISE_CLUSTERS.find_facts(model) is None:
        return None
    size = model.read(layout.CLUSTER_SIZE)
    if model.settings.appended and LABEL_ROWS.committed(model):
        size = size - _labelled(model, model.fitted.n_rows)[0].size
    return Rows(size, *(model.read(array) for array in layout.HELD_OUT.values()))
