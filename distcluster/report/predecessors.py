"""What became of a previous run's clusters, where a run's ids follow one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.numerics.lineage import count_events
from distcluster.stages.matching import MATCH_CLUSTERS
from distcluster.storage import layout
from distcluster.storage.run import Run

_LEAST_SHARE = 0.05  # of a cluster's common rows: smaller parts are not named, unless they are most of the other


@dataclass(frozen=True, slots=True)
class Share:
    """A cluster of the other run, and its share of this one's common rows."""

    label: int
    share: float


@dataclass(frozen=True, slots=True)
class Traced:
    """A cluster of one run, and where its common rows are in the other.

    Attributes
    ----------
    label : int
    event : str
    parts : list of Share
        The largest first; those below a twentieth are left out, unless half of the other cluster is in there.
    n_common, n_other : int
        Its common rows; those of its predecessor, or none.
    """

    label: int
    event: str
    parts: list[Share]
    n_common: int
    n_other: int

    @property
    def line(self) -> str:
        """Its parts in a line.

        Examples
        --------
        >>> Traced(0, "split", [Share(3, 0.61), Share(7, 0.38)], 100, 0).line
        '3 (61%), 7 (38%)'
        """
        return ", ".join(f"{part.label} ({part.share:.0%})" for part in self.parts) or "none"


@dataclass(frozen=True, slots=True)
class ClusterLineage:
    """The lineage of a run's clusters.

    Attributes
    ----------
    previous, run_id : str
        Where the previous run was, and which it was.
    n_common : int
        Rows of the mixture subsample that both runs have labelled.
    kept_share : float
        Of these, those whose label is the same in both.
    counts : dict of str to int
        Clusters by event: ``numerics.lineage.count_events``.
    clusters : list of Traced
        This run's, those that no row was seen of left out.
    gone : list of Traced
        Previous clusters that are not kept.
    """

    previous: str
    run_id: str
    n_common: int
    kept_share: float
    counts: dict[str, int]
    clusters: list[Traced]
    gone: list[Traced]

    @property
    def line(self) -> str:
        """In a line.

        Examples
        --------
        >>> counts = {"kept": 18, "born": 2, "died": 1, "split": 1, "merged": 0}
        >>> ClusterLineage("", "", 12_345, 0.931, counts, [], []).line
        'Lineage: 18 kept, 2 born, 1 died, 1 split, 0 merged; 93% of 12,345 common rows keep their cluster id.'
        """
        events = ", ".join(f"{count} {event}" for event, count in self.counts.items())
        return f"Lineage: {events}; {self.kept_share:.0%} of {self.n_common:,} common rows keep their cluster id."


def read_lineage(run: Run) -> ClusterLineage | None:
    """Read the lineage of a finished run's clusters; None where its ids follow no other."""
    url = run.job.mixture.previous
    if url is None:
        return None
    facts = MATCH_CLUSTERS.facts_of(run)
    arrays = {name: run.read(array) for name, array in layout.LINEAGE.items()}
    counts, events, previous_events = arrays["counts"], arrays["event"].tolist(), arrays["previous_event"].tolist()
    predecessor, before = arrays["predecessor"].tolist(), counts.sum(axis=1)
    others = [int(before[i]) if i >= 0 else 0 for i in predecessor]
    traced = [*trace_parts(counts.T, events, others)]
    return ClusterLineage(
        previous=str(url),
        run_id=facts.previous,
        n_common=facts.n_common,
        kept_share=facts.n_same_id / facts.n_common,
        counts=count_events(events, previous_events),
        clusters=[each for each in traced if each.event != "unseen"],
        gone=[each for each in trace_parts(counts, previous_events, [0] * len(counts)) if each.event != "kept"],
    )


def trace_parts(counts: npt.NDArray[np.int64], events: Sequence[str], others: Sequence[int]) -> Iterator[Traced]:
    """The clusters of one run, each with where its rows are in the other.

    Parameters
    ----------
    counts : (K, other K) int64
        Common rows by both labels, this run's first.
    events : sequence of K str
    others : sequence of K int
        Rows of each one's predecessor.
    """
    half = counts.sum(axis=0) / 2
    for label, (row, event, other) in enumerate(zip(counts, events, others, strict=True)):
        total = int(row.sum())
        is_named = (row > 0) & ((row >= _LEAST_SHARE * total) | (row >= half))
        order = [int(k) for k in np.argsort(-row, kind="stable") if is_named[k]]
        yield Traced(label, event, [Share(k, float(row[k] / total)) for k in order], total, other)
