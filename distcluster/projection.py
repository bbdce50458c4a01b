"""Fit UMAP on the sample; project any row, as a function of the row and the model alone."""

import warnings

import numba
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_TRANSFORM_EPOCHS = 100  # umap-learn takes 100 or 30, by the size of the batch; 100 has less noise
_NEGATIVE_SAMPLES = 5  # umap-learn's negative_sample_rate
_LEARNING_RATE = 0.25  # UMAP.transform starts at a quarter of the fit's 1.0
_SIGMA_TOLERANCE = 1e-5  # umap-learn's SMOOTH_K_TOLERANCE
_SIGMA_FLOOR = 1e-3  # umap-learn's MIN_K_DIST_SCALE


def fit_anchors(
    sample: Float32,
    index: Int32,
    distance: Float32,
    *,
    n_components: int,
    metric: str,
    min_dist: float,
    n_epochs: int | None,
    seed: int,
) -> Float32:
    """Coordinates of the sample rows: UMAP's own fit, from the neighbours that are already known.

    Parameters
    ----------
    sample : (S, D) float32, prepared, distinct rows
    index, distance : (S, k) int32, float32
        Nearest sample rows of each sample row, itself left out.
    n_components : int
        d.
    metric, min_dist, n_epochs, seed
        UMAP's ``metric``, ``min_dist``, ``n_epochs`` and ``random_state``.

    Returns
    -------
    (S, d) float32
    """
    # umap-learn compiles for seconds on import; only the task that fits needs it.
    from umap import UMAP

    itself = np.arange(len(sample), dtype=np.int32)[:, None]
    model = UMAP(
        n_neighbors=index.shape[1],
        n_components=n_components,
        metric=metric,
        min_dist=min_dist,
        n_epochs=n_epochs,
        random_state=seed,
        n_jobs=1,
        precomputed_knn=(
            np.hstack([itself, index[:, :-1]]),
            np.hstack([np.zeros_like(distance[:, :1]), distance[:, :-1]]),
        ),
        force_approximation_algorithm=True,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="precomputed_knn\\[2\\]")  # its transform is not used
        warnings.filterwarnings("ignore", message=".*[Ss]pectral initiali[sz]ation.*")  # it falls back by itself
        warnings.filterwarnings("ignore", message="Graph is not fully connected")  # nothing to mend
        anchors = model.fit_transform(sample)
    return np.ascontiguousarray(anchors, np.float32)


def curve_parameters(min_dist: float) -> tuple[float, float]:
    """UMAP's a and b: the low-dimensional similarity is 1 / (1 + a x^2b) (McInnes, Healy, Melville 2018, 3.2)."""
    from umap.umap_ import find_ab_params

    a, b = find_ab_params(1.0, min_dist)
    return float(a), float(b)


