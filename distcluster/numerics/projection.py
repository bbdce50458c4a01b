"""The projection of any row among the anchors, as a function of the row and the model alone."""

import numba
import numpy as np
import numpy.typing as npt

from distcluster.numerics.bandwidth import SIGMA_FLOOR, bandwidth, set_weights
from distcluster.numerics.neighbors import pairwise_sum
from distcluster.numerics.powers import exp2, log2

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_STEPS = 60  # of the descent; 200 change 0.2 % of labels
_FIELD_EVERY = 5  # steps between two evaluations of the repulsion, which varies slowly
_FIELD_DEPTH = 9  # 2^9 = 512 groups of anchors; the sum over all of 30,000 changes 0.6 % of labels, as noise does 4 %
_FIELD_SOFTENING = 0.6  # of a group's mean squared radius, best of 0, 0.3, 0.6 and 1 against the sum over all anchors
_NEGATIVE_SAMPLES = 5  # umap-learn's negative_sample_rate
_LEARNING_RATE = 0.25  # UMAP.transform starts at a quarter of the fit's 1.0

_LANES = 16


def repulsion_field(anchors: Float32) -> Float32:
    """The anchors as at most 512 groups of about equal size, whose repulsion approximates that of all.

    A balanced k-d tree: halves at the median of the widest coordinate.

    Parameters
    ----------
    anchors : (S, d) float32

    Returns
    -------
    (d + 2, m) float32
        Each group's mean, the softening of its squared distances, and its share of the anchors.

    Examples
    --------
    >>> anchors = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    >>> field = repulsion_field(anchors)
    >>> field.shape, round(float(field[-1].sum()), 3)  # a mean of two numbers, a softening and a share for each group
    ((4, 512), 1.0)
    """
    groups = [np.arange(len(anchors))]
    while len(groups) < 2**_FIELD_DEPTH and 2 * len(groups) <= len(anchors):
        groups = [half for group in groups for half in _halves(anchors, group)]
    means = [anchors[group].mean(axis=0, dtype=np.float64) for group in groups]
    spread = [np.square(anchors[group] - mean).sum(axis=1).mean() for group, mean in zip(groups, means, strict=True)]
    share = np.array([len(group) for group in groups]) / len(anchors)
    return np.ascontiguousarray(np.vstack([np.transpose(means), _FIELD_SOFTENING * np.array(spread), share]), "f4")


