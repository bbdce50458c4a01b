"""Where UMAP's layout starts: the graph's leading eigenvectors, its components apart from each other."""

import itertools

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from distcluster.numerics.partition import tree_sum
from distcluster.numerics.prepared_rows import principal
from distcluster.numerics.row_tasks import TASK_ROWS, RowTasks, row_tasks

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_EXTENT = 10.0  # of the start in every coordinate, as in umap-learn
_NOISE = 1e-4  # that parts rows of the same place, as in umap-learn
_ROUNDS = 30  # of filtering at most; four on sentence embeddings
_DEGREE = 16  # of the filter's polynomial
_TOLERANCE = 0.01  # of the eigenvalues' distances from 1, between two rounds
_SPARE = 3  # vectors at least beyond those that are wanted, the constant one among them
_WIDTH = 0.05  # of a coordinate's extent, that nine tenths of the rows take at least
_LARGE = 0.01  # of the rows, of a component that is placed apart
_MARKS = 1000  # rows, at the nearest of which a small component is placed
_LANES = 8  # of which there are whole vectors
_FEATURES = 128  # of the sample, that the first directions are made of
_FEW_ROWS = 100  # of a component that is placed by its principal components


def spectral_start(
    graph: csr_matrix, sample: Float32, rows: Int32, n_components: int, seed: int, threads: int = 1
) -> Float32:
    """Coordinates to begin with, from 0 to 10.

    A connected graph is placed by eigenvectors of its normalised Laplacian, found by subspace iteration with a
    Chebyshev filter (Zhou, Saad, Tiago, Chelikowsky 2006) that begins with random directions of the sample. Components
    of a graph are placed at the principal components of their centroids, each as wide as half the way to the next.
    Those of less than a hundredth of the rows are placed at the nearest of a thousand others: so near to the rest, they
    would leave it no room.

    Parameters
    ----------
    graph : (S, S) float32
    sample : (S, D) float32
    rows : (S,) int32
        The sample's row of each vertex of the graph.
    n_components : int
        d.
    seed : int
    threads : int
        The result has the same bits whatever it is.

    Returns
    -------
    (S, d) float32

    Examples
    --------
    A ring, cut open nowhere, is a circle:

    >>> ring = csr_matrix(np.roll(np.eye(200, dtype=np.float32), 1, axis=0))
    >>> sample = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    >>> places = spectral_start(ring + ring.T, sample, np.arange(200, dtype=np.int32), 2, seed=0)
    >>> np.unique(np.hypot(*(places - 5).T).round()).tolist()
    [5.0]
    """
    chance = np.random.default_rng(seed)
    n_parts, part = connected_components(graph, directed=False)
    with row_tasks(threads) as run:
        if n_parts == 1:
            places = _place_part(graph, sample, rows, n_components, chance, run)
        else:
            places = _place_parts(graph, sample, rows, part, n_components, chance, run)
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    places = _EXTENT * (places - low) / np.where(extent > 0.0, extent, 1.0)
    return np.asarray(places + chance.normal(scale=_NOISE, size=places.shape), np.float32)


def _place_parts(
    graph: csr_matrix, sample: Float32, rows: Int32, part: Int32, d: int, chance: np.random.Generator, run: RowTasks
) -> Float64:
    """Parts apart from each other; a few rows that hang together with no others begin where rows like them do."""
    size = np.bincount(part)
    is_large = size >= _LARGE * len(rows)
    if 2 * size[is_large].sum() < len(rows):
        is_large[:] = True
    members = np.split(np.argsort(part, kind="stable"), np.cumsum(size)[:-1])
    means = np.array([sample[rows[own]].mean(axis=0, dtype=np.float64) for own in members])
    centres = _principal_places(means[is_large], d)
    places = np.empty((len(rows), d))
    for number, own in enumerate(itertools.compress(members, is_large)):
        away = np.sqrt(np.square(centres - centres[number]).sum(axis=1))
        radius = np.sort(away)[1] / 2.0 if len(centres) > 1 else 1.0
        inner = _place_part(graph[own][:, own], sample, rows[own], d, chance, run)
        places[own] = centres[number] + radius * inner / max(np.abs(inner).max(), 1e-30)
    marks = chance.permutation(np.flatnonzero(is_large[part]))[:_MARKS]
    there = sample[rows[marks]].astype(np.float64)
    for small in np.flatnonzero(~is_large):
        nearest = np.square(there - means[small]).sum(axis=1).argmin()
        places[members[small]] = places[marks[nearest]]
    return places


