"""The index over the sample, and the k nearest sample rows of any row."""

from typing import Any

import faiss
import numba
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_LINKS = 32  # links a vertex has in faiss's graph, "M" of Malkov & Yashunin 2016
_BUILD_CANDIDATES = 100  # efConstruction
_SEARCH_CANDIDATES = 96  # efSearch
_SPARE = 8  # candidates beyond k that the exact distances may promote


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
    """
    return normalise(rows) if metric == "cosine" else rows


def build_index(sample: Float32) -> npt.NDArray[np.uint8]:
    """A navigable-small-world graph (HNSW) over the prepared sample, as faiss's bytes.

    Built in one thread: insertions depend on their order. faiss draws the levels from a fixed seed.

    Parameters
    ----------
    sample : (S, D) float32

    Returns
    -------
    (bytes,) uint8
    """
    index: Any = faiss.IndexHNSWFlat(sample.shape[1], _LINKS)
    index.hnsw.efConstruction = _BUILD_CANDIDATES
    index.add(sample)
    return np.asarray(faiss.serialize_index(index))


def open_index(data: npt.NDArray[np.uint8]) -> Any:
    """The faiss index of ``build_index``'s bytes."""
    index: Any = faiss.deserialize_index(data)
    index.hnsw.efSearch = _SEARCH_CANDIDATES
    return index


def nearest(index: Any, sample: Float32, rows: Float32, k: int, metric: str) -> tuple[Int32, Float32]:
    """The k nearest sample rows of each row that are not equal to it.

    The graph proposes, exact distances decide: a row's answer depends on the row and the index alone. Sample rows
    of equal content are left out, so that a row of the sample is treated as any other row, and not drawn to its own
    place. The sample's rows are distinct, so at most one is equal.

    Parameters
    ----------
    index : faiss index of ``open_index``
    sample : (S, D) float32, prepared, distinct rows, S > k
    rows : (n, D) float32, prepared
    k : int
    metric : "cosine" (1 - cos) or "euclidean"

    Returns
    -------
    index : (n, k) int32
        Rows of the sample, by ascending distance, then row.
    distance : (n, k) float32
    """
    _, candidates = index.search(rows, min(k + _SPARE, len(sample)))
    cosine = metric == "cosine"
    found, distance = _rank(candidates, sample, rows, k, cosine)
    # A graph search can get stuck among tight clusters and return too few: those rows are compared with all.
    short = np.flatnonzero(found[:, -1] < 0)
    if len(short):
        every = np.broadcast_to(np.arange(len(sample)), (len(short), len(sample)))
        found[short], distance[short] = _rank(np.ascontiguousarray(every), sample, rows[short], k, cosine)
    return found, distance


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _squared_distance(a: Float32, b: Float32) -> np.float32:
    total = np.float32(0.0)
    for j in range(a.shape[0]):
        difference = a[j] - b[j]
        total += difference * difference
    return total


@numba.njit(cache=True, nogil=True)
def _rank(
    candidates: npt.NDArray[np.int64], sample: Float32, rows: Float32, k: int, cosine: bool
) -> tuple[Int32, Float32]:
    n, width = candidates.shape
    index = np.full((n, k), -1, np.int32)
    distance = np.full((n, k), np.inf, np.float32)
    for i in range(n):
        for c in range(width):
            row = candidates[i, c]
            if row < 0:
                continue
            square = _squared_distance(sample[row], rows[i])
            if square == 0.0:
                continue
            value = np.float32(0.5) * square if cosine else np.float32(np.sqrt(square))
            # insertion into the k best, ties to the lower row
            place = k
            while place > 0 and (
                value < distance[i, place - 1] or (value == distance[i, place - 1] and row < index[i, place - 1])
            ):
                place -= 1
            if place < k:
                for j in range(k - 1, place, -1):
                    index[i, j] = index[i, j - 1]
                    distance[i, j] = distance[i, j - 1]
                index[i, place] = row
                distance[i, place] = value
    return index, distance


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
    """
    return np.asarray(distance[:, 0] / scale[index[:, 0]], np.float32)


def distinct_rows(sample: Float32) -> npt.NDArray[np.int64]:
    """Positions of the first of each group of equal rows, ascending.

    Parameters
    ----------
    sample : (n, D) float32

    Returns
    -------
    (S,) int64
    """
    keys = np.ascontiguousarray(sample).view(np.dtype((np.void, sample.shape[1] * sample.itemsize)))[:, 0]
    _, first = np.unique(keys, return_index=True)
    return np.sort(first)