def transform_epochs(n_epochs: int | None) -> int:
    """Epochs of one row's layout: a third of the fit's, as in umap-learn, but never by the size of a batch."""
    return _TRANSFORM_EPOCHS if n_epochs is None else max(1, n_epochs // 3)


def project(
    index: Int32,
    distance: Float32,
    anchors: Float32,
    *,
    a: float,
    b: float,
    mean_distance: float,
    n_epochs: int,
    seed: int,
) -> Float32:
    """Coordinates of rows among the anchors: the objective of ``UMAP.transform``, one row at a time.

    The anchors do not move, so rows do not act on each other. The random numbers are keyed by the seed and the row's
    neighbours with their distances, which its content determines: equal rows get equal coordinates in any batch.

    Parameters
    ----------
    index, distance : (n, k) int32, float32
        Nearest sample rows, ascending; a row of -1 and NaN (an invalid row) gets NaN.
    anchors : (S, d) float32
    a, b : float
        ``curve_parameters``.
    mean_distance : float
        Mean over the sample's own neighbour distances; bounds the bandwidth from below.
    n_epochs, seed : int

    Returns
    -------
    (n, d) float32
    """
    result = np.empty((len(index), anchors.shape[1]), np.float32)
    _project(index, distance, anchors, a, b, mean_distance, n_epochs, seed, result)
    return result


@numba.njit(cache=True, nogil=True)
def _mix(value: np.uint64) -> np.uint64:
    value += np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _bandwidth(distance: Float32, mean_distance: float) -> float:
    """Sigma with sum_{j>0} exp(-d_j / sigma) = log2 k, by umap-learn's bisection (the nearest is left out there)."""
    k = distance.shape[0]
    target = np.log2(float(k))
    low, high, sigma = 0.0, np.inf, 1.0
    for _ in range(64):
        total = 0.0
        for j in range(1, k):
            total += np.exp(-distance[j] / sigma)
        if abs(total - target) < _SIGMA_TOLERANCE:
            break
        if total > target:
            high = sigma
            sigma = (low + high) / 2.0
        else:
            low = sigma
            sigma = sigma * 2.0 if high == np.inf else (low + high) / 2.0
    return max(sigma, _SIGMA_FLOOR * mean_distance)


@numba.njit(cache=True, nogil=True)
def _clip(value: float) -> float:
    return min(4.0, max(-4.0, value))


@numba.njit(cache=True, nogil=True)
def _project(
    index: Int32,
    distance: Float32,
    anchors: Float32,
    a: float,
    b: float,
    mean_distance: float,
    n_epochs: int,
    seed: int,
    result: Float32,
) -> None:
    n, k = index.shape
    n_anchors, d = anchors.shape
    distance_bits = distance.view(np.uint32)
    weight = np.empty(k)
    next_sample = np.empty(k)
    next_negative = np.empty(k)
    place = np.empty(d)
    for i in range(n):
        if index[i, 0] < 0:
            result[i] = np.nan
            continue
        state = _mix(np.uint64(seed))
        for j in range(k):
            state = _mix(state ^ (np.uint64(index[i, j]) << np.uint64(32) | np.uint64(distance_bits[i, j])))

        sigma = _bandwidth(distance[i], mean_distance)
        total = 0.0
        for j in range(k):
            weight[j] = np.exp(-distance[i, j] / sigma)
            total += weight[j]
        place[:] = 0.0
        for j in range(k):
            for c in range(d):
                place[c] += weight[j] / total * anchors[index[i, j], c]

        # An edge of weight w takes part in every 1/w-th epoch; one that never would is left out.
        for j in range(k):
            next_sample[j] = 1.0 / weight[j] if weight[j] >= 1.0 / n_epochs else np.inf
            next_negative[j] = next_sample[j] / _NEGATIVE_SAMPLES
        for epoch in range(n_epochs):
            rate = _LEARNING_RATE * (1.0 - epoch / n_epochs)
            for j in range(k):
                if next_sample[j] > epoch:
                    continue
                anchor = index[i, j]
                square = 0.0
                for c in range(d):
                    square += (place[c] - anchors[anchor, c]) ** 2
                if square > 0.0:
                    power = square**b
                    pull = -2.0 * a * b * power / square / (a * power + 1.0)
                    for c in range(d):
                        place[c] += _clip(pull * (place[c] - anchors[anchor, c])) * rate
                next_sample[j] += 1.0 / weight[j]

                period = 1.0 / weight[j] / _NEGATIVE_SAMPLES
                pushes = int((epoch - next_negative[j]) / period)
                for _ in range(pushes):
                    state = _mix(state)
                    anchor = np.int32(((state >> np.uint64(32)) * np.uint64(n_anchors)) >> np.uint64(32))
                    square = 0.0
                    for c in range(d):
                        square += (place[c] - anchors[anchor, c]) ** 2
                    if square > 0.0:
                        push = 2.0 * b / ((0.001 + square) * (a * square**b + 1.0))
                        for c in range(d):
                            place[c] += _clip(push * (place[c] - anchors[anchor, c])) * rate
                next_negative[j] += pushes * period
        for c in range(d):
            result[i, c] = place[c]
