"""The index over the sample, and the k nearest sample rows of any row."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import faiss
import numba
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_EXACT_ROWS = 1_000  # up to here, comparing with every sample row is as fast as any graph
_LINKS = 32  # links a vertex has in faiss's graph, "M" of Malkov & Yashunin 2016
_BUILD_CANDIDATES = 40  # efConstruction; 100 takes twice the time for the same recall of the search
_SEARCH_CANDIDATES = (
    16,
    20,
    24,
    28,
    32,
    40,
    48,
    64,
    96,
    128,
    192,
    256,
    384,
    512,
)  # efSearch, the smallest that will do
_SPARE = 5  # candidates beyond k, at least, that the exact distances may promote
_RECALL = 0.96  # to be reached on the probes, so that other rows have 0.95
BEYOND_LIMIT = 0.001
"""Share of rows that lie beyond ``support_limit`` when the sample represents them."""
_PROBES = 1_000  # rows that the recall is measured on: a standard error of 0.003 or less

Kind = Literal["exact", "8-bit graph", "32-bit graph"]
_GRAPHS: dict[Kind, Callable[[int], Any]] = {
    # Codes that faiss compares as integers: a fifth faster than QT_8bit_uniform, and no sum of floats in the search.
    "8-bit graph": lambda dimensions: faiss.IndexHNSWSQ(
        dimensions, cast(Any, faiss.ScalarQuantizer.QT_8bit_direct_signed), _LINKS
    ),
    "32-bit graph": lambda dimensions: faiss.IndexHNSWFlat(dimensions, _LINKS),
}


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """How a sample is searched, and how well."""

    kind: Kind
    search_candidates: int
    """faiss's efSearch; for "exact" the number of sample rows."""
    recall: float
    """Share of the k nearest sample rows that the search finds, over probe rows outside the sample."""
    centre: float
    step: float
    """An 8-bit code is a value minus ``centre`` in units of ``step``."""


@dataclass(frozen=True, slots=True)
class NeighbourIndex:
    """An opened index: the prepared sample (S, D), and for graphs faiss's index over it."""

    facts: IndexFacts
    sample: Float32
    graph: Any


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


@numba.njit(cache=True, nogil=True)
def principal(rows: Float32, mean: Float32, components: Float32) -> Float32:
    """Rows in the basis of their principal components, each by itself.

    Parameters
    ----------
    rows : (n, D) float32, prepared
    mean : (D,) float32
    components : (D, P) float32

    Returns
    -------
    (n, P) float32
    """
    result = np.zeros((rows.shape[0], components.shape[1]), np.float32)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = rows[i, j] - mean[j]
            for p in range(components.shape[1]):
                result[i, p] += value * components[j, p]
    return result


def build_index(sample: Float32, probes: Float32, k: int, metric: str) -> tuple[npt.NDArray[np.uint8], IndexFacts]:
    """An index over the prepared sample that finds 96 % of the k nearest rows of a probe, and how it is searched.

    Small samples are compared row by row. Larger ones get a navigable-small-world graph (HNSW) over vectors of 8-bit
    codes; where those are too coarse (outliers stretch their range), over the vectors themselves; where that falls
    short too, rows are compared with all. Built in one thread: insertions depend on their order. faiss draws the
    levels from a fixed seed.

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
    data : (bytes,) uint8
        faiss's bytes; empty for an exact search.
    facts : IndexFacts
    """
    low, high = float(sample.min()), float(sample.max())
    coding = {"centre": (low + high) / 2, "step": max(high - low, 1e-30) / 255}
    exact = IndexFacts("exact", len(sample), 1.0, **coding)
    if len(sample) <= _EXACT_ROWS:
        return np.empty(0, np.uint8), exact
    probes = np.ascontiguousarray(probes[:: -(-len(probes) // _PROBES)])
    truth, _ = nearest(NeighbourIndex(exact, sample, None), probes, k, metric)
    for kind, make in _GRAPHS.items():
        graph = make(sample.shape[1])
        graph.hnsw.efConstruction = _BUILD_CANDIDATES
        graph.add(_coded(sample, IndexFacts(kind, 0, 0.0, **coding)))
        for candidates in _SEARCH_CANDIDATES:
            facts = IndexFacts(kind, candidates, 0.0, **coding)
            found, _ = nearest(_with_candidates(facts, sample, graph), probes, k, metric)
            recall = float((found[:, :, None] == truth[:, None, :]).sum() / truth.size)
            if recall >= _RECALL:
                return np.asarray(faiss.serialize_index(graph)), replace(facts, recall=recall)
    return np.empty(0, np.uint8), exact


def _coded(rows: Float32, facts: IndexFacts) -> Float32:
    """Rows as the graph compares them."""
    if facts.kind == "32-bit graph":
        return rows
    centre, step = np.float32(facts.centre), np.float32(facts.step)
    return np.asarray(np.clip(np.rint((rows - centre) / step), -128, 127), np.float32)


def open_index(data: npt.NDArray[np.uint8], facts: IndexFacts, sample: Float32) -> NeighbourIndex:
    """The index of ``build_index``, over the same sample."""
    return _with_candidates(facts, sample, faiss.deserialize_index(data) if len(data) else None)


def _with_candidates(facts: IndexFacts, sample: Float32, graph: Any) -> NeighbourIndex:
    if graph is not None:
        graph.hnsw.efSearch = facts.search_candidates
    return NeighbourIndex(facts, sample, graph)


def nearest(index: NeighbourIndex, rows: Float32, k: int, metric: str) -> tuple[Int32, Float32]:
    """The k nearest sample rows of each row that are not equal to it.

    The graph proposes, exact distances decide: a row's answer depends on the row and the index alone. Sample rows
    of equal content are left out, so that a row of the sample is treated as any other row, and not drawn to its own
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
    """
    sample, cosine = index.sample, metric == "cosine"
    every = np.arange(len(sample))[None]
    candidates = every
    if index.graph is not None:
        width = max(k + _SPARE, index.facts.search_candidates // 2)
        _, candidates = index.graph.search(_coded(rows, index.facts), min(width, len(sample)))
    found, distance = _rank(candidates, sample, rows, k, cosine)
    # A graph search can get stuck among tight clusters and return too few: those rows are compared with all.
    short = np.flatnonzero(found[:, -1] < 0)
    if len(short):
        found[short], distance[short] = _rank(every, sample, rows[short], k, cosine)
    return found, distance


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
