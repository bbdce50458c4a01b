"""The index over the sample, and the k nearest sample rows of any row."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import faiss
import numba
import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from distcluster.numerics.index_facts import INDEX_ARRAYS, IndexFacts, Kind
from distcluster.numerics.prepared_rows import principal

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_EXACT_ROWS = 1_000  # up to here, comparing with every sample row is as fast as any graph
_LINKS = 32  # links a vertex has in faiss's graph, "M" of Malkov & Yashunin 2016
_BUILD_CANDIDATES = 40  # efConstruction; 100 takes twice the time for the same recall of the search
# efSearch, of which the smallest that will do is taken.
_SEARCH_CANDIDATES = (*range(16, 32, 2), *range(32, 64, 4), 64, 80, 96, 128, 192, 256, 384, 512)
_SPARE = 5  # candidates beyond k, at least, that the exact distances may promote
_RECALL = 0.955  # to be reached on the probes, so that other rows have 0.95: two standard errors above
_PROBES = 1_000  # rows that the recall is measured on: a standard error of 0.0025 or less

_COMPARED = 2**23  # pairs of rows and sample rows at a time: 100 MB, however large the sample
_DOUBTFUL = 48  # nearest by a rounded product that are measured exactly, beyond k
_UNIT = 2.0**-24  # float32's

_BASIS_ROWS = 8_192  # of the sample, that the basis of the codes is computed from
_BASIS_STEP = 64  # components: whole vectors of 8-bit codes
_BASIS_SHARE = 0.85  # of the variance that the codes must hold: 0.89 lost nothing that 0.75 lost

_GRAPHS: dict[Kind, Callable[[int], Any]] = {
    # Codes that faiss compares as integers: a fifth faster than QT_8bit_uniform, and no sum of floats in the search.
    "8-bit graph": lambda dimensions: faiss.IndexHNSWSQ(
        dimensions, cast(Any, faiss.ScalarQuantizer.QT_8bit_direct_signed), _LINKS
    ),
    "32-bit graph": lambda dimensions: faiss.IndexHNSWFlat(dimensions, _LINKS),
}


@dataclass(frozen=True, slots=True)
class NeighbourIndex:
    """An opened index: the prepared sample (S, D), and for graphs what their codes are made by, and faiss's index."""

    facts: IndexFacts
    sample: Float32
    mean: Float32
    components: Float32
    graph: Any


