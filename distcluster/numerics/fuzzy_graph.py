"""UMAP's graph: how surely each row of the sample is a neighbour of another."""

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from distcluster.numerics.bandwidth import SIGMA_FLOOR, bandwidth, set_weights

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def fuzzy_graph(index: Int32, distance: Float32) -> csr_matrix:
    """The symmetric graph over the sample (McInnes, Healy, Melville 2018, algorithms 2 and 3).

    A row belongs to its neighbours' set by exp(-(d - rho) / sigma), rho the distance of its nearest neighbour and sigma
    such that the memberships of its k - 1 nearest sum to log2 k (umap-learn counts the row itself among the k). Two
    rows are neighbours by the probabilistic sum p + q - p q of both directions.

    Parameters
    ----------
    index, distance : (S, k) int32, float32
        Nearest sample rows of each sample row, itself left out, ascending.

    Returns
    -------
    (S, S) float32
        Its columns sorted in every row.

    Examples
    --------
    >>> index = np.array([[1, 2], [0, 2], [1, 0]], np.int32)
    >>> distance = np.array([[1.0, 3.0], [1.0, 2.0], [2.0, 3.0]], np.float32)
    >>> fuzzy_graph(index, distance).toarray().round(3).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    index, distance = index[:, :-1], np.ascontiguousarray(distance[:, :-1])
    n, k = index.shape
    membership = np.empty((n, k), np.float32)
    _set_memberships(distance, np.float32(np.log2(k + 1)), np.float32(SIGMA_FLOOR * distance.mean()), membership)
    starts = np.arange(0, n * k + 1, k)
    directed = csr_matrix((membership.ravel(), index.ravel(), starts), (n, n))
    directed.sort_indices()
    back = directed.T.tocsr()
    graph = (directed + back - directed.multiply(back)).tocsr()
    graph.sort_indices()
    return graph


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _set_memberships(distance: Float32, target: np.float32, floor: np.float32, membership: Float32) -> None:
    """Sets ``membership`` (n, k)."""
    n, k = distance.shape
    beyond = np.empty(k, np.float32)
    for i in range(n):
        for j in range(k):
            beyond[j] = distance[i, j] - distance[i, 0]
        set_weights(beyond, bandwidth(beyond, 0, target, floor, membership[i]), membership[i])
