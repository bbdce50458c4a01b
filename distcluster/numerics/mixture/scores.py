"""Sums over a block's rows under many candidates: what their criteria are made of."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.exponential import exp
from distcluster.numerics.mixture.kernels import find_labels, shared_term, sum_of_logs, weighted_sum
from distcluster.numerics.mixture.parameters import NaturalParameters
from distcluster.numerics.mixture.tiles import TILE_ROWS, compiled, fill_features, make_tiles

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def score_rows(
    rows: Rows,
    held_out: npt.NDArray[np.bool_],
    centre: Float64,
    candidates: Sequence[NaturalParameters],
) -> tuple[Float64, Float64]:
    """Sums over a block's rows under many candidates; the rows are cut into tiles once.

    Parameters
    ----------
    rows : (n, d) float32 or float64
        NaN in invalid rows.
    held_out : (n,) bool
        The held-out rows, all of them valid.
    centre : (d,) float64
        Of all candidates.
    candidates : sequence of NaturalParameters

    Returns
    -------
    criteria : (C, 4) float64
        For each candidate the sums over held-out rows of log p(x) and of the entropy of the responsibilities, and the
        same over all rows; nats.
    clusters : (sum of K, d + 2) float64
        For each component, candidate by candidate, the sums of 1, y, |y|^2 over the rows that it labels.
    """
    tiles, weight = make_tiles(rows, ~np.isnan(rows).any(axis=1), centre)
    held_out_tiles = np.zeros(weight.shape)
    held_out_tiles.reshape(-1)[: len(rows)] = held_out
    sums = [_tile_score(tiles, weight, held_out_tiles, each.kind, each.theta, each.shared) for each in candidates]
    return np.stack([criteria for criteria, _ in sums]), np.concatenate([clusters for _, clusters in sums])


@compiled
def _tile_score(
    tiles: Float64, weight: Float64, held_out: Float64, kind: int, theta: Float64, shared: Float64
) -> tuple[Float64, Float64]:
    """Sums over rows that the criteria of a candidate are made of.

    Parameters
    ----------
    tiles, weight, kind, theta, shared
        As ``kernels.tile_expectation``.
    held_out : (T, 1024) float64
        1 for the held-out rows, 0 for others.

    Returns
    -------
    criteria : (4,) float64
        Log-likelihood and entropy of the responsibilities of the held-out rows, then of all rows; nats.
    clusters : (K, d + 2) float64
        Over the rows with label k: sums of 1, y, |y|^2.
    """
    d, K, F = tiles.shape[1], theta.shape[0], theta.shape[1]
    phi, density = np.empty((F, TILE_ROWS)), np.empty((K, TILE_ROWS))
    highest, total, common = np.empty(TILE_ROWS), np.empty(TILE_ROWS), np.empty(TILE_ROWS)
    weighted, label = np.empty(TILE_ROWS), np.empty(TILE_ROWS, np.int64)
    criteria, clusters = np.zeros(4), np.zeros((K, d + 2))
    for t in range(tiles.shape[0]):
        fill_features(kind, tiles[t], phi)
        np.dot(theta, phi, density)
        find_labels(density, highest, label)
        total[:] = 0.0
        weighted[:] = 0.0
        for k in range(K):
            for r in range(TILE_ROWS):
                below = density[k, r] - highest[r]
                share = exp(below)
                total[r] += share
                weighted[r] += share * below
        shared_term(kind, tiles[t], shared, common)
        for r in range(TILE_ROWS):
            weighted[r] /= total[r]
        for i in range(2):
            rows = weight[t] if i else held_out[t]
            logs = sum_of_logs(total, rows)
            criteria[2 * i] += logs + (weighted_sum(highest, rows) + weighted_sum(common, rows))
            criteria[2 * i + 1] += logs - weighted_sum(weighted, rows)
        _add_to_clusters(tiles[t], weight[t], label, clusters)
    return criteria, clusters


@compiled
def _add_to_clusters(y: Float64, weight: Float64, label: npt.NDArray[np.int64], clusters: Float64) -> None:
    d = y.shape[0]
    for r in range(TILE_ROWS):
        if weight[r] > 0.0:
            k = label[r]
            square = 0.0
            for i in range(d):
                clusters[k, 1 + i] += y[i, r]
                square += y[i, r] * y[i, r]
            clusters[k, 0] += 1.0
            clusters[k, d + 1] += square
