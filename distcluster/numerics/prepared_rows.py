"""Rows as the models see them: of unit length, in a basis of principal components, each one once."""

import numba
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


@numba.njit(cache=True, nogil=True)
def normalise(rows: Float32) -> Float32:
    """Rows scaled to unit length, each by itself.

    Parameters
    ----------
    rows : (n, D) float32, no row all zero

    Returns
    -------
    (n, D) float32
    """
    result = np.empty_like(rows)
    for i in range(rows.shape[0]):
        square = 0.0
        for j in range(rows.shape[1]):
            square += np.float64(rows[i, j]) * np.float64(rows[i, j])
        scale = 1.0 / np.sqrt(square)
        for j in range(rows.shape[1]):
            result[i, j] = rows[i, j] * scale
    return result


def prepare(rows: Float32, metric: str) -> Float32:
    """Rows as the index sees them: unit length under cosine, unchanged under euclidean.

    On unit vectors the Euclidean distance orders rows as the cosine distance does, and is accurate for close rows,
    where 1 - cos is not.

    Examples
    --------
    >>> prepare(np.array([[3.0, 4.0]], np.float32), "cosine").astype(str).tolist()
    [['0.6', '0.8']]
    """
    return normalise(rows) if metric == "cosine" else rows


@numba.njit(cache=True, nogil=True)
def principal(rows: Float32, mean: Float32, components: Float32) -> Float32:
    """Rows in the basis of principal components, each by itself; without components, the rows less their mean.

    Parameters
    ----------
    rows : (n, D) float32, prepared
    mean : (D,) float32
    components : (D, P) float32

    Returns
    -------
    (n, P) float32
    """
    if components.shape[1] == 0:
        return rows - mean
    result = np.zeros((rows.shape[0], components.shape[1]), np.float32)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = rows[i, j] - mean[j]
            for p in range(components.shape[1]):
                result[i, p] += value * components[j, p]
    return result


def distinct_rows(sample: Float32) -> npt.NDArray[np.int64]:
    """Positions of the first of each group of equal rows, ascending.

    Parameters
    ----------
    sample : (n, D) float32

    Returns
    -------
    (S,) int64

    Examples
    --------
    >>> distinct_rows(np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0]], np.float32)).tolist()
    [0, 1]
    """
    keys = np.ascontiguousarray(sample).view(np.dtype((np.void, sample.shape[1] * sample.itemsize)))[:, 0]
    _, first = np.unique(keys, return_index=True)
    return np.sort(first)
