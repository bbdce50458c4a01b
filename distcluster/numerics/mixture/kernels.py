"""Loops over tiles under a mixture: log densities, and the sums of an E-step."""

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.exponential import exp
from distcluster.numerics.mixture.tiles import TIED, TILE_ROWS, compiled, fill_features

Float64 = npt.NDArray[np.float64]

# --- one tile ---------------------------------------------------------------------------------------------------


@compiled
def shared_term(kind: int, y: Float64, shared: Float64, result: Float64) -> None:
    """The form y' shared y of every row: what the log densities of a tied mixture have in common."""
    result[:] = 0.0
    if kind == TIED:
        for i in range(y.shape[0]):
            for j in range(i, y.shape[0]):
                factor = shared[i, j] if i == j else 2.0 * shared[i, j]
                for r in range(TILE_ROWS):
                    result[r] += factor * (y[i, r] * y[j, r])


@compiled
def find_highest(density: Float64, highest: Float64) -> None:
    """Largest log density of every row."""
    highest[:] = density[0]
    for k in range(1, density.shape[0]):
        for r in range(TILE_ROWS):
            highest[r] = max(highest[r], density[k, r])


@compiled
def exponentials(density: Float64, highest: Float64, total: Float64) -> None:
    """Replace log densities by exp(log density - highest); ``total`` is their sum in every row."""
    total[:] = 0.0
    for k in range(density.shape[0]):
        for r in range(TILE_ROWS):
            share = exp(density[k, r] - highest[r])
            density[k, r] = share
            total[r] += share


_LANES = 64  # one logarithm for 16 rows, a lane: 16 totals of up to 10^19 components cannot overflow


@compiled
def sum_of_logs(total: Float64, weight: Float64) -> float:
    """Sum over rows of weight * log(total), for weights of 0 and 1: logarithms of products, for they are dear."""
    product = np.ones(_LANES)
    for start in range(0, TILE_ROWS, _LANES):
        for r in range(_LANES):
            product[r] *= total[start + r] if weight[start + r] > 0.0 else 1.0
    return float(np.log(product).sum())


@compiled
def weighted_sum(values: Float64, weight: Float64) -> float:
    """Sum over rows of weight * values."""
    lanes = np.zeros(_LANES)
    for start in range(0, TILE_ROWS, _LANES):
        for r in range(_LANES):
            lanes[r] += weight[start + r] * values[start + r]
    return float(lanes.sum())


@compiled
def find_labels(density: Float64, highest: Float64, label: npt.NDArray[np.int64]) -> None:
    """Largest log density of every row, and its component: the lower one of a tie."""
    highest[:] = density[0]
    label[:] = 0
    for k in range(1, density.shape[0]):
        for r in range(TILE_ROWS):
            is_higher = density[k, r] > highest[r]
            highest[r] = density[k, r] if is_higher else highest[r]
            label[r] = k if is_higher else label[r]


# --- all tiles --------------------------------------------------------------------------------------------------


@compiled
def tile_expectation(
    tiles: Float64, weight: Float64, kind: int, theta: Float64, shared: Float64
) -> tuple[Float64, float]:
    """The sums over rows that the next M-step needs, and the log-likelihood under the present parameters.

    Parameters
    ----------
    tiles, weight : (T, d, 1024), (T, 1024) float64
        ``make_tiles``.
    kind : int
        ``KIND[covariance_type]``.
    theta : (K, F) float64
    shared : (d, d) float64
        ``parameters.natural_parameters``.

    Returns
    -------
    sums : (K, F) float64
        Sum over rows of responsibility times phi.
    log_likelihood : float
        Sum over rows of log p(x), nats.
    """
    K, F = theta.shape
    phi, density = np.empty((F, TILE_ROWS)), np.empty((K, TILE_ROWS))
    highest, total, common = np.empty(TILE_ROWS), np.empty(TILE_ROWS), np.empty(TILE_ROWS)
    sums, part = np.zeros((K, F)), np.empty((K, F))
    log_likelihood = 0.0
    for t in range(tiles.shape[0]):
        fill_features(kind, tiles[t], phi)
        np.dot(theta, phi, density)
        find_highest(density, highest)
        exponentials(density, highest, total)
        shared_term(kind, tiles[t], shared, common)
        log_likelihood += sum_of_logs(total, weight[t])
        log_likelihood += weighted_sum(highest, weight[t]) + weighted_sum(common, weight[t])
        # Responsibilities are share / total: dividing F features costs less than dividing K shares.
        for r in range(TILE_ROWS):
            total[r] = weight[t, r] / total[r]
        for f in range(F):
            for r in range(TILE_ROWS):
                phi[f, r] *= total[r]
        np.dot(density, phi.T, part)
        sums += part
    return sums, log_likelihood


@compiled
def tile_responsibilities(
    tiles: Float64, weight: Float64, kind: int, theta: Float64, shared: Float64
) -> tuple[Float64, Float64]:
    """Responsibilities and log density of every row; parameters as ``tile_expectation``.

    Returns
    -------
    responsibility : (T * 1024, K) float64
        Sums to 1 in a row; NaN where the weight is 0.
    log_density : (T * 1024,) float64
        log p(x), nats; NaN where the weight is 0.
    """
    K, F = theta.shape
    phi, density = np.empty((F, TILE_ROWS)), np.empty((K, TILE_ROWS))
    highest, total, common = np.empty(TILE_ROWS), np.empty(TILE_ROWS), np.empty(TILE_ROWS)
    responsibility = np.full((tiles.shape[0] * TILE_ROWS, K), np.nan)
    log_density = np.full(tiles.shape[0] * TILE_ROWS, np.nan)
    for t in range(tiles.shape[0]):
        fill_features(kind, tiles[t], phi)
        np.dot(theta, phi, density)
        find_highest(density, highest)
        exponentials(density, highest, total)
        shared_term(kind, tiles[t], shared, common)
        for r in range(TILE_ROWS):
            if weight[t, r] > 0.0:
                row = t * TILE_ROWS + r
                log_density[row] = highest[r] + np.log(total[r]) + common[r]
                for k in range(K):
                    responsibility[row, k] = density[k, r] / total[r]
    return responsibility, log_density


@compiled
def label_sums(tiles: Float64, weight: Float64, kind: int, labels: npt.NDArray[np.int32], sums: Float64) -> None:
    """Add to ``sums`` (K, F) what ``tile_expectation`` sums, with responsibilities of 0 and 1 given as labels (n,)."""
    phi = np.empty((sums.shape[1], TILE_ROWS))
    for t in range(tiles.shape[0]):
        fill_features(kind, tiles[t], phi)
        for r in range(min(TILE_ROWS, labels.shape[0] - t * TILE_ROWS)):
            if weight[t, r] > 0.0:
                for f in range(sums.shape[1]):
                    sums[labels[t * TILE_ROWS + r], f] += phi[f, r]
