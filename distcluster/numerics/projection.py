"""The projection of any row among the anchors, as a function of the row and the model alone."""

import numpy as np
import numpy.typing as npt

from distcluster.numerics.bandwidth import SIGMA_FLOOR, bandwidth, set_weights
from distcluster.numerics.forces import LANES, add_squares, attract, compiled, total_pull
from distcluster.numerics.repulsion import parts_of, repulsion

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_STEPS = 60  # of the descent; 200 change 0.2 % of labels
_FIELD_EVERY = 5  # steps between two evaluations of the repulsion, which varies slowly
_NEGATIVE_SAMPLES = 5  # umap-learn's negative_sample_rate
_LEARNING_RATE = 0.25  # UMAP.transform starts at a quarter of the fit's 1.0

_TOGETHER = 8  # rows that a kernel moves at a time


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
    field : float32
        ``repulsion_field`` or ``view_field`` of the anchors.
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

    >>> from distcluster.numerics.repulsion import repulsion_field
    >>> anchors = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    >>> index = np.array([[3, 5, 8], [3, 5, 8], [-1, -1, -1]], np.int32)
    >>> distance = np.array([[0.1, 0.2, 0.4], [0.1, 0.2, 0.4], [np.nan] * 3], np.float32)
    >>> field = repulsion_field(anchors)
    >>> found = project(index, distance, anchors, field, a=1.58, b=0.9, mean_distance=0.3)
    >>> bool((found[0] == found[1]).all()), np.isnan(found).any(axis=1).tolist()
    (True, [False, False, True])
    """
    result = np.empty((len(index), anchors.shape[1]), np.float32)
    _project(
        index, distance, anchors, *parts_of(field, anchors.shape[1]), np.float32(a), np.float32(b),
        np.float32(SIGMA_FLOOR * mean_distance), result,
    )  # fmt: skip
    return result


@compiled
def _gather(
    index: Int32,
    distance: Float32,
    anchors: Float32,
    floor: np.float32,
    near: Float32,
    weight: Float32,
    place: Float32,
) -> np.float32:
    """Sets a row's neighbours' places (d, width), their weights and the row's start; gives the sum of the weights."""
    k = len(index)
    # The nearest is left out of the sum, as in umap-learn.
    set_weights(distance, bandwidth(distance, 1, np.float32(np.log2(k)), floor, weight), weight)
    total = np.float32(0.0)
    for j in range(k):
        total += weight[j]
    for c in range(len(place)):
        start = np.float32(0.0)
        for j in range(k):
            near[c, j] = anchors[index[j], c]
            start += weight[j] * near[c, j]
        place[c] = start / total
    return total


@compiled
def _project(
    index: Int32,
    distance: Float32,
    anchors: Float32,
    groups: Float32,
    boxes: Float32,
    a: np.float32,
    b: np.float32,
    floor: np.float32,
    result: Float32,
) -> None:
    n, k = index.shape
    d = anchors.shape[1]
    width = -(-k // LANES) * LANES  # whole vectors; what is beyond k weighs nothing
    # Rows go together because one row alone waits for each step's results; none sees another.
    near, weight = np.zeros((_TOGETHER, d, width), np.float32), np.zeros((_TOGETHER, width), np.float32)
    pull, lanes = np.empty((_TOGETHER, width), np.float32), np.empty(LANES, np.float32)
    scratch = np.empty((2, groups.shape[1]), np.float32)
    place, pushed = np.zeros((_TOGETHER, d), np.float32), np.zeros((_TOGETHER, d), np.float32)
    scale = np.zeros(_TOGETHER, np.float32)
    push_scale, pull_scale = np.float32(2 * _NEGATIVE_SAMPLES) * b, np.float32(2.0) * a * b
    closest = np.float32(1e-12)  # squared: a place on its anchor has no direction, and must not divide by zero
    for first in range(0, n, _TOGETHER):
        some = min(_TOGETHER, n - first)
        for r in range(some):
            if index[first + r, 0] >= 0:
                scale[r] = push_scale * _gather(
                    index[first + r], distance[first + r], anchors, floor, near[r], weight[r], place[r]
                )
        for step in range(_STEPS):
            if step % _FIELD_EVERY == 0:
                for r in range(some):
                    repulsion(place[r], groups, boxes, a, b, scratch, pushed[r])
            for r in range(some):
                pull[r, :] = closest
                add_squares(place[r], near[r], width, pull[r])
            attract(pull.ravel(), weight.ravel(), _TOGETHER * width, a, b)
            rate = np.float32(_LEARNING_RATE) * (np.float32(1.0) - np.float32(step) / np.float32(_STEPS))
            for r in range(some):
                for c in range(d):
                    force = scale[r] * pushed[r, c]
                    force -= pull_scale * total_pull(place[r, c], near[r, c], pull[r], lanes, width)
                    place[r, c] += rate * force
        for r in range(some):
            for c in range(d):
                result[first + r, c] = place[r, c] if index[first + r, 0] >= 0 else np.float32(np.nan)