def build_index(
    sample: Float32, probes: Float32, k: int, metric: str
) -> tuple[dict[str, npt.NDArray[Any]], IndexFacts]:
    """An index over the prepared sample that finds 95.5 % of the k nearest rows of a probe, and how it is searched.

    Small samples are compared row by row. Larger ones get a navigable-small-world graph (HNSW) over 8-bit codes of
    their leading principal components; where those are too coarse (outliers stretch their range), over the vectors
    themselves; where that falls short too, rows are compared with all. Built in one thread: insertions depend on
    their order. faiss takes the levels from a fixed seed.

    Parameters
    ----------
    sample : (S, D) float32, prepared, distinct rows
    probes : (n, D) float32
        Prepared rows outside the sample, at most 1,000 of which are used: a graph finds the neighbours of its own
        rows more easily.
    k : int
    metric : "cosine" or "euclidean"

    Returns
    -------
    arrays : dict
        "graph", (bytes,) uint8, faiss's, empty for an exact search; "mean", (D,) float32, and "components", (D, P)
        float32, the basis of the codes.
    facts : IndexFacts
    """
    mean, components = _basis(sample)
    exact = NeighbourIndex(IndexFacts("exact", len(sample), 1.0, 1.0), sample, mean, components, None)
    if len(sample) > _EXACT_ROWS:
        probes = np.ascontiguousarray(probes[:: -(-len(probes) // _PROBES)])
        truth, _ = nearest(exact, probes, k, metric)
        in_basis = principal(sample, mean, components)
        step = float(max(np.abs(in_basis).max(), np.float32(1e-30))) / 127
        for kind, make in _GRAPHS.items():
            index = replace(exact, facts=replace(exact.facts, kind=kind, step=step))
            vectors = _coded(sample, index)
            graph = make(vectors.shape[1])
            graph.hnsw.efConstruction = _BUILD_CANDIDATES
            graph.add(vectors)
            index = replace(index, graph=graph)
            for candidates in _SEARCH_CANDIDATES:
                graph.hnsw.efSearch = candidates
                index = replace(index, facts=replace(index.facts, search_candidates=candidates))
                found, _ = nearest(index, probes, k, metric)
                recall = float((found[:, :, None] == truth[:, None, :]).sum() / truth.size)
                if recall >= _RECALL:
                    return _stored(index), replace(index.facts, recall=recall)
    return _stored(exact), exact.facts


def _basis(sample: Float32) -> tuple[Float32, Float32]:
    """Mean (D,) and components (D, P) that 8-bit codes are made by.

    The leading principal components that hold 85 % of the sample's variance, where at most half as many as there are
    features do; else none, and the codes are of the features themselves.
    """
    S, D = sample.shape
    rows = sample[:: -(-S // _BASIS_ROWS)].astype(np.float64)
    mean = rows.mean(axis=0)
    most = D // 2 // _BASIS_STEP * _BASIS_STEP
    if most and len(rows) > D:
        covariance = np.cov(rows, rowvar=False)
        variances, vectors = eigh(covariance, subset_by_index=[D - most, D - 1])
        held = np.cumsum(variances[::-1])[_BASIS_STEP - 1 :: _BASIS_STEP] / np.trace(covariance)
        enough = np.flatnonzero(held >= _BASIS_SHARE)
        if len(enough):
            wanted = vectors[:, ::-1][:, : _BASIS_STEP * (enough[0] + 1)]
            return mean.astype(np.float32), np.ascontiguousarray(wanted, np.float32)
    return mean.astype(np.float32), np.empty((D, 0), np.float32)


def _coded(rows: Float32, index: NeighbourIndex) -> Float32:
    """Rows as the graph compares them."""
    if index.facts.kind == "32-bit graph":
        return rows
    codes = principal(rows, index.mean, index.components) / np.float32(index.facts.step)
    return np.asarray(np.clip(np.rint(codes), -128, 127), np.float32)


def _stored(index: NeighbourIndex) -> dict[str, npt.NDArray[Any]]:
    graph = np.empty(0, np.uint8) if index.graph is None else np.asarray(faiss.serialize_index(index.graph))
    return dict(zip(INDEX_ARRAYS, (graph, index.mean, index.components), strict=True))


def open_index(arrays: dict[str, npt.NDArray[Any]], facts: IndexFacts, sample: Float32) -> NeighbourIndex:
    """The index of ``build_index``, over the same sample."""
    graph: Any = None
    if len(arrays["graph"]):
        graph = faiss.deserialize_index(arrays["graph"])
        graph.hnsw.efSearch = facts.search_candidates
    return NeighbourIndex(facts, sample, arrays["mean"], arrays["components"], graph)


def nearest(index: NeighbourIndex, rows: Float32, k: int, metric: str) -> tuple[Int32, Float32]:
    """The k nearest sample rows of each row that are not equal to it.

    The graph proposes, exact distances decide: a row's answer depends on the row and the index alone. Sample rows
    of equal content are left out, so that a row of the sample is treated as any other row, and not pulled to its own
    place. The sample's rows are distinct, so at most one is equal.

    Parameters
    ----------
    index : NeighbourIndex over S > k rows
    rows : (n, D) float32, prepared
    k : int
    metric : "cosine" (1 - cos) or "euclidean"

    Returns
    -------
    index : (n, k) int32
        Rows of the sample, by ascending distance, then row.
    distance : (n, k) float32

    Examples
    --------
    >>> sample = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    >>> index = open_index(*build_index(sample, sample, 2, "euclidean"), sample)
    >>> found, distance = nearest(index, np.array([[2.9], [0.0]], np.float32), 2, "euclidean")
    >>> found.tolist()  # the second row is a row of the sample, which is left out
    [[2, 1], [1, 2]]
    """
    sample = index.sample
    if index.graph is None:
        return _compared(sample, rows, k, metric)
    width = max(k + _SPARE, index.facts.search_candidates)
    _, candidates = index.graph.search(_coded(rows, index), min(width, len(sample)))
    found, distance = _rank(candidates, sample, rows, k, metric == "cosine")
    # A graph search can get stuck among tight clusters and return too few: those rows are compared with all.
    short = np.flatnonzero(found[:, -1] < 0)
    if len(short):
        found[short], distance[short] = _compared(sample, rows[short], k, metric)
    return found, distance


def _compared(sample: Float32, rows: Float32, k: int, metric: str) -> tuple[Int32, Float32]:
    """The k nearest of all sample rows.

    A matrix product proposes, exact distances decide; where one that it did not propose could be as near, for all that
    float32 rounds off (Higham 2002, 3.1), the row's distances to all are taken.
    """
    every, n, cosine = np.arange(len(sample))[None], k + _DOUBTFUL, metric == "cosine"
    if len(sample) <= max(_EXACT_ROWS, 2 * n):
        found, distance = _rank(every, sample, rows, k, cosine)
        return found, distance
    found, distance = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.float32)
    squares = np.einsum("ij,ij->i", sample, sample)
    together = max(1, _COMPARED // len(sample))
    for start in range(0, len(rows), together):
        some = slice(start, start + together)
        near = squares - 2.0 * (rows[some] @ sample.T)  # of the squared distance, all but the row's own square
        proposed, beyond = _least(near, n)  # none that is not proposed is nearer than that
        found[some], distance[some] = _rank(proposed, sample, rows[some], k, cosine)
        farthest = 2.0 * distance[some, -1] if cosine else distance[some, -1] ** 2
        own = np.einsum("ij,ij->i", rows[some], rows[some])
        rounded = 4 * (sample.shape[1] + 4) * _UNIT * (own + squares.max())
        doubtful = start + np.flatnonzero(~(farthest < own + beyond - rounded))
        if len(doubtful):
            found[doubtful], distance[doubtful] = _rank(every, sample, rows[doubtful], k, cosine)
    return found, distance


def count_found(index: NeighbourIndex, rows: Float32, k: int, metric: str) -> npt.NDArray[np.int64]:
    """How many of each row's k nearest sample rows the search finds, (n,): what its recall is made of."""
    found, _ = nearest(index, rows, k, metric)
    truth, _ = nearest(replace(index, graph=None), rows, k, metric)
    return np.asarray((found[:, :, None] == truth[:, None, :]).sum(axis=(1, 2)))


@numba.njit(cache=True, nogil=True)
def _least(values: Float32, n: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """Of each row's values (m, S) the places of the n least (m, n), in no order, and the largest of those values (m,).

    A heap with the largest on top, which most values are compared with and no more.
    """
    place, largest = np.full((len(values), n), -1), np.empty(len(values), np.float32)
    heap = np.empty(n, np.float32)
    for i in range(len(values)):
        heap[:] = np.inf
        top = heap[0]
        for j in range(values.shape[1]):
            value = values[i, j]
            if value >= top:
                continue
            at, below = 0, 1
            while below < n:  # the larger child moves up until the value has its place
                if below + 1 < n and heap[below + 1] > heap[below]:
                    below += 1
                if heap[below] <= value:
                    break
                heap[at], place[i, at] = heap[below], place[i, below]
                at, below = below, 2 * below + 1
            heap[at], place[i, at] = value, j
            top = heap[0]
        largest[i] = top
    return place, largest


@numba.njit(cache=True, nogil=True)
def pairwise_sum(terms: Float32, n: int) -> np.float32:
    """The sum of the first n terms, which are overwritten: halves added to halves, a loop that has vectors.

    The order is fixed and no operation is fused: a compiler that may reorder a sum gave other bits to a kernel that
    was just compiled and to the same kernel read from numba's cache.
    """
    half = 1
    while 2 * half < n:
        half *= 2
    while half >= 1:
        for j in range(min(half, max(0, n - half))):
            terms[j] += terms[j + half]
        half //= 2
    return np.float32(terms[0])


@numba.njit(cache=True, nogil=True)
def _rank(
    candidates: npt.NDArray[np.int64], sample: Float32, rows: Float32, k: int, cosine: bool
) -> tuple[Int32, Float32]:
    """Of each row's candidates (n, width), or of all rows' (1, width), the k nearest that are not equal to it."""
    n, width = len(rows), candidates.shape[1]
    index = np.full((n, k), -1, np.int32)
    distance = np.full((n, k), np.inf, np.float32)
    squares = np.empty(rows.shape[1], np.float32)
    for i in range(n):
        for c in range(width):
            row = candidates[i if len(candidates) > 1 else 0, c]
            if row < 0:
                continue
            for j in range(rows.shape[1]):
                difference = sample[row, j] - rows[i, j]
                squares[j] = difference * difference
            square = pairwise_sum(squares, rows.shape[1])
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
