"""Two finished runs side by side: how far they agree, and what became of the clusters of one in the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distcluster.errors import JobError
from distcluster.numerics.lineage import count_events, trace_counts
from distcluster.report.agreement import Errors, Scores, scores, standard_errors
from distcluster.report.clusters import shown_item
from distcluster.report.common_rows import RecognisedBy, count_common_rows
from distcluster.report.figures import heat_map
from distcluster.report.predecessors import Traced, trace_parts
from distcluster.report.shown_items import kept_items
from distcluster.report.templating import template
from distcluster.stages.flow import require_finished
from distcluster.stages.stage import partitions
from distcluster.storage import layout
from distcluster.storage.run import Run

_LETTERS = 60
_ITEMS = 2  # that tell a cluster


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs.

    Attributes
    ----------
    url, run_id : str
    n_rows : int
        With a label.
    clusters : list of Traced
        Those that have common rows, or did, with where these are in the other run.
    items : mapping of int to list of str
        Typical items by cluster, as the run's last report showed them.
    """

    url: str
    run_id: str
    n_rows: int
    clusters: list[Traced]
    items: Mapping[int, Sequence[str]]


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Two runs side by side, K clusters and other K.

    Attributes
    ----------
    before, after : Side
        The first run, and the other; what happened is told from the first to the other.
    n_common : int
        Rows that both have, with a label in both.
    recognised_by : "position" or "id"
    counts : (K, other K) int64
        Common rows by both labels.
    scores : Scores
        Agreement over the common rows; the first run's clusters are its classes.
    errors : Errors
        Its standard errors over rows.
    events : dict of str to int
        Clusters by event: ``numerics.lineage.count_events``.
    """

    before: Side
    after: Side
    n_common: int
    recognised_by: RecognisedBy
    counts: npt.NDArray[np.int64]
    scores: Scores
    errors: Errors
    events: Mapping[str, int]

    @property
    def lines(self) -> list[str]:
        """Agreement and events, a sentence each."""
        found, error = self.scores, self.errors
        clusters = [len(each.clusters) for each in (self.before, self.after)]
        return [
            f"{self.n_common:,} rows have a label in both (the same by {self.recognised_by}): of "
            f"{self.before.n_rows:,} in {clusters[0]} clusters, and of {self.after.n_rows:,} in {clusters[1]}.",
            f"Adjusted Rand index {found.adjusted_rand:.3f} (standard error over rows {error.adjusted_rand:.3f}); "
            f"V-measure {found.v_measure:.3f} ({error.v_measure:.3f}): each cluster of the second within one of the "
            f"first {found.homogeneity:.3f}, each of the first within one of the second {found.completeness:.3f}.",
            f"{', '.join(f'{count} {event}' for event, count in self.events.items())}.",
        ]

    def to_html(self) -> str:
        """The comparison as a page, one file that asks no network for anything."""
        order = [each.label for each in self.after.clusters]
        names = [f"{k}  {', '.join(self.before.items.get(k, []))}" for k in range(len(self.counts))]
        crosswalk = heat_map(self.counts, names, order, self.counts.sum(axis=0))
        return str(template("comparison.html").render(found=self, crosswalk=crosswalk))

    def write_html(self, target: Path) -> None:
        """Write ``to_html`` to a file that is not there yet; its directory is made.

        Raises
        ------
        JobError
            When it is there.
        """
        refuse_file(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.to_html(), encoding="utf-8")


def refuse_file(target: Path) -> None:
    """Refuse to write over what is there.

    Raises
    ------
    JobError
    """
    if target.exists():
        raise JobError(f"{target} is there already: choose another place, or remove it.")


def compare_runs(run: Run, other: Run) -> RunComparison:
    """Compare two finished runs, choices or predictions by the rows that they have in common.

    Parameters
    ----------
    run : Run
        The earlier one: its clusters are kept, split or merged into the other's, or have died.
    other : Run

    Raises
    ------
    JobError
        When one is no run, or not finished, or they have no rows in common.
    CorruptError
        When labels or checksums cannot be read back.
    """
    for each in (run, other):
        require_finished(each)
    common = count_common_rows(run, other)
    counts, sizes = common.counts, _sizes(other)
    found = trace_counts(counts, sizes)
    n_before = counts.sum(axis=1)
    of_predecessors = [int(n_before[i]) if i >= 0 else 0 for i in found.predecessor]
    before = trace_parts(counts, found.previous_events, [0] * len(counts))
    after = trace_parts(counts.T, found.events, of_predecessors)
    return RunComparison(
        _side(run, _sizes(run), before),
        _side(other, sizes, after),
        int(counts.sum()),
        common.recognised_by,
        counts,
        scores(counts),
        standard_errors(counts),
        count_events(found.events, found.previous_events),
    )


def _sizes(run: Run) -> npt.NDArray[np.int64]:
    """Rows of each cluster."""
    sizes = [size for (size,) in run.read_items([layout.PARTIAL_SIZE], partitions(run))]
    return np.asarray(np.sum(sizes, axis=0), np.int64)


def _side(run: Run, sizes: npt.NDArray[np.int64], traced: Any) -> Side:
    seen = [each for each in traced if each.event != "unseen"]
    texts = kept_items(run).texts
    items: dict[int, list[str]] = {}
    if texts and not run.is_prediction:
        exemplars = run.read(layout.EXEMPLAR)[:, :_ITEMS].tolist()
        items = {
            each.label: [shown_item(row, texts, _LETTERS) for row in exemplars[each.label] if row in texts]
            for each in seen
        }
    return Side(str(run.url), run.settings.run_id, int(sizes.sum()), seen, items)
