"""UMAP's layout: the sample's places, moved all at once in every epoch, so that threads cannot matter."""

import math

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from distcluster.numerics.forces import LANES, add_squares, attract, compiled, repel, total_of, total_pull
from distcluster.numerics.row_tasks import TASK_ROWS, even, row_tasks

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_FEW_ROWS, _OF_FEW, _OF_MAPS, _OF_MANY = 10_000, 300, 200, 120  # epochs by default; umap-learn makes 500 and 200
_OTHERS = 64  # rows that a row is pushed from in an epoch: 32 keep fewer neighbours, 512 take four times as long
_SETS = 512  # of such others at most, by turns, so that neighbours in the graph's order are not pushed together
_SHARED = 64  # rows by which a set is used where the sample is small
_NEGATIVE_SAMPLES = 5  # umap-learn's negative_sample_rate
_MOMENTUM = 0.95  # at the start, falling as a root to none: whole groups travel first, rows settle last
_IMPLICIT = 0.25  # of the stiffness, which bounds a step: 0 swings about close neighbours, 1 travels slowly
_MOST = 4.0  # a step's length in each coordinate; most have a hundredth of it


def default_epochs(n_rows: int, d: int) -> int:
    """Epochs where a job does not say: more for few rows, and for maps, whose rows have less room to get past others.

    Examples
    --------
    >>> default_epochs(10_000, d=2), default_epochs(10_001, d=2), default_epochs(10_001, d=5)
    (300, 200, 120)
    """
    if n_rows <= _FEW_ROWS:
        return _OF_FEW
    return _OF_MAPS if d <= 3 else _OF_MANY


