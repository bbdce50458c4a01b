"""Silhouettes: exact in squared Euclidean distance, estimated in Euclidean distance."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from distcluster.numerics.mixture.kernels import find_labels, weighted_sum
from distcluster.numerics.mixture.parameters import NaturalParameters
from distcluster.numerics.mixture.tiles import SPHERICAL, TILE_ROWS, compiled, fill_features, make_tiles

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_SILHOUETTE_ROWS = 2048  # pairwise distances cost the square
_DISTANCE_ROWS = 256  # of which distances to all others are held at a time


# --- exact ------------------------------------------------------------------------------------------------------


def silhouette_rows(rows: Rows, centre: Float64, candidates: Sequence[NaturalParameters], clusters: Float64) -> Float64:
    """Sums over a block's rows of the silhouette in squared Euclidean distance, (C,) float64.

    Parameters
    ----------
    rows, centre, candidates
        As ``scores.score_rows``.
    clusters : (sum of K, d + 2) float64
        ``scores.score_rows``' second result, summed over all rows of the run.
    """
    tiles, weight = make_tiles(rows, ~np.isnan(rows).any(axis=1), centre)
    ends = np.cumsum([len(each.theta) for each in candidates])
    return np.array(
        [
            _tile_silhouette(tiles, weight, each.kind, each.theta, of_candidate)
            for each, of_candidate in zip(candidates, np.split(clusters, ends[:-1]), strict=True)
        ]
    )


@compiled
def _tile_silhouette(tiles: Float64, weight: Float64, kind: int, theta: Float64, clusters: Float64) -> float:
    """Sum over rows of the silhouette in squared Euclidean distance, exact in O(K d) a row.

    The mean squared distance of a row to a cluster is |y|^2 - 2 y.m + q, with m the cluster's mean and q the mean of
    its |y|^2: one matrix product for all clusters (as in Spark's ClusteringEvaluator).

    Parameters
    ----------
    tiles, weight, kind, theta
        As ``kernels.tile_expectation``.
    clusters : (K, d + 2) float64
        The clusters of ``scores.score_rows``, summed over all rows.
    """
    d, K, F = tiles.shape[1], theta.shape[0], theta.shape[1]
    phi, linear = np.empty((F, TILE_ROWS)), np.empty((d + 2, TILE_ROWS))
    density, distance = np.empty((K, TILE_ROWS)), np.empty((K, TILE_ROWS))
    highest, label = np.empty(TILE_ROWS), np.empty(TILE_ROWS, np.int64)
    own, other, result = np.empty(TILE_ROWS), np.empty(TILE_ROWS), np.empty(TILE_ROWS)
    to_cluster = np.empty((K, d + 2))
    for k in range(K):
        size = max(clusters[k, 0], 1.0)
        # Nothing is nearest to an empty cluster.
        to_cluster[k, 0] = clusters[k, d + 1] / size if clusters[k, 0] > 0.0 else 1e300
        to_cluster[k, 1 : d + 1] = -2.0 / size * clusters[k, 1 : d + 1]
        to_cluster[k, d + 1] = 1.0
    total = 0.0
    for t in range(tiles.shape[0]):
        fill_features(kind, tiles[t], phi)
        np.dot(theta, phi, density)
        find_labels(density, highest, label)
        fill_features(SPHERICAL, tiles[t], linear)
        np.dot(to_cluster, linear, distance)
        own[:] = 0.0
        other[:] = 1e300
        for k in range(K):
            size = clusters[k, 0]
            without_itself = size / (size - 1.0) if size > 1.0 else 0.0
            for r in range(TILE_ROWS):
                is_own = label[r] == k
                own[r] = distance[k, r] * without_itself if is_own else own[r]
                other[r] = min(other[r], 1e300 if is_own else distance[k, r])
        for r in range(TILE_ROWS):
            # Rounding can leave a distance of zero below zero; a row alone in its cluster has silhouette 0.
            near, far = max(own[r], 0.0), max(other[r], 0.0)
            larger = max(near, far)
            alone = clusters[label[r], 0] <= 1.0
            result[r] = 0.0 if larger == 0.0 or alone else (far - near) / larger
        total += weighted_sum(result, weight[t])
    return total


# --- estimated --------------------------------------------------------------------------------------------------


def stratified_silhouette(points: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> tuple[float | None, ...]:
    """The mean silhouette in Euclidean distance, estimated from the same number of rows of every cluster.

    Distances to a cluster are means over the cluster's chosen rows; the clusters' mean silhouettes are weighted by
    their sizes, as in any stratified sample (Cochran 1977, ch. 5).

    Parameters
    ----------
    points, labels : (M, d) float32, (M,) int32
        In random order: the first rows of a cluster are chosen.

    Returns
    -------
    float or None, float or None
        The estimate and its standard error; None where fewer than two clusters have rows.

    Examples
    --------
    >>> points = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    >>> value, error = stratified_silhouette(points, np.array([0, 0, 1, 1], np.int32))
    >>> round(value, 3), error  # all rows were used: nothing is estimated
    (0.9, 0.0)
    """
    order = np.argsort(labels, kind="stable")
    present, first, size = np.unique(labels[order], return_index=True, return_counts=True)
    if len(present) < 2:
        return None, None
    quota = max(_SILHOUETTE_ROWS // len(present), 2)
    place = np.arange(len(labels)) - np.repeat(first, size)
    chosen = place < quota
    x = points[order][chosen].astype(np.float64)
    cluster = np.repeat(np.arange(len(present)), size)[chosen]
    values = _silhouettes(x, cluster, np.minimum(size, quota))
    share = size / size.sum()
    n = np.bincount(cluster)
    mean = np.bincount(cluster, values) / n
    variance = np.bincount(cluster, (values - mean[cluster]) ** 2) / np.maximum(n - 1, 1)
    error = np.sqrt((share**2 * variance / n * (1.0 - n / size)).sum())
    return float(share @ mean), float(error)


def _silhouettes(x: Float64, cluster: npt.NDArray[np.int64], n: npt.NDArray[np.int64]) -> Float64:
    """Silhouette of every row, 0 in a cluster of one (Rousseeuw 1987)."""
    starts = np.concatenate([[0], np.cumsum(n)[:-1]])
    result = np.zeros(len(x))
    for begin in range(0, len(x), _DISTANCE_ROWS):
        rows = slice(begin, begin + _DISTANCE_ROWS)
        to_cluster = np.add.reduceat(cdist(x[rows], x), starts, axis=1)
        each, own = np.arange(len(to_cluster)), cluster[rows]
        near = to_cluster[each, own] / np.maximum(n[own] - 1, 1)
        to_cluster /= n
        to_cluster[each, own] = np.inf
        far = to_cluster.min(axis=1)
        larger = np.maximum(near, far)
        result[rows] = np.where((n[own] > 1) & (larger > 0.0), (far - near) / np.where(larger > 0.0, larger, 1.0), 0.0)
    return result