def _halves(anchors: Float32, group: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    widest = np.argmax(np.ptp(anchors[group], axis=0))
    order = group[np.argsort(anchors[group, widest], kind="stable")]
    return [order[: len(group) // 2], order[len(group) // 2 :]]


def project(
    index: Int32,
    distance: Float32,
    anchors: Float32,
    field: Float32,
    *,
    a: float,
    b: float,
    mean_distance: float,
) -> Float32:
    """Coordinates of rows among the anchors: where the forces of ``UMAP.transform`` balance, one row at a time.

    The anchors do not move, so rows do not act on each other. umap-learn samples one edge and five anchors at a time
    (McInnes, Healy, Melville 2018, algorithm 5); a row here follows the mean of those samples, from the same start and
    with the same falling step: no random numbers, so no noise, and equal rows get equal coordinates in any batch.

    Parameters
    ----------
    index, distance : (n, k) int32, float32
        Nearest sample rows, ascending; a row of -1 and NaN (an invalid row) gets NaN.
    anchors : (S, d) float32
    field : (d + 2, m) float32
        ``repulsion_field`` of the anchors.
    a, b : float
        ``curve_parameters``.
    mean_distance : float
        Mean over the sample's own neighbour distances; bounds the bandwidth from below.

    Returns
    -------
    (n, d) float32

    Examples
    --------
    Equal rows get equal coordinates, an invalid one none:

    >>> anchors = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    >>> index = np.array([[3, 5, 8], [3, 5, 8], [-1, -1, -1]], np.int32)
    >>> distance = np.array([[0.1, 0.2, 0.4], [0.1, 0.2, 0.4], [np.nan] * 3], np.float32)
    >>> found = project(index, distance, anchors, repulsion_field(anchors), a=1.58, b=0.9, mean_distance=0.3)
    >>> bool((found[0] == found[1]).all()), np.isnan(found).any(axis=1).tolist()
    (True, [False, False, True])
    """
    result = np.empty((len(index), anchors.shape[1]), np.float32)
    _project(
        index, distance, anchors, field, np.float32(a), np.float32(b),
        np.float32(SIGMA_FLOOR * mean_distance), result,
    )  # fmt: skip
    return result


# No "fastmath": see pairwise_sum. Loops without sums have vectors all the same, once no division can raise.
_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _repulsion(place: Float32, field: Float32, a: np.float32, b: np.float32, push: Float32, force: Float32) -> None:
    """Sets ``force`` (d,) to the sum over groups of share (place - mean) / ((0.001 + x) (1 + a x^b)).

    x is the squared distance, softened.

    ``push`` (2, m) is scratch.
    """
    d, m = field.shape[0] - 2, field.shape[1]
    softening, share = field[d], field[d + 1]
    strength, terms = push[0], push[1]
    for p in range(m):
        strength[p] = softening[p]
    for c in range(d):
        here = place[c]
        for p in range(m):
            difference = here - field[c, p]
            strength[p] += difference * difference
    for p in range(m):
        square = strength[p]
        power = exp2(b * log2(square))
        strength[p] = share[p] / ((np.float32(0.001) + square) * (np.float32(1.0) + a * power))
    for c in range(d):
        here = place[c]
        for p in range(m):
            terms[p] = strength[p] * (here - field[c, p])
        force[c] = pairwise_sum(terms, m)


@_compiled
def _add_attraction(
    place: Float32, near: Float32, weight: Float32, a: np.float32, b: np.float32, pull: Float32, force: Float32
) -> None:
    """Adds to ``force`` (d,) the sum over neighbours of -2 a b weight x^(b-1) / (1 + a x^b) (place - neighbour).

    ``pull`` (k,) is scratch.
    """
    d, k = near.shape
    for j in range(k):
        pull[j] = np.float32(1e-12)  # a place on its anchor has no direction, and must not divide by zero
    for c in range(d):
        here = place[c]
        for j in range(k):
            difference = here - near[c, j]
            pull[j] += difference * difference
    for j in range(k):
        square = pull[j]
        power = exp2(b * log2(square))
        pull[j] = weight[j] * power / (square * (np.float32(1.0) + a * power))
    for c in range(d):
        here = place[c]
        total = np.float32(0.0)
        for j in range(k):
            total += pull[j] * (here - near[c, j])
        force[c] -= np.float32(2.0) * a * b * total


@_compiled
def _project(
    index: Int32,
    distance: Float32,
    anchors: Float32,
    field: Float32,
    a: np.float32,
    b: np.float32,
    floor: np.float32,
    result: Float32,
) -> None:
    n, k = index.shape
    d, m = anchors.shape[1], field.shape[1]
    width = -(-k // _LANES) * _LANES  # whole vectors; what is beyond k weighs nothing
    near = np.zeros((d, width), np.float32)
    weight = np.zeros(width, np.float32)
    pull = np.empty(width, np.float32)
    push = np.empty((2, m), np.float32)
    place = np.empty(d, np.float32)
    repulsion = np.empty(d, np.float32)
    force = np.empty(d, np.float32)
    target = np.float32(np.log2(k))
    for i in range(n):
        if index[i, 0] < 0:
            result[i] = np.nan
            continue
        # The nearest is left out of the sum, as in umap-learn.
        set_weights(distance[i], bandwidth(distance[i], 1, target, floor, weight), weight)
        total = np.float32(0.0)
        for j in range(k):
            total += weight[j]
        for c in range(d):
            start = np.float32(0.0)
            for j in range(k):
                near[c, j] = anchors[index[i, j], c]
                start += weight[j] * near[c, j]
            place[c] = start / total

        scale = np.float32(2 * _NEGATIVE_SAMPLES) * b * total
        for step in range(_STEPS):
            if step % _FIELD_EVERY == 0:
                _repulsion(place, field, a, b, push, repulsion)
            for c in range(d):
                force[c] = scale * repulsion[c]
            _add_attraction(place, near, weight, a, b, pull, force)
            rate = np.float32(_LEARNING_RATE) * (np.float32(1.0) - np.float32(step) / np.float32(_STEPS))
            for c in range(d):
                place[c] += rate * force[c]
        for c in range(d):
            result[i, c] = place[c]
