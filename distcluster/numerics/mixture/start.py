"""Where EM starts: small clusters of k-means, merged into the Gaussians that describe them best."""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Merges = list[tuple[int, int]]

_ROWS = 20_000  # at most, that the small clusters are made of
_SMALL = 256  # of them, doubled until there are two a component
_LEAST_ROWS = 8  # of a small cluster, in the mean
_PRIOR = 8.0  # small clusters' rows, with the spread within small clusters, that every cluster has beside its own
_MOST_FEATURES = 32  # beyond, covariances cost too much, and of so few rows say too little


def initial_labels(points: Float32, n_components: int, n_init: int, seed: int) -> Int32:
    """Labels to start from, which the four covariance types of one k share.

    k-means alone cuts wide groups and joins narrow ones, and EM does not get away from there. So k-means makes many
    small clusters, on 20,000 rows spread evenly, and the two that lose least when one Gaussian describes both are
    merged until k are left (Fraley 1998: model-based agglomeration).

    Parameters
    ----------
    points : (M, d) float32
        The projected mixture subsample. Of more than 32 features k-means makes the k clusters itself.
    n_components : int
        k.
    n_init : int
        Starts of k-means, the best of which goes on.
    seed : int

    Returns
    -------
    (M,) int32

    Examples
    --------
    A wide group beside a narrow one, which two of k-means' clusters would share:

    >>> chance = np.random.default_rng(0)
    >>> points = np.vstack([chance.normal(0, [9, 1], (900, 2)), chance.normal([12, 6], 0.3, (100, 2))]).astype("f4")
    >>> labels = initial_labels(points, n_components=2, n_init=1, seed=0)
    >>> [len(np.unique(part)) for part in (labels[:900], labels[900:])]
    [1, 1]
    """
    return Starts(points, n_init, seed).labels(n_components)


class Starts:
    """``initial_labels`` of the same points for several k: one path of mergers leads to them all."""

    def __init__(self, points: Float32, n_init: int, seed: int) -> None:
        self._rows = points.astype(np.float64)
        self._some = self._rows[:: -(-len(points) // _ROWS)]
        self._n_distinct = len(np.unique(self._some, axis=0))
        self._n_init, self._seed = n_init, seed
        self._paths: dict[int, tuple[Int32, Merges]] = {}

    def labels(self, n_components: int) -> Int32:
        """Of k components; fewer where so many distinct rows are not there: empty ones are the mixture's to report."""
        k = min(n_components, self._n_distinct)
        n_small = _SMALL
        while n_small < 2 * k:
            n_small *= 2
        n_small = min(n_small, len(self._some) // _LEAST_ROWS, self._n_distinct)
        if self._rows.shape[1] > _MOST_FEATURES or not 1 < k < n_small:
            return self._by_kmeans(k)[0]
        if n_small not in self._paths:
            label, of_some = self._by_kmeans(n_small)
            self._paths[n_small] = label, mergers(self._some, of_some)
        label, found = self._paths[n_small]
        return cut(found, k)[label]

    def _by_kmeans(self, k: int) -> tuple[Int32, Int32]:
        """Labels of all rows, and of those that the clusters are made of."""
        from sklearn.cluster import KMeans  # scikit-learn takes seconds to import, and a run's client can do without

        means = KMeans(k, n_init=self._n_init, random_state=self._seed).fit(self._some)
        return means.predict(self._rows).astype(np.int32), means.labels_


def mergers(rows: Float64, label: Int32) -> Merges:
    """The order in which clusters are merged, and into which: first two, then two of those that are left, to the last.

    The cost of a cluster is n log det of its covariance, to which the mean covariance within the clusters given is
    added as if of eight of their sizes: a few rows in a line are no Gaussian.

    Examples
    --------
    >>> rows = np.array([0.0, 0.1, 1.0, 1.1, 9.0, 9.1])[:, None]
    >>> mergers(rows, np.array([0, 0, 1, 1, 2, 2], np.int32))
    [(0, 1), (0, 2)]
    """
    clusters = _Clusters(rows, label)
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
    """Numbers, means and scatter matrices of clusters, and what a merger loses."""

    def __init__(self, rows: Float64, label: Int32) -> None:
        parts = np.split(rows[np.argsort(label, kind="stable")], np.cumsum(np.bincount(label))[:-1])
        self.n = np.array([float(len(part)) for part in parts])
        self.mean = np.stack([part.mean(axis=0) for part in parts])
        self.scatter = np.stack([(part - mean).T @ (part - mean) for part, mean in zip(parts, self.mean, strict=True)])
        within = self.scatter.sum(axis=0) / len(rows)
        d = rows.shape[1]
        within += np.eye(d) * max(1e-6 * np.trace(within) / d, 1e-30)  # rows on a line
        self._prior_n = _PRIOR * len(rows) / len(parts)
        self._prior = self._prior_n * within
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
