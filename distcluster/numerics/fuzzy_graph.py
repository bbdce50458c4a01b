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


def breadth_first(graph: csr_matrix) -> tuple[Int32, csr_matrix]:
    """The rows in the order in which a search from the first finds them, and the graph over them in that order.

    Neighbours come to lie near each other in memory: what visits the neighbours of row after row finds most of their
    values in the cache, which holds a part of a large sample's.

    Parameters
    ----------
    graph : (S, S) float32
        Symmetric.

    Returns
    -------
    rows : (S,) int32
    graph : (S, S) float32
        Its columns sorted in every row.

    Examples
    --------
    >>> ring = csr_matrix(np.roll(np.eye(5, dtype=np.float32), 1, axis=0))
    >>> rows, graph = breadth_first(ring + ring.T)
    >>> rows.tolist(), graph.indices.tolist()
    ([0, 1, 4, 2, 3], [1, 2, 0, 3, 0, 4, 1, 4, 2, 3])
    """
    rows = np.empty(graph.shape[0], np.int32)
    _search(graph.indptr, graph.indices, rows)
    found = np.empty_like(rows)
    found[rows] = np.arange(len(rows), dtype=np.int32)
    ordered = graph[rows]
    ordered = csr_matrix((ordered.data, found[ordered.indices], ordered.indptr), graph.shape)
    ordered.sort_indices()
    return rows, ordered


_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _search(starts: Int32, tails: Int32, rows: Int32) -> None:
    """Sets ``rows`` (S,): breadth first from the first row that was not found yet."""
    is_found, n_found, visited = np.zeros(len(rows), np.bool_), 0, 0
    for first in range(len(rows)):
        if not is_found[first]:
            is_found[first], rows[n_found] = True, first
            n_found += 1
        while visited < n_found:
            row = rows[visited]
            visited += 1
            for edge in range(starts[row], starts[row + 1]):
                tail = tails[edge]
                if not is_found[tail]:
                    is_found[tail], rows[n_found] = True, tail
                    n_found += 1


@_compiled
def _set_memberships(distance: Float32, target: np.float32, floor: np.float32, membership: Float32) -> None:
    """Sets ``membership`` (n, k)."""
    n, k = distance.shape
    beyond = np.empty(k, np.float32)
    for i in range(n):
        for j in range(k):
            beyond[j] = distance[i, j] - distance[i, 0]
        set_weights(beyond, bandwidth(beyond, 0, target, floor, membership[i]), membership[i])
