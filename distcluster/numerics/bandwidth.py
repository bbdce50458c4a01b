"""How fast a row's weights of its neighbours fall with their distance: UMAP's sigma."""

import numba
import numpy as np
import numpy.typing as npt

from distcluster.numerics.powers import exp2

Float32 = npt.NDArray[np.float32]

SIGMA_FLOOR = 1e-3  # in mean neighbour distances: umap-learn's MIN_K_DIST_SCALE
_TOLERANCE = 1e-5  # of the sum of weights: umap-learn's SMOOTH_K_TOLERANCE
_BISECTIONS = 64

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def set_weights(distance: Float32, sigma: np.float32, weight: Float32) -> None:
    """Sets ``weight`` (k,) to exp(-distance / sigma)."""
    rate = np.float32(-1.4426950408889634) / sigma  # log2 e
    for j in range(distance.shape[0]):
        weight[j] = exp2(distance[j] * rate)


@_compiled
def bandwidth(distance: Float32, first: int, target: np.float32, floor: np.float32, weight: Float32) -> np.float32:
    """Sigma with sum_{j >= first} exp(-d_j / sigma) = target, by umap-learn's bisection, but at least ``floor``.

    ``weight`` (k,) is scratch.
    """
    low, high, sigma = np.float32(0.0), np.float32(np.inf), np.float32(1.0)
    for _ in range(_BISECTIONS):
        set_weights(distance, sigma, weight)
        total = np.float32(0.0)
        for j in range(first, distance.shape[0]):
            total += weight[j]
        if abs(total - target) < np.float32(_TOLERANCE):
            break
        if total > target:
            high = sigma
            sigma = (low + high) / np.float32(2.0)
        else:
            low = sigma
            sigma = sigma * np.float32(2.0) if high == np.float32(np.inf) else (low + high) / np.float32(2.0)
    return max(sigma, floor)
