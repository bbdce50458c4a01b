"""Where EM starts: from k-means' clusters, or from small ones that are merged, where groups differ in extent."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Merges = list[tuple[int, int]]

_ROWS = 20_000  # at most, that clusters are made of
_SMALL = 256  # clusters that are merged, doubled until there are two a component
_LEAST_ROWS = 8  # of a small cluster, in the mean
_PRIOR = 8.0  # small clusters' rows, with the spread within small clusters, that every cluster has beside its own
_MOST_FEATURES = 32  # beyond, covariances cost too much, and of so few rows say too little
_TRIED = (4, 8, 16, 32, 64)  # ks for which both are compared
_GAIN = 0.1  # nats per row, mean over those: WordNet's senses have 0.0, one Gaussian -0.2, MNIST's images 0.2 to 0.8


class Starts:
    """Labels for EM to start from, which the four covariance types of one k share: of any k, for the same points.

    k-means wants groups of one extent: it cuts wide ones and joins narrow ones, and EM does not get away from there.
    So it makes many small clusters too, and the two that lose least when one Gaussian describes both are merged until
    k are left (Fraley 1998: model-based agglomeration). Merged clusters are taken, for all k, where a Gaussian for each
    describes a row better than for k-means' clusters, by 0.1 nats in the mean over 4 to 64 clusters (the classification
    likelihood: Celeux, Govaert 1992). The labels of one k do not depend on which others are asked for.

    Parameters
    ----------
    points : (M, d) float32
        The projected mixture subsample. Clusters are made of 20,000 rows, spread evenly; of more than 32 features
        k-means' are taken.
    n_init : int
        Starts of k-means for k clusters, the best of which goes on.
    seed : int
    are_merged : bool, optional
        Absent: what describes the points better.

    Attributes
    ----------
    are_merged : bool

    Examples
    --------
    Twenty groups whose extents differ by a factor of 30:

    >>> chance, truth = np.random.default_rng(0), np.arange(4_000) % 20
    >>> places, extents = chance.uniform(-12.0, 12.0, (20, 5)), np.geomspace(0.1, 3.0, 20)
    >>> points = places[truth] + extents[truth, None] * chance.normal(size=(4_000, 5))
    >>> starts = Starts(points.astype(np.float32), n_init=1, seed=0)
    >>> from sklearn.metrics import adjusted_rand_score
    >>> starts.are_merged, adjusted_rand_score(truth, starts.labels(20)) > 0.99
    (True, True)
    """

    def __init__(self, points: Float32, n_init: int, seed: int, are_merged: bool | None = None) -> None:
        self._rows = points.astype(np.float64)
        self._some = self._rows[:: -(-len(points) // _ROWS)]
        self._n_distinct = len(np.unique(self._some, axis=0))
        self._n_init, self._seed = n_init, seed
        self._paths: dict[int, _Path] = {}
        self.are_merged = self._groups_differ() if are_merged is None else are_merged

    def labels(self, n_components: int) -> Int32:
        """(M,) int32, of k components, or of fewer where distinct rows are: the mixture reports empty ones."""
        k = min(n_components, self._n_distinct)
        path = self._path(k) if self.are_merged else None
        return self._by_kmeans(k) if path is None else cut(path.mergers, k)[path.label]

    def _groups_differ(self) -> bool:
        """Whether merged clusters describe the rows better than k-means'."""
        gains = []
        for k in _TRIED:
            if path := self._path(k):
                by_kmeans = self._kmeans(k, n_init=1, random_state=self._seed).fit(self._some).labels_
                gains.append(path.described(cut(path.mergers, k)[path.of_some]) - path.described(by_kmeans))
        return bool(gains) and float(np.mean(gains)) > _GAIN

    def _path(self, k: int) -> "_Path | None":
        """Small clusters and their mergers; None where k is too large for them, or they have too many features."""
        n_small = _SMALL
        while n_small < 2 * k:
            n_small *= 2
        n_small = min(n_small, len(self._some) // _LEAST_ROWS, self._n_distinct)
        if self._some.shape[1] > _MOST_FEATURES or not 1 < k < n_small:
            return None
        if n_small not in self._paths:
            means = self._kmeans(n_small, n_init=1, random_state=self._seed).fit(self._some)
            self._paths[n_small] = _Path(self._some, means.labels_, means.predict(self._rows).astype(np.int32))
        return self._paths[n_small]

    def _by_kmeans(self, k: int) -> Int32:
        """Of ``n_init`` starts the best on some rows goes on with all."""
        few = self._kmeans(k, n_init=self._n_init, random_state=self._seed).fit(self._some)
        if len(self._some) == len(self._rows):
            return np.asarray(few.labels_, np.int32)
        return np.asarray(self._kmeans(k, init=few.cluster_centers_, n_init=1).fit_predict(self._rows), np.int32)

    @staticmethod
    def _kmeans(*arguments: Any, **options: Any) -> "KMeans":
        from sklearn.cluster import KMeans  # scikit-learn takes seconds to import, and a run's client can do without

        return KMeans(*arguments, **options)


class _Path:
    """Small clusters of some rows, how they are merged, and all rows' labels by the nearest mean."""

    def __init__(self, rows: Float64, of_some: Int32, label: Int32) -> None:
        self._rows, self.of_some, self.label = rows, of_some, label
        clusters = _Clusters(rows, of_some)
        self._within = clusters.within
        self.mergers = mergers(clusters)

    def described(self, label: Int32) -> float:
        """Mean log density of the rows, each in the Gaussian of its cluster, but for what no label changes.

        Covariances have the spread within small clusters beside their own, as of d + 1 rows.
        """
        n, _, scatter = _moments(self._rows, label)
        few = self._rows.shape[1] + 1
        covariance = (scatter + few * self._within) / (n + few)[:, None, None]
        share = n / n.sum()
        return float((share * (np.log(share) - 0.5 * np.linalg.slogdet(covariance)[1])).sum())


def _moments(rows: Float64, label: Int32) -> tuple[Float64, Float64, Float64]:
    """Numbers, means and scatter matrices of the clusters that have rows."""
    parts = np.split(rows[np.argsort(label, kind="stable")], np.cumsum(np.unique_counts(label).counts)[:-1])
    means = np.stack([part.mean(axis=0) for part in parts])
    scatter = np.stack([(part - mean).T @ (part - mean) for part, mean in zip(parts, means, strict=True)])
    return np.array([float(len(part)) for part in parts]), means, scatter


def mergers(clusters: "_Clusters") -> Merges:
    """The order in which clusters are merged, and into which: first two, then two of those that are left, to the last.

    Examples
    --------
    >>> rows = np.array([0.0, 0.1, 1.0, 1.1, 9.0, 9.1])[:, None]
    >>> mergers(_Clusters(rows, np.array([0, 0, 1, 1, 2, 2], np.int32)))
    [(0, 1), (0, 2)]
    """
    n = len(clusters.n)
    loss = np.stack([clusters.losses(i) for i in range(n)])
    found = []
    for _ in range(n - 1):
        a, b = sorted(divmod(int(np.argmin(loss)), n))
        clusters.merge(a, b)
        loss[b], loss[:, b] = np.inf, np.inf
        loss[a] = loss[:, a] = clusters.losses(a)
        found.append((a, b))
    return found


def cut(found: Merges, k: int) -> Int32:
    """The cluster, 0 to k - 1, that each small one is part of where k are left.

    Examples
    --------
    >>> cut([(0, 1), (0, 2)], 2).tolist()
    [0, 0, 1]
    """
    group = np.arange(len(found) + 1)
    for a, b in found[: len(found) + 1 - k]:
        group[group == b] = a
    return np.unique(group, return_inverse=True)[1].astype(np.int32)


class _Clusters:
    """Clusters, and what a merger loses.

    The cost of a cluster is n log det of its covariance, to which the mean covariance within the clusters at first is
    added as if of eight of their sizes: a few rows in a line are no Gaussian.
    """

    def __init__(self, rows: Float64, label: Int32) -> None:
        self.n, self.mean, self.scatter = _moments(rows, label)
        within, d = self.scatter.sum(axis=0) / len(rows), rows.shape[1]
        self.within = within + np.eye(d) * max(1e-6 * np.trace(within) / d, 1e-30)  # of rows on a line, too
        self._prior_n = _PRIOR * len(rows) / len(self.n)
        self._prior = self._prior_n * self.within
        self._cost = self._costs(self.n, self.scatter)

    def _costs(self, n: Float64, scatter: Float64) -> Float64:
        n_all = (n + self._prior_n)[:, None, None]
        return np.asarray(n * np.linalg.slogdet((scatter + self._prior) / n_all)[1])

    def _together(self, i: int) -> tuple[Float64, Float64]:
        n, apart = self.n + self.n[i], self.mean - self.mean[i]
        between = (self.n * self.n[i] / n)[:, None, None] * apart[:, :, None] * apart[:, None, :]
        return n, self.scatter + self.scatter[i] + between

    def losses(self, i: int) -> Float64:
        """Of the mergers of a cluster with each of the others; infinite with itself and with what has been merged."""
        loss: Float64 = self._costs(*self._together(i)) - self._cost - self._cost[i]
        loss[i] = np.inf
        loss[np.isinf(self._cost)] = np.inf
        return loss

    def merge(self, a: int, b: int) -> None:
        """Make b part of a."""
        n, scatter = self._together(a)
        self.mean[a] += (self.mean[b] - self.mean[a]) * self.n[b] / n[b]
        self.n[a], self.scatter[a] = n[b], scatter[b]
        self._cost[a] = self._costs(self.n[a : a + 1], self.scatter[a : a + 1])[0]
        self._cost[b] = np.inf
