"""Tiles of 1,024 rows under a mixture: quadratic features, E-step, sums for the M-step.

With y = x - centre, the log density of component k, weighted, is a linear function of a few features of y:

    type        features phi(y)                         number F
    spherical   1, y_1 ... y_d, |y|^2                   d + 2
    diag        1, y_1 ... y_d, y_1^2 ... y_d^2         2 d + 1
    tied        1, y_1 ... y_d                          d + 1          and a term that all components share
    full        1, y_1 ... y_d, y_i y_j for i <= j      1 + d + d (d + 1) / 2

so the E-step of a tile is one matrix product, theta (K, F) @ phi (F, 1024), and the sums that an M-step needs are one
more, responsibilities (K, 1024) @ phi.T. Rows run along the last axis, where a processor's vectors lie.

A row's numbers do not depend on its neighbours: a tile is always whole (rows of zeros with weight 0 fill it), the
products have the model's own shape, and every other loop treats all rows alike.
"""

import math

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, CovarianceType

Float64 = npt.NDArray[np.float64]

TILE_ROWS = 1024
"""Rows of a tile: its features and densities stay in a processor's own cache."""

_SPHERICAL, _DIAG, _TIED, _FULL = range(4)  # in the order of COVARIANCE_TYPES
KIND: dict[CovarianceType, int] = dict(zip(COVARIANCE_TYPES, (_SPHERICAL, _DIAG, _TIED, _FULL), strict=True))
"""What the compiled loops call a covariance type."""


def n_features(covariance_type: CovarianceType, d: int) -> int:
    """F, the length of phi."""
    return {"spherical": d + 2, "diag": 2 * d + 1, "tied": d + 1, "full": 1 + d + d * (d + 1) // 2}[covariance_type]


# --- rows into tiles --------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def make_tiles(
    rows: npt.NDArray[np.floating], taken: npt.NDArray[np.bool_], centre: Float64
) -> tuple[Float64, Float64]:
    """Rows minus the centre, in tiles.

    Parameters
    ----------
    rows : (n, d) float32 or float64
    taken : (n,) bool
        Rows that count; the others (invalid, or not asked for) get weight 0 and may hold NaN.
    centre : (d,) float64
        Near the data: far from zero the squares would cancel. A scale is not needed: dividing by powers of two would
        change no bit of any result.

    Returns
    -------
    tiles : (T, d, 1024) float64
    weight : (T, 1024) float64
        1 for rows that count, 0 for the others and for what fills the last tile.
    """
    n, d = rows.shape
    n_tiles = (n + TILE_ROWS - 1) // TILE_ROWS
    tiles = np.zeros((n_tiles, d, TILE_ROWS))
    weight = np.zeros((n_tiles, TILE_ROWS))
    for i in range(n):
        if taken[i]:
            t, r = divmod(i, TILE_ROWS)
            weight[t, r] = 1.0
            for j in range(d):
                tiles[t, j, r] = rows[i, j] - centre[j]
    return tiles, weight


# --- the exponential --------------------------------------------------------------------------------------------
#
# A large part of an E-step is exponentials. A polynomial that the compiler turns into vector instructions, inside the
# loop that subtracts the maximum and sums, costs about what np.exp alone costs (benchmarks/mixture.py measures both).
# The error is below two units in the last place.