def lay_out(
    graph: csr_matrix, start: Float32, *, a: float, b: float, n_epochs: int, seed: int, threads: int = 1
) -> Float32:
    """Places where the forces of UMAP balance.

    umap-learn moves two rows by one edge, and one of them from five random rows, one after another (McInnes, Healy,
    Melville 2018, algorithm 5). Here every row reads the places of the epoch before and writes its own new one: the
    mean of its edges' forces, and the mean push of some random rows, which are named by a hash of epoch and set. The
    step is implicit in part: it is divided by 1 + rate stiffness / 4, so that rows close to each other meet instead of
    swinging; it has momentum. The rate falls to nothing as a square, the momentum as a root.

    Parameters
    ----------
    graph : (S, S) float32
        ``fuzzy_graph``.
    start : (S, d) float32
    a, b : float
        ``curve_parameters``.
    n_epochs : int
    seed : int
        Of the random rows.
    threads : int
        The result has the same bits whatever it is.

    Returns
    -------
    (S, d) float32

    Examples
    --------
    >>> ring = csr_matrix(np.roll(np.eye(200, dtype=np.float32), 1, axis=0))
    >>> start = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    >>> options = dict(a=1.58, b=0.9, n_epochs=50, seed=0)
    >>> one = lay_out(ring + ring.T, start, **options)
    >>> bool((one == lay_out(ring + ring.T, start, **options, threads=3)).all())
    True
    """
    edges = _edges(graph, n_epochs)
    places, moved, velocity = start.copy(), np.empty_like(start), np.zeros_like(start)
    others = np.empty((min(_SETS, -(-len(start) // _SHARED)), start.shape[1], _OTHERS), np.float32)
    useful = threads if len(start) > TASK_ROWS else 1
    task_rows, task_sets = even(len(start), useful), even(len(others), useful)
    with row_tasks(useful) as run:
        for epoch in range(n_epochs):
            run(len(others), _set_others, places, seed, epoch, others, task_rows=task_sets)
            left = 1.0 - epoch / n_epochs
            numbers = [np.float32(each) for each in (a, b, left**2, _MOMENTUM * math.sqrt(left))]
            run(len(start), _epoch, places, moved, velocity, *edges, others, *numbers, task_rows=task_rows)
            places, moved = moved, places
    return places


def _edges(graph: csr_matrix, n_epochs: int) -> tuple[Int64, Int32, Float32, Float32, int]:
    """Starts, tails and weights of all edges, each row's sum of them, and room for the edges of a row in whole vectors.

    Weights are in units of the largest; edges that umap-learn would not sample once are left out.
    """
    weight = graph.data / graph.data.max()
    weight[weight < 1.0 / n_epochs] = 0.0
    kept = csr_matrix((weight, graph.indices, graph.indptr), graph.shape, copy=True)
    kept.eliminate_zeros()
    starts = kept.indptr.astype(np.int64)
    total = np.add.reduceat(kept.data, starts[:-1]).astype(np.float32)
    most = int(-(-np.diff(starts).max() // LANES) * LANES)
    return starts, kept.indices.astype(np.int32), kept.data.astype(np.float32), total, most


@compiled
def _mixed(x: np.uint64) -> np.uint64:
    """A hash of 64 bits (Steele, Lea, Flood 2014: SplitMix)."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _set_others(first: int, stop: int, places: Float32, seed: int, epoch: int, others: Float32) -> None:
    """Sets ``others`` (sets, d, m) from ``first`` to ``stop`` to the places of m random rows each."""
    step = np.uint64(0x9E3779B97F4A7C15)
    key = _mixed(_mixed(np.uint64(seed) + step) + np.uint64(epoch) * step)
    for k in range(first, stop):
        of_set = _mixed(key + np.uint64(k) * step)
        for p in range(others.shape[2]):
            high = _mixed(of_set + np.uint64(p + 1) * step) >> np.uint64(32)
            row = np.int64((high * np.uint64(len(places))) >> np.uint64(32))
            for c in range(places.shape[1]):
                others[k, c, p] = places[row, c]


@compiled
def _epoch(
    first: int,
    stop: int,
    places: Float32,
    moved: Float32,
    velocity: Float32,
    starts: Int64,
    tails: Int32,
    weight: Float32,
    total: Float32,
    most_tails: int,
    others: Float32,
    a: np.float32,
    b: np.float32,
    rate: np.float32,
    momentum: np.float32,
) -> None:
    """Moves the rows from ``first`` to ``stop``."""
    d = places.shape[1]
    near, attraction = np.zeros((d, most_tails), np.float32), np.empty(most_tails, np.float32)
    share = np.zeros(most_tails, np.float32)
    repulsion, lanes, here = np.empty(_OTHERS, np.float32), np.empty(LANES, np.float32), np.empty(d, np.float32)
    one, pull_scale = np.float32(1.0), np.float32(4.0) * a * b
    closest = np.float32(1e-12)  # squared: a place on another is moved nowhere, and must not divide by zero
    for i in range(first, stop):
        pushing = others[i % len(others)]
        for c in range(d):
            here[c] = places[i, c]

        n_tails = starts[i + 1] - starts[i]
        width = -(-n_tails // LANES) * LANES
        for j in range(n_tails):
            tail = tails[starts[i] + j]
            share[j] = weight[starts[i] + j]
            for c in range(d):
                near[c, j] = places[tail, c]
        for j in range(n_tails, width):
            share[j] = np.float32(0.0)
        attraction[:width] = closest
        add_squares(here, near, width, attraction)
        attract(attraction, share, width, a, b)

        repulsion[:] = closest
        add_squares(here, pushing, _OTHERS, repulsion)
        repel(repulsion, a, b)

        stiffness = pull_scale * total_of(attraction, lanes, width)
        step = rate / (one + np.float32(_IMPLICIT) * rate * stiffness)
        push_scale = np.float32(2 * _NEGATIVE_SAMPLES) * b * total[i] / np.float32(_OTHERS)
        for c in range(d):
            push = push_scale * total_pull(here[c], pushing[c], repulsion, lanes, _OTHERS)
            pull = pull_scale * total_pull(here[c], near[c], attraction, lanes, width)
            along = momentum * velocity[i, c] + step * (push - pull)
            along = min(max(along, np.float32(-_MOST)), np.float32(_MOST))
            velocity[i, c] = along
            moved[i, c] = here[c] + along
