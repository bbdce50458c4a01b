"""UMAP's forces on one place, in whole vectors and in one order of additions: the fit's and the projection's."""

import numba
import numpy as np
import numpy.typing as npt

from distcluster.numerics.powers import exp2, log2

Float32 = npt.NDArray[np.float32]

LANES = 8
"""Sums of so many lanes are folded once: an order that has vectors, and is always the same."""

# No "fastmath": see pairwise_sum. Loops without sums have vectors all the same, once no division can raise.
compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@compiled
def add_squares(here: Float32, there: Float32, width: int, squares: Float32) -> None:
    """Adds to ``squares`` the squared distances from a place (d,) to ``width`` places (d, m)."""
    for c in range(len(here)):
        for p in range(width):
            difference = here[c] - there[c, p]
            squares[p] += difference * difference


@compiled
def attract(strength: Float32, share: Float32, width: int, a: np.float32, b: np.float32) -> None:
    """Makes the pulls of neighbours, a unit of distance and of 2 a b, of their squared distances x.

    A pull is share x^(b - 1) / (1 + a x^b).
    """
    for j in range(width):
        power = exp2(b * log2(strength[j]))
        strength[j] = share[j] * power / (strength[j] * (np.float32(1.0) + a * power))


@compiled
def repel(strength: Float32, a: np.float32, b: np.float32) -> None:
    """Makes the pushes of others, a unit of distance and of 2 b, of their squared distances x.

    A push is 1 / ((0.001 + x) (1 + a x^b)).
    """
    for p in range(len(strength)):
        power = exp2(b * log2(strength[p]))
        strength[p] = np.float32(1.0) / ((np.float32(0.001) + strength[p]) * (np.float32(1.0) + a * power))


@compiled
def total_of(terms: Float32, lanes: Float32, width: int) -> np.float32:
    """The sum of whole vectors; ``lanes`` is scratch."""
    for j in range(LANES):
        lanes[j] = np.float32(0.0)
    for p in range(0, width, LANES):
        for j in range(LANES):
            lanes[j] += terms[p + j]
    return np.float32(_folded(lanes))


@compiled
def total_pull(here: np.float32, there: Float32, strength: Float32, lanes: Float32, width: int) -> np.float32:
    """The sum of strength (here - there), in the order of ``total_of``."""
    for j in range(LANES):
        lanes[j] = np.float32(0.0)
    for p in range(0, width, LANES):
        for j in range(LANES):
            lanes[j] += strength[p + j] * (here - there[p + j])
    return np.float32(_folded(lanes))


@compiled
def _folded(lanes: Float32) -> np.float32:
    low, high = (lanes[0] + lanes[4]) + (lanes[2] + lanes[6]), (lanes[1] + lanes[5]) + (lanes[3] + lanes[7])
    return np.float32(low + high)