def _place_part(
    graph: csr_matrix, sample: Float32, rows: Int32, d: int, chance: np.random.Generator, run: RowTasks
) -> Float64:
    """Places of a connected graph's rows, about 0."""
    if len(rows) <= max(_FEW_ROWS, 3 * d + 2 * _LANES):
        return _principal_places(sample[rows].astype(np.float64), d)
    features = chance.permutation(sample.shape[1])[:_FEATURES]
    some = np.empty((len(rows), len(features)), np.float32)
    run(len(rows), _pick, sample, rows, features, some)
    return leading_vectors(graph, some, d, chance, run).astype(np.float64)


def _principal_places(rows: Float64, d: int) -> Float64:
    """Few rows by their principal components; none beyond those that they have."""
    u, s, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    found = (u * s)[:, :d]
    return np.hstack([found, np.zeros((len(rows), d - found.shape[1]))])


def leading_vectors(graph: csr_matrix, some: Float32, d: int, chance: np.random.Generator, run: RowTasks) -> Float32:
    """Eigenvectors 2 to d + 1 of D^-1/2 W D^-1/2, by falling eigenvalue; (S, d) float32, orthonormal.

    They are looked for from random directions of ``some`` (S, F) features. In a large graph some leading eigenvectors
    may lie on a few rows that hardly hang together with the rest, and have all others at one place: the search ends
    before it comes to such vectors, with what is still smooth.
    """
    root = np.sqrt(np.asarray(graph.sum(axis=1), np.float64).ravel())
    starts, tails = graph.indptr.astype(np.int64), graph.indices.astype(np.int32)
    rows = np.repeat(np.arange(len(root)), np.diff(starts))
    matrix = (starts, tails, (graph.data / (root[rows] * root[tails])).astype(np.float32))
    size = -(-(d + _SPARE) // _LANES) * _LANES
    directions = chance.normal(size=(some.shape[1], size - 1)).astype(np.float32)
    block = _first_block(some, directions, root, run)
    block, values = _rotated(matrix, block, run)
    for _ in range(_ROUNDS):
        last, before = block, values
        block, values = _rotated(matrix, _filtered(matrix, block, float(values[-1]), run), run)
        if _width(block[:, 1 : d + 1]).min() < _WIDTH:
            block = last
            break
        if np.all(np.abs(values - before)[1 : d + 1] <= _TOLERANCE * (1.0 - values[1 : d + 1])):
            break
    return np.ascontiguousarray(block[:, 1 : d + 1])


def _width(vectors: Float32) -> Float64:
    """How much of each vector's extent nine tenths of the rows take, (c,)."""
    low, high = np.quantile(vectors, [0.05, 0.95], axis=0, method="nearest")
    return np.asarray((high - low) / np.ptp(vectors, axis=0), np.float64)


def _first_block(some: Float32, directions: Float32, root: Float64, run: RowTasks) -> Float32:
    """The constant vector and random directions of the rows, times the roots of their degrees."""
    mean = some.mean(axis=0, dtype=np.float64).astype(np.float32)
    block = np.empty((len(some), 1 + directions.shape[1]), np.float32)

    def fill(first: int, stop: int) -> None:
        block[first:stop, 0] = 1.0
        block[first:stop, 1:] = principal(some[first:stop], mean, directions)
        block[first:stop] *= root[first:stop, None]

    run(len(some), fill)
    return block


Matrix = tuple[Int64, Int32, Float32]


def _rotated(matrix: Matrix, block: Float32, run: RowTasks) -> tuple[Float32, Float64]:
    """The eigenvectors within the span of a block, by falling eigenvalue, and their values (Rayleigh and Ritz)."""
    inner = _inner(block, block, run)
    scale = 1.0 / np.sqrt(np.diag(inner))
    values, vectors = np.linalg.eigh(inner * scale[:, None] * scale)
    block = _combined(block, scale[:, None] * vectors / np.sqrt(np.maximum(values, 1e-7 * values[-1])), run)
    times = np.empty_like(block)
    run(len(block), _multiply, *matrix, block, block, np.float32(1.0), np.float32(0.0), np.float32(0.0), times)
    values, vectors = np.linalg.eigh(_inner(block, times, run))
    return _combined(block, vectors[:, ::-1], run), values[::-1]


def _filtered(matrix: Matrix, block: Float32, cut: float, run: RowTasks) -> Float32:
    """A Chebyshev polynomial of the matrix times a block: at most 1 on eigenvalues from -1 to ``cut``, large above."""
    half, middle = (cut + 1.0) / 2.0, (cut - 1.0) / 2.0
    before, now = block, np.empty_like(block)
    scale, shift, none = np.float32(1.0 / half), np.float32(-middle / half), np.float32(0.0)
    run(len(block), _multiply, *matrix, block, block, scale, shift, none, now)
    for degree in range(2, _DEGREE + 1):
        after = np.empty_like(block)
        run(len(block), _multiply, *matrix, now, before, 2 * scale, 2 * shift, np.float32(1.0), after)
        before, now = now, after
        if degree % 8 == 0:  # what is above the cut grows fast
            down = np.float32(1.0 / max(np.abs(now).max(), 1e-30))
            before, now = before * down, now * down
    return now


def _inner(x: Float32, y: Float32, run: RowTasks) -> Float64:
    """x^T y, (c, c): a sum over rows a task, then over tasks in their order."""
    parts = np.zeros((-(-len(x) // TASK_ROWS), x.shape[1], x.shape[1]))
    run(len(x), _add_inner, x, y, parts)
    return tree_sum(parts)


def _combined(block: Float32, weights: Float64, run: RowTasks) -> Float32:
    result = np.empty_like(block)
    run(len(block), _combine, block, np.ascontiguousarray(weights, np.float32), result)
    return result


_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _pick(first: int, stop: int, sample: Float32, rows: Int32, features: Int64, some: Float32) -> None:
    """Sets rows of ``some`` (S, F) to those of the sample, some features each."""
    for i in range(first, stop):
        for f in range(len(features)):
            some[i, f] = sample[rows[i], features[f]]


@_compiled
def _multiply(
    first: int,
    stop: int,
    starts: Int64,
    tails: Int32,
    weight: Float32,
    x: Float32,
    before: Float32,
    scale: np.float32,
    shift: np.float32,
    less: np.float32,
    result: Float32,
) -> None:
    """Sets rows of ``result`` (S, c) to scale W x + shift x - less before."""
    c = x.shape[1]
    total = np.empty(c, np.float32)
    for i in range(first, stop):
        for q in range(c):
            total[q] = np.float32(0.0)
        for edge in range(starts[i], starts[i + 1]):
            tail, share = tails[edge], weight[edge]
            for q in range(c):
                total[q] += share * x[tail, q]
        for q in range(c):
            result[i, q] = scale * total[q] + shift * x[i, q] - less * before[i, q]


@_compiled
def _add_inner(first: int, stop: int, x: Float32, y: Float32, parts: Float64) -> None:
    """Adds to the task's part (c, c) of x^T y."""
    c, part = x.shape[1], parts[first // TASK_ROWS]
    for i in range(first, stop):
        for p in range(c):
            value = np.float64(x[i, p])
            for q in range(c):
                part[p, q] += value * np.float64(y[i, q])


@_compiled
def _combine(first: int, stop: int, block: Float32, weights: Float32, result: Float32) -> None:
    """Sets rows of ``result`` (S, c) to block times weights."""
    c = block.shape[1]
    for i in range(first, stop):
        for q in range(c):
            result[i, q] = np.float32(0.0)
        for p in range(c):
            for q in range(c):
                result[i, q] += block[i, p] * weights[p, q]
