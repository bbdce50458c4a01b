"""The support of a row: how well the sample represents it."""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

BEYOND_LIMIT = 0.001
"""Share of rows that lie beyond ``support_limit`` when the sample represents them."""


LOW = 0.3
"""Below, the nearest sample row is close and its k-th neighbour far: the row's group has fewer than k in the sample."""


def local_scale(distance: Float32) -> Float32:
    """How far apart the sample lies around each of its rows: the distance to the k-th nearest other row.

    Parameters
    ----------
    distance : (S, k) float32
        ``nearest`` of the sample in itself.

    Returns
    -------
    (S,) float32, positive
    """
    return np.maximum(distance[:, -1], np.finfo(np.float32).tiny)


def support(index: Int32, distance: Float32, scale: Float32) -> Float32:
    """Distance to the nearest sample row over that row's own local scale.

    Above 1 a row lies farther from the sample than the sample's rows lie from their k-th neighbour there: the sample
    hardly represents it.

    Parameters
    ----------
    index, distance : (n, k) int32, float32
    scale : (S,) float32

    Returns
    -------
    (n,) float32

    Examples
    --------
    A row three units from the nearest sample row, where the sample's rows lie 1.5 units from their k-th neighbour:

    >>> scale = np.array([2.0, 1.5], np.float32)
    >>> support(np.array([[1, 0]], np.int32), np.array([[3.0, 4.0]], np.float32), scale).tolist()
    [2.0]
    """
    return np.asarray(distance[:, 0] / scale[index[:, 0]], np.float32)


def support_limit(index: Int32, distance: Float32, scale: Float32) -> float:
    """The support that one in a thousand of the sample's own rows exceeds: other rows should not do so more often.

    Parameters
    ----------
    index, distance : (S, k) int32, float32
        ``nearest`` of the sample in itself.
    scale : (S,) float32
        ``local_scale`` of the same.
    """
    return float(np.quantile(support(index, distance, scale), 1.0 - BEYOND_LIMIT, method="higher"))
