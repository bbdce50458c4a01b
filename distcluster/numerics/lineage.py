"""Which clusters of a fit are which of a previous one, by the rows that both have labelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]
Links = npt.NDArray[np.bool_]
Event = Literal["kept", "born", "died", "split", "merged", "unseen"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What became of the clusters of a previous fit, and how those of this one are numbered after them.

    Attributes
    ----------
    component : (K,) int32
        The component of this fit that each cluster is: a permutation.
    counts : (previous K, K) int64
        Common rows by both labels, this fit's as numbered here.
    predecessor : (K,) int32
        The linked previous cluster that most of a cluster's common rows come from; -1 where there is none.
    events : tuple of str
        kept, born, split, merged or unseen, one a cluster.
    previous_events : tuple of str
        kept, died, split, merged or unseen, one a previous cluster.
    """

    component: Labels
    counts: Counts
    predecessor: Labels
    events: tuple[Event, ...]
    previous_events: tuple[Event, ...]


def trace_clusters(
    before: Labels, label: Labels, common: npt.NDArray[np.integer], *, previous_k: int, n_components: int
) -> Lineage:
    """Number the components of a fit after the clusters of a previous one.

    Two clusters are linked where at least half of the rows of one of them are the other's. With one link on both sides
    a cluster is kept; a previous one with several is split, a new one with several merged; without any the one has
    died and the other is born. These are the external transitions of Spiliopoulou, Ntoutsi, Theodoridis & Schult 2006
    (MONIC: survives, is split, is absorbed, disappears, emerges) with a threshold of a half; theirs is of the previous
    cluster's rows alone, so that of a cluster in three equal parts none would be its successor.

    Parameters
    ----------
    before : (n,) int32
        Labels of the common rows by the previous fit.
    label : (m,) int32
        Labels of all rows at hand by this one, components as they were fitted.
    common : (n,) int
        Where the common rows stand among them.
    previous_k, n_components : int
        Clusters of either.

    Examples
    --------
    The previous cluster 0 is kept, under another number in the fit; 1 is in two halves:

    >>> before, label = np.repeat([0, 1], 4).astype(np.int32), np.array([2, 2, 2, 2, 0, 0, 0, 1], np.int32)
    >>> found = trace_clusters(before, label, np.arange(8), previous_k=2, n_components=3)
    >>> found.component.tolist(), found.events, found.previous_events
    ([2, 0, 1], ('kept', 'split', 'split'), ('kept', 'split'))
    """
    counts = np.zeros((previous_k, n_components), np.int64)
    np.add.at(counts, (before, label[common]), 1)
    rows = np.bincount(label, minlength=n_components)
    component = number_components(np.where(find_links(counts, rows), counts, 0))
    return trace_counts(counts[:, component], rows[component], component)


def trace_counts(counts: Counts, rows: Counts, component: Labels | None = None) -> Lineage:
    """The same of clusters that have their numbers.

    Parameters
    ----------
    counts : (previous K, K) int64
        Common rows by both labels.
    rows : (K,) int64
        All rows by the new label.
    component : (K,) int32, optional
        What has those numbers; by default what bears them.

    Examples
    --------
    >>> trace_counts(np.array([[90, 0, 0], [0, 50, 40]]), np.array([90, 50, 40])).previous_events
    ('kept', 'split')
    """
    linked = find_links(counts, rows)
    most = np.where(linked, counts, -1)
    predecessor = np.where(linked.any(axis=0), most.argmax(axis=0), -1).astype(np.int32)
    return Lineage(
        np.arange(len(rows), dtype=np.int32) if component is None else component,
        counts,
        predecessor,
        _events(linked.T, rows, none="born", several="merged", other="split"),
        _events(linked, counts.sum(axis=1), none="died", several="split", other="merged"),
    )


def find_links(counts: Counts, rows: Counts) -> Links:
    """Which clusters are linked: at least half of the rows of one of them are the other's.

    Parameters
    ----------
    counts : (previous K, K) int64
        Common rows by both labels.
    rows : (K,) int64
        All rows at hand by the new label. A new cluster counts with as many rows as it would have among the common
        ones, were these spread evenly, if that is more: some strays do not link one whose rows are new.

    Examples
    --------
    Half of all rows are common. The second cluster has its share of them, the third only strays:

    >>> find_links(np.array([[90, 0, 6], [0, 104, 0]]), np.array([100, 150, 150])).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0]]
    """
    common, total = counts.sum(), max(rows.sum(), 1)
    of_previous = counts.sum(axis=1, keepdims=True)
    of_new = np.maximum(counts.sum(axis=0) * total, common * rows)  # times the total, to stay whole numbers
    half_of_one = (2 * counts >= of_previous) | (2 * counts * total >= of_new)
    return np.asarray(half_of_one & (counts > 0))


def number_components(counts: Counts) -> Labels:
    """The component of each number, (K,) int32: the most rows keep their number.

    Kuhn's (1955) optimal assignment of numbers to components. Of several optima one in which most components keep the
    number that they have; components without a row fill the numbers that are left, in order.

    Parameters
    ----------
    counts : (previous K, K) int64
        Rows that count, by previous number and by component. Numbers from K on cannot be kept.

    Examples
    --------
    >>> number_components(np.array([[0, 5, 0], [0, 0, 0], [7, 2, 0], [0, 0, 9]])).tolist()
    [1, 2, 0]
    """
    K = counts.shape[1]
    worth = counts[:K]
    # A row is worth more than all numbers that a component could keep.
    from scipy.optimize import linear_sum_assignment  # its readers, who are many, need no SciPy

    number, component = linear_sum_assignment((K + 1) * worth + np.eye(*worth.shape), maximize=True)
    has_rows = worth[number, component] > 0
    found = np.full(K, -1, np.int32)
    found[number[has_rows]] = component[has_rows]
    found[found < 0] = np.setdiff1d(np.arange(K), found)
    return found


def _events(linked: Links, rows: Counts, *, none: Event, several: Event, other: Event) -> tuple[Event, ...]:
    """The event of each cluster of the first axis: by its links, and by those of the one that it is linked with."""
    degree, other_degree = linked.sum(axis=1), linked.sum(axis=0)
    is_shared = (linked & (other_degree > 1)).any(axis=1)

    def event(k: int) -> Event:
        if rows[k] == 0:
            return "unseen"
        if degree[k] == 0:
            return none
        return several if degree[k] > 1 else other if is_shared[k] else "kept"

    return tuple(event(k) for k in range(len(linked)))


def count_events(events: Sequence[str], previous_events: Sequence[str]) -> dict[str, int]:
    """Clusters that are kept and born, previous ones that died and were split, clusters that were merged.

    Examples
    --------
    >>> count_events(["kept", "split", "split"], ["kept", "split", "died"])
    {'kept': 1, 'born': 0, 'died': 1, 'split': 1, 'merged': 0}
    """
    new, previous = list(events), list(previous_events)
    of = {"kept": new, "born": new, "died": previous, "split": previous, "merged": new}
    return {event: found.count(event) for event, found in of.items()}
