"""A tree over the chosen components: what overlaps is merged first, then what means similar things."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
MergeRule = Literal["entropy", "ward"]

HIERARCHY_ROWS = 20_000
"""Rows that a tree is made from at most: every merge reads all their responsibilities."""

_OVERLAP = 0.1  # nats per row of the pair: below, the rows of two clusters are hardly undecided between them
_NEGLIGIBLE = 1e-6  # responsibilities below add nothing to an overlap of 0.1


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """K - 1 merges, in order.

    Attributes
    ----------
    merges : (K - 1, 4) float64
        SciPy's linkage form: the two that are merged (components are 0 to K - 1, the i-th merge makes K + i), the
        number of the merge as its height, and the components below it.
    rules : tuple of str
        Which rule made each merge.
    values : (K - 1,) float64
        entropy: the fall of the entropy of the responsibilities, nats per row of the pair, at most ln 2. ward: the
        distance of the two mean embeddings in Ward's sense, sqrt(2 n m / (n + m)) |a - b|.
    """

    merges: Float64
    rules: tuple[MergeRule, ...]
    values: Float64


def build_hierarchy(responsibility: Float64, embedding: npt.NDArray[np.float32]) -> Hierarchy:
    """Merge components into a tree.

    Two clusters whose merging lowers the entropy of the responsibilities most are merged first (Baudry, Raftery,
    Celeux, Lo & Gottardo 2010, section 3), as long as that is at least 0.1 nats per row of the two. What is left is
    merged by Ward's rule (1963) on the clusters' mean embeddings.

    Parameters
    ----------
    responsibility : (n, K) float64
    embedding : (n, D) float32
        Of the same rows. A cluster's mean embedding weighs rows by their responsibilities.

    Examples
    --------
    Two components share their rows and are merged first; the third has its own:

    >>> responsibility = np.array([[0.5, 0.5, 0.0]] * 4 + [[0.0, 0.0, 1.0]] * 4)
    >>> embedding = np.array([[0.0]] * 4 + [[5.0]] * 4, np.float32)
    >>> tree = build_hierarchy(responsibility, embedding)
    >>> tree.rules, tree.merges[:, :2].astype(int).tolist()
    (('entropy', 'ward'), [[0, 1], [2, 3]])
    """
    shares = responsibility.copy()
    K = shares.shape[1]
    tree = _Tree(K)
    while len(tree.nodes) > 1:
        mass = shares.sum(axis=0)
        fall = entropy_falls(shares, _NEGLIGIBLE)
        a, b = divmod(int(np.argmax(fall)), len(mass))
        value = fall[a, b] / max(mass[a] + mass[b], 1e-300)
        if value < _OVERLAP:
            break
        tree.merge(a, b, "entropy", float(value))
        shares[:, a] += shares[:, b]
        shares = np.delete(shares, b, axis=1)
    mass = shares.sum(axis=0)
    means = (shares.T @ embedding) / np.maximum(mass, 1e-300)[:, None]
    while len(tree.nodes) > 1:
        a, b, value = _nearest_by_ward(means, mass)
        tree.merge(a, b, "ward", value)
        means[a] = (mass[a] * means[a] + mass[b] * means[b]) / max(mass[a] + mass[b], 1e-300)
        mass[a] += mass[b]
        means, mass = np.delete(means, b, axis=0), np.delete(mass, b)
    return Hierarchy(
        np.array(tree.merges, np.float64).reshape(-1, 4), tuple(tree.rules), np.array(tree.values, np.float64)
    )


class _Tree:
    """Merges as they are made; ``nodes`` are the names of what is not yet merged, by position."""

    def __init__(self, n_leaves: int) -> None:
        self.nodes = list(range(n_leaves))
        self.merges: list[tuple[float, float, float, float]] = []
        self.rules: list[MergeRule] = []
        self.values: list[float] = []
        self._leaves = [1] * n_leaves
        self._next = n_leaves

    def merge(self, a: int, b: int, rule: MergeRule, value: float) -> None:
        """Merge position b into position a < b."""
        leaves = self._leaves[a] + self._leaves.pop(b)
        low, high = sorted((self.nodes[a], self.nodes.pop(b)))
        self.merges.append((low, high, len(self.merges) + 1, leaves))
        self.rules.append(rule)
        self.values.append(value)
        self.nodes[a], self._leaves[a] = self._next, leaves
        self._next += 1


@numba.njit(cache=True, nogil=True)
def entropy_falls(shares: Float64, negligible: float) -> Float64:
    """Fall of the total entropy when two clusters are merged, nats.

    Parameters
    ----------
    shares : (n, K) float64
    negligible : float
        Shares up to this are taken as 0.

    Returns
    -------
    (K, K) float64
        Above the diagonal: the sum over rows of h(s_a + s_b) - h(s_a) - h(s_b), h(s) = s ln s; else 0.
    """
    n, K = shares.shape
    fall = np.zeros((K, K))
    present = np.empty(K, np.int64)
    for i in range(n):
        count = 0
        for k in range(K):
            if shares[i, k] > negligible:
                present[count] = k
                count += 1
        for p in range(count):
            a = shares[i, present[p]]
            for q in range(p + 1, count):
                b = shares[i, present[q]]
                fall[present[p], present[q]] += (a + b) * np.log(a + b) - a * np.log(a) - b * np.log(b)
    return fall


def _nearest_by_ward(means: Float64, mass: Float64) -> tuple[int, int, float]:
    """The two positions that are nearest, and their distance."""
    squares = (means**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None, :] - 2.0 * means @ means.T, 0.0)
    together = np.maximum(mass[:, None] + mass[None, :], 1e-300)
    distance = np.sqrt(2.0 * mass[:, None] * mass[None, :] / together * apart)
    distance[np.tril_indices(len(mass))] = np.inf
    a, b = divmod(int(np.argmin(distance)), len(mass))
    return a, b, float(distance[a, b])


def cut(merges: Float64, n_clusters: int) -> npt.NDArray[np.int32]:
    """The cluster of every component where the tree is cut into so many, (K,) int32, numbered by first component.

    Parameters
    ----------
    merges : (K - 1, 4) float64
    n_clusters : int
        From 1 to K.

    Raises
    ------
    ValueError
        When the tree cannot be cut so.

    Examples
    --------
    >>> merges = np.array([[0, 1, 1, 2], [2, 3, 2, 3]], np.float64)
    >>> cut(merges, 2).tolist(), cut(merges, 1).tolist()
    ([0, 0, 1], [0, 0, 0])
    """
    K = len(merges) + 1
    if not 1 <= n_clusters <= K:
        raise ValueError(f"{n_clusters} clusters: the tree has {K} components and can be cut into 1 to {K}")
    cluster = list(range(K))
    members = {k: [k] for k in range(K)}
    for i, (a, b, *_) in enumerate(merges[: K - n_clusters]):
        members[K + i] = members.pop(int(a)) + members.pop(int(b))
    for number, leaves in enumerate(sorted(members.values(), key=min)):
        for leaf in leaves:
            cluster[leaf] = number
    return np.array(cluster, np.int32)


def levels(merges: Float64, wanted: Literal["auto"] | Sequence[int] = "auto") -> dict[int, npt.NDArray[np.int32]]:
    """The tree cut into some numbers of clusters: by their number, the finest cut first.

    Cuts of a tree nest: a cluster lies within one cluster of every coarser level.

    Parameters
    ----------
    merges : (K - 1, 4) float64
    wanted : "auto" or sequence of int
        auto: half as many as there are components, and half again, down to two. Others: those below K.

    Returns
    -------
    dict of int to (K,) int32
        ``cut`` of each level.

    Examples
    --------
    >>> merges = np.array([[0, 1, 1, 2], [2, 3, 2, 2], [4, 5, 3, 4]], np.float64)
    >>> {k: cluster.tolist() for k, cluster in levels(merges).items()}
    {2: [0, 0, 1, 1]}
    >>> list(levels(merges, [2, 3, 4]))
    [3, 2]
    """
    k = K = len(merges) + 1
    halves = []
    while k > 2:
        k = -(-k // 2)
        halves.append(k)
    ks = halves if wanted == "auto" else sorted((k for k in wanted if k < K), reverse=True)
    return {k: cut(merges, k) for k in ks}


def level_exemplars(
    cluster: npt.NDArray[np.int32], size: npt.NDArray[np.int64], exemplar: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Rows that show what a cluster of a level holds: those of its components in turns, the largest component's first.

    Parameters
    ----------
    cluster : (K,) int32
        The level's cluster of every component.
    size : (K,) int64
        Rows of every component.
    exemplar : (K, n) int64
        Rows of every component, the most typical first; -1 where there are fewer.

    Returns
    -------
    (k, n) int64

    Examples
    --------
    >>> exemplar = np.array([[1, 2, 3], [4, 5, -1], [6, 7, 8]])
    >>> level_exemplars(np.array([0, 0, 1], np.int32), np.array([10, 20, 5]), exemplar).tolist()
    [[4, 1, 5], [6, 7, 8]]
    """
    k, n = int(cluster.max()) + 1, exemplar.shape[1]
    found = np.full((k, n), -1, np.int64)
    order = np.argsort(-size, kind="stable")
    for number in range(k):
        in_turns = exemplar[order[cluster[order] == number]].T.ravel()
        rows = in_turns[in_turns >= 0][:n]
        found[number, : len(rows)] = rows
    return found
