"""Tiles of 1,024 rows, and their quadratic features.

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

import numba
import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, CovarianceType

Float64 = npt.NDArray[np.float64]

TILE_ROWS = 1024
"""Rows of a tile: its features and densities stay in a processor's own cache."""

SPHERICAL, DIAG, TIED, FULL = range(4)
"""What the compiled loops call the covariance types, in the order of ``COVARIANCE_TYPES``."""
KIND: dict[CovarianceType, int] = dict(zip(COVARIANCE_TYPES, (SPHERICAL, DIAG, TIED, FULL), strict=True))
"""The same by name."""


def n_features(covariance_type: CovarianceType, d: int) -> int:
    """F, the length of phi."""
    return {"spherical": d + 2, "diag": 2 * d + 1, "tied": d + 1, "full": 1 + d + d * (d + 1) // 2}[covariance_type]


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

    Examples
    --------
    >>> tiles, weight = make_tiles(np.ones((1500, 3)), np.ones(1500, bool), np.zeros(3))
    >>> tiles.shape, weight.sum(axis=1).tolist()
    ((2, 3, 1024), [1024.0, 476.0])
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


# No "fastmath", not even fused multiply-adds: a kernel must give the same bits compiled here or read from numba's cache
# (decision 8). A division by zero is infinite and does not branch.
compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
"""How every loop over tiles is compiled; callers of a loop in another module are not compiled again when it changes."""


@compiled
def fill_features(kind: int, y: Float64, phi: Float64) -> None:
    """Set ``phi`` (F, 1024) to the features of a tile (d, 1024)."""
    d = y.shape[0]
    phi[0] = 1.0
    phi[1 : d + 1] = y
    if kind == SPHERICAL:
        phi[d + 1] = 0.0
        for i in range(d):
            for r in range(TILE_ROWS):
                phi[d + 1, r] += y[i, r] * y[i, r]
    elif kind == DIAG:
        for i in range(d):
            for r in range(TILE_ROWS):
                phi[d + 1 + i, r] = y[i, r] * y[i, r]
    elif kind == FULL:
        f = d + 1
        for i in range(d):
            for j in range(i, d):
                for r in range(TILE_ROWS):
                    phi[f, r] = y[i, r] * y[j, r]
                f += 1