@intrinsic
def _as_bits(_context, value):  # type: ignore[no-untyped-def]
    def generate(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(value), generate


@intrinsic
def _from_bits(_context, value):  # type: ignore[no-untyped-def]
    def generate(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(value), generate


_LOWEST = -230.0  # exp of less, 1e-100, is 0: beside exp(0) in a sum it is nothing, and no product becomes subnormal
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # Cody & Waite 1980, in fdlibm's split
_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding it leaves the nearest integer in the last bits
_ROUND_BITS = int(np.float64(_ROUND).view(np.int64))
_C2, _C3, _C4, _C5, _C6, _C7 = (1.0 / math.factorial(n) for n in range(2, 8))
_C8, _C9, _C10, _C11, _C12, _C13 = (1.0 / math.factorial(n) for n in range(8, 14))


@numba.njit(inline="always")
def _exp(x: float) -> float:
    """exp(x) for x <= 0: exp(r) by its Taylor series on |r| <= ln(2) / 2, times 2^n by the exponent's bits."""
    bounded = max(x, _LOWEST)
    shifted = bounded * _LOG2_E + _ROUND
    power = _as_bits(shifted) - _ROUND_BITS
    n = shifted - _ROUND
    r = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
    p = _C13 * r + _C12
    p = p * r + _C11
    p = p * r + _C10
    p = p * r + _C9
    p = p * r + _C8
    p = p * r + _C7
    p = p * r + _C6
    p = p * r + _C5
    p = p * r + _C4
    p = p * r + _C3
    p = p * r + _C2
    p = p * r + 1.0
    p = p * r + 1.0
    return _from_bits(_as_bits(p) + (power << 52)) if x > _LOWEST else 0.0


# --- one tile ---------------------------------------------------------------------------------------------------

# No "fastmath", not even fused multiply-adds: a kernel must give the same bits compiled here or read from numba's cache
# (decision 8). A division by zero is infinite and does not branch.
_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _fill_features(kind: int, y: Float64, phi: Float64) -> None:
    d = y.shape[0]
    phi[0] = 1.0
    phi[1 : d + 1] = y
    if kind == _SPHERICAL:
        phi[d + 1] = 0.0
        for i in range(d):
            for r in range(TILE_ROWS):
                phi[d + 1, r] += y[i, r] * y[i, r]
    elif kind == _DIAG:
        for i in range(d):
            for r in range(TILE_ROWS):
                phi[d + 1 + i, r] = y[i, r] * y[i, r]
    elif kind == _FULL:
        f = d + 1
        for i in range(d):
            for j in range(i, d):
                for r in range(TILE_ROWS):
                    phi[f, r] = y[i, r] * y[j, r]
                f += 1


@_compiled
def _shared_term(kind: int, y: Float64, shared: Float64, result: Float64) -> None:
    """The form y' shared y of every row: what the log densities of a tied mixture have in common."""
    result[:] = 0.0
    if kind == _TIED:
        for i in range(y.shape[0]):
            for j in range(i, y.shape[0]):
                factor = shared[i, j] if i == j else 2.0 * shared[i, j]
                for r in range(TILE_ROWS):
                    result[r] += factor * (y[i, r] * y[j, r])


@_compiled
def _highest(density: Float64, highest: Float64) -> None:
    """Largest log density of every row."""
    highest[:] = density[0]
    for k in range(1, density.shape[0]):
        for r in range(TILE_ROWS):
            highest[r] = max(highest[r], density[k, r])


@_compiled
def exponentials(density: Float64, highest: Float64, total: Float64) -> None:
    """Replace log densities by exp(log density - highest); ``total`` is their sum in every row."""
    total[:] = 0.0
    for k in range(density.shape[0]):
        for r in range(TILE_ROWS):
            share = _exp(density[k, r] - highest[r])
            density[k, r] = share
            total[r] += share


_LANES = 64  # one logarithm for 16 rows, a lane: 16 totals of up to 10^19 components cannot overflow


@_compiled
def _sum_of_logs(total: Float64, weight: Float64) -> float:
    """Sum over rows of weight * log(total), for weights of 0 and 1: logarithms of products, for they are dear."""
    product = np.ones(_LANES)
    for start in range(0, TILE_ROWS, _LANES):
        for r in range(_LANES):
            product[r] *= total[start + r] if weight[start + r] > 0.0 else 1.0
    return float(np.log(product).sum())


@_compiled
def _weighted_sum(values: Float64, weight: Float64) -> float:
    """Sum over rows of weight * values."""
    lanes = np.zeros(_LANES)
    for start in range(0, TILE_ROWS, _LANES):
        for r in range(_LANES):
            lanes[r] += weight[start + r] * values[start + r]
    return float(lanes.sum())


# --- the E-step -------------------------------------------------------------------------------------------------


@_compiled
def expectation(tiles: Float64, weight: Float64, kind: int, theta: Float64, shared: Float64) -> tuple[Float64, float]:
    """The sums over rows that the next M-step needs, and the log-likelihood under the present parameters.

    Parameters
    ----------
    tiles, weight : (T, d, 1024), (T, 1024) float64
        ``make_tiles``.
    kind : int
        ``KIND[covariance_type]``.
    theta : (K, F) float64
    shared : (d, d) float64
        ``mixture.natural_parameters``.

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
        _fill_features(kind, tiles[t], phi)
        np.dot(theta, phi, density)
        _highest(density, highest)
        exponentials(density, highest, total)
        _shared_term(kind, tiles[t], shared, common)
        log_likelihood += _sum_of_logs(total, weight[t])
        log_likelihood += _weighted_sum(highest, weight[t]) + _weighted_sum(common, weight[t])
        # Responsibilities are share / total: dividing F features costs less than dividing K shares.
        for r in range(TILE_ROWS):
            total[r] = weight[t, r] / total[r]
        for f in range(F):
            for r in range(TILE_ROWS):
                phi[f, r] *= total[r]
        np.dot(density, phi.T, part)
        sums += part
    return sums, log_likelihood


@_compiled
def score(
    tiles: Float64, weight: Float64, judging: Float64, kind: int, theta: Float64, shared: Float64
) -> tuple[Float64, Float64]:
    """Sums over rows that the criteria of a candidate are made of.

    Parameters
    ----------
    tiles, weight, kind, theta, shared
        As ``expectation``.
    judging : (T, 1024) float64
        1 for the rows that judge the candidates, 0 for others.

    Returns
    -------
    criteria : (4,) float64
        Log-likelihood and entropy of the responsibilities of the judging rows, then of all rows; nats.
    clusters : (K, d + 2) float64
        Over the rows with label k: sums of 1, y, |y|^2.
    """
    d, K, F = tiles.shape[1], theta.shape[0], theta.shape[1]
    phi, density = np.empty((F, TILE_ROWS)), np.empty((K, TILE_ROWS))
    highest, total, common = np.empty(TILE_ROWS), np.empty(TILE_ROWS), np.empty(TILE_ROWS)
    weighted, label = np.empty(TILE_ROWS), np.empty(TILE_ROWS, np.int64)
    criteria, clusters = np.zeros(4), np.zeros((K, d + 2))
    for t in range(tiles.shape[0]):
        _fill_features(kind, tiles[t], phi)
        np.dot(theta, phi, density)
        _label(density, highest, label)
        total[:] = 0.0
        weighted[:] = 0.0
        for k in range(K):
            for r in range(TILE_ROWS):
                below = density[k, r] - highest[r]
                share = _exp(below)
                total[r] += share
                weighted[r] += share * below
        _shared_term(kind, tiles[t], shared, common)
        for r in range(TILE_ROWS):
            weighted[r] /= total[r]
        for i in range(2):
            rows = weight[t] if i else judging[t]
            logs = _sum_of_logs(total, rows)
            criteria[2 * i] += logs + (_weighted_sum(highest, rows) + _weighted_sum(common, rows))
            criteria[2 * i + 1] += logs - _weighted_sum(weighted, rows)
        _add_to_clusters(tiles[t], weight[t], label, clusters)
    return criteria, clusters


@_compiled
def _label(density: Float64, highest: Float64, label: npt.NDArray[np.int64]) -> None:
    """Largest log density of every row, and its component: the lower one of a tie."""
    highest[:] = density[0]
    label[:] = 0
    for k in range(1, density.shape[0]):
        for r in range(TILE_ROWS):
            is_higher = density[k, r] > highest[r]
            highest[r] = density[k, r] if is_higher else highest[r]
            label[r] = k if is_higher else label[r]


@_compiled
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


@_compiled
def silhouette(tiles: Float64, weight: Float64, kind: int, theta: Float64, clusters: Float64) -> float:
    """Sum over rows of the silhouette in squared Euclidean distance, exact in O(K d) a row.

    The mean squared distance of a row to a cluster is |y|^2 - 2 y.m + q, with m the cluster's mean and q the mean of
    its |y|^2: one matrix product for all clusters (as in Spark's ClusteringEvaluator).

    Parameters
    ----------
    tiles, weight, kind, theta
        As ``expectation``.
    clusters : (K, d + 2) float64
        ``score``'s, summed over all rows.
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
        _fill_features(kind, tiles[t], phi)
        np.dot(theta, phi, density)
        _label(density, highest, label)
        _fill_features(_SPHERICAL, tiles[t], linear)
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
        total += _weighted_sum(result, weight[t])
    return total


@_compiled
def responsibilities(
    tiles: Float64, weight: Float64, kind: int, theta: Float64, shared: Float64
) -> tuple[Float64, Float64]:
    """Responsibilities and log density of every row; parameters as ``expectation``.

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
        _fill_features(kind, tiles[t], phi)
        np.dot(theta, phi, density)
        _highest(density, highest)
        exponentials(density, highest, total)
        _shared_term(kind, tiles[t], shared, common)
        for r in range(TILE_ROWS):
            if weight[t, r] > 0.0:
                row = t * TILE_ROWS + r
                log_density[row] = highest[r] + np.log(total[r]) + common[r]
                for k in range(K):
                    responsibility[row, k] = density[k, r] / total[r]
    return responsibility, log_density


@_compiled
def label_sums(tiles: Float64, weight: Float64, kind: int, labels: npt.NDArray[np.int32], sums: Float64) -> None:
    """Add to ``sums`` (K, F) what ``expectation`` would sum for responsibilities of 0 and 1, given as labels (n,)."""
    phi = np.empty((sums.shape[1], TILE_ROWS))
    for t in range(tiles.shape[0]):
        _fill_features(kind, tiles[t], phi)
        for r in range(min(TILE_ROWS, labels.shape[0] - t * TILE_ROWS)):
            if weight[t, r] > 0.0:
                for f in range(sums.shape[1]):
                    sums[labels[t * TILE_ROWS + r], f] += phi[f, r]
