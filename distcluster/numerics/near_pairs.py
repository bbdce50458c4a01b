"""Pairs of rows within a cosine distance, all of them: bounds that lose none, then the distance in double precision.

A row's code is the row at unit length in some principal axes, and the length of what these leave. By the triangle
inequality two codes lie no farther apart than their rows, so codes that are too far apart rule a pair out; and a row is
not even compared with the codes of a cell whose border is too far away. Both bounds are widened by all that float32 can
round away; what they leave is decided by ``cosine_distance``, which sees the two rows alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.numerics.forces import LANES, compiled

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_CELLS = 256
_ROUNDS = 5  # of k-means: cells need not be good, and no result depends on them
_CELL_ROWS, _PROBES = 16_384, 2_048  # of the sample
_TILE_ROWS = 4_096  # rows that are compared with a cell at a time
_WIDTHS = (15, 31, 63, 127, 255, 511)  # axes; with the length of the rest, powers of two
_OVERHEAD = 24.0  # of a pair of codes: so many values of a code
_DECISION = 26.0  # of a value of a pair that is decided: so many values of a code
_UNIT = 2.0**-24  # float32's

# --- the distance -----------------------------------------------------------------------------------------------


@compiled
def inverse_lengths(rows: Float32) -> Float64:
    """One over the Euclidean length of each row (n, D); infinite for a row of zeros."""
    result = np.empty(rows.shape[0])
    for i in range(rows.shape[0]):
        square = 0.0
        for j in range(rows.shape[1]):
            square += np.float64(rows[i, j]) * np.float64(rows[i, j])
        result[i] = 1.0 / np.sqrt(square)
    return result


@compiled
def cosine_distance(x: Float32, scale_x: float, y: Float32, scale_y: float, limit: float) -> float:
    """1 - cos of two rows (D,), as half the squared distance of the unit vectors: accurate for near ones, too.

    In double precision and one order of additions, the same for (x, y) and (y, x). Beyond ``limit`` it may stop early
    and give any number above it: sums of squares never fall.
    """
    lanes = np.zeros(LANES)
    D, most = len(x), 2.0 * limit
    whole = D - D % LANES
    total = 0.0
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            difference = np.float64(x[start + lane]) * scale_x - np.float64(y[start + lane]) * scale_y
            lanes[lane] += difference * difference
        if start % 64 == 0:
            total = _folded(lanes)
            if total > most:
                return float(0.5 * total)
    for lane in range(D - whole):
        difference = np.float64(x[whole + lane]) * scale_x - np.float64(y[whole + lane]) * scale_y
        lanes[lane] += difference * difference
    return float(0.5 * _folded(lanes))


@compiled
def _folded(lanes: Float64) -> float:
    return float(((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])))


@compiled
def cosine_distances(rows: Float32, others: Float32, other: Int64) -> Float64:
    """The distance of each row (n, D) to ``others[other[i]]``; (n,)."""
    scales, other_scales = inverse_lengths(rows), inverse_lengths(others)
    result = np.empty(len(rows))
    for i in range(len(rows)):
        j = other[i]
        result[i] = cosine_distance(rows[i], scales[i], others[j], other_scales[j], np.inf)
    return result


# --- codes and cells --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sketch:
    """How rows are coded, and the cells that codes lie in.

    Attributes
    ----------
    axes : (D, p) float64
        Orthonormal columns; none: a code is the row itself, at unit length.
    centres : (cells, width) float32
        A code lies in the cell of the nearest one.
    """

    axes: Float64
    centres: Float32

    @property
    def slack(self) -> float:
        """Twice the most that float32 can round off the inner product of two codes, or of a code and a centre."""
        return float(2.0 * (self.centres.shape[1] + 8) * _UNIT)


def fit_sketch(sample: Float32, distance: float) -> Sketch:
    """Choose axes and cells by a sample of the rows, for the least work; no result depends on them.

    Parameters
    ----------
    sample : (S, D) float32
        In random order; rows of zeros are left out.
    distance : float
        That pairs are wanted within.
    """
    units = _units(sample[sample.any(axis=1)][:_CELL_ROWS])
    D = units.shape[1]
    _, vectors = np.linalg.eigh(units.T @ units)
    axes = np.zeros((D, 0))
    least = D + _OVERHEAD + _DECISION * D * _share_within(units, axes, distance)
    for p in (p for p in _WIDTHS if p + 1 < D):
        work = p + 1 + _OVERHEAD + _DECISION * D * _share_within(units, vectors[:, D - p :], distance)
        if work < least:
            axes, least = np.ascontiguousarray(vectors[:, D - p :]), work
    codes = _codes(units, axes)
    centres = codes[: min(_CELLS, len(codes))].copy()
    for _ in range(_ROUNDS):
        cell = _scores(codes, centres).argmax(axis=1)
        count = np.bincount(cell, minlength=len(centres))
        sums = np.zeros(centres.shape)
        np.add.at(sums, cell, codes)
        centres[count > 0] = sums[count > 0] / count[count > 0, None]
    return Sketch(axes, centres)


def _units(rows: Float32) -> Float64:
    return np.asarray(rows.astype(np.float64) * inverse_lengths(rows)[:, None])


def _codes(units: Float64, axes: Float64) -> Float32:
    """Codes (n, p + 1) of unit vectors (n, D), unit vectors themselves."""
    if axes.shape[1] == 0:
        return units.astype(np.float32)
    inside = units @ axes
    rest = np.sqrt(np.maximum(0.0, 1.0 - np.einsum("ij,ij->i", inside, inside)))
    return np.concatenate([inside, rest[:, None]], axis=1).astype(np.float32)


def _share_within(units: Float64, axes: Float64, distance: float) -> float:
    """The share of pairs of some rows that their codes do not rule out."""
    codes = _codes(units[:_PROBES], axes)
    within = (codes @ codes.T) >= 1.0 - distance
    return float((within.sum() - np.trace(within)) / max(1, within.size - len(within)))


def _scores(codes: Float32, centres: Float32) -> Float32:
    """The higher, the nearer is a centre: half the squared distance, less a code's own part, negative; (n, cells)."""
    return np.asarray(codes @ centres.T - np.float32(0.5) * np.einsum("ij,ij->i", centres, centres))


@dataclass(frozen=True, slots=True)
class CodedRows:
    """Rows by the cells that they lie in.

    Attributes
    ----------
    row : (n,) int64
        Global row numbers.
    vectors : (n, D) float32
    scales : (n,) float64
        ``inverse_lengths``.
    codes : (n, width) float32
    borders : (cells + 1,) int64
        Rows ``borders[c]`` to ``borders[c + 1]`` lie in cell c.
    """

    row: Int64
    vectors: Float32
    scales: Float64
    codes: Float32
    borders: Int64


def code_rows(row: Int64, vectors: Float32, sketch: Sketch) -> CodedRows:
    """Code rows (n, D), none of them all zero, and order them by cell."""
    codes = np.empty((len(vectors), sketch.centres.shape[1]), np.float32)
    cell = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _TILE_ROWS):
        here = slice(start, start + _TILE_ROWS)
        codes[here] = _codes(_units(vectors[here]), sketch.axes)
        cell[here] = _scores(codes[here], sketch.centres).argmax(axis=1)
    order = np.argsort(cell, kind="stable")
    borders = np.searchsorted(cell[order], np.arange(len(sketch.centres) + 1))
    ordered = np.ascontiguousarray(vectors[order])
    return CodedRows(row[order], ordered, inverse_lengths(ordered), codes[order], borders)


# --- pairs ------------------------------------------------------------------------------------------------------


def join_near(left: CodedRows, right: CodedRows, sketch: Sketch, distance: float) -> Int64:
    """Join all rows of two sets that lie within a distance of each other; of one, where ``right`` is ``left``.

    Returns
    -------
    (m, 2) int64
        Pairs of global row numbers within the distance, one less than rows in each group that is connected by all
        such pairs: they connect the same groups.
    """
    is_one = left is right
    offset = 0 if is_one else len(left.row)
    parent = np.arange(offset + len(right.row))
    near = _near_cells(left, sketch, distance)
    least = np.float32(1.0 - distance - sketch.slack)
    found = [np.empty((0, 2), np.int64)]
    for cell in range(len(sketch.centres)):
        first, stop = right.borders[cell], right.borders[cell + 1]
        if stop == first:
            continue
        some = np.flatnonzero(near[cell, :stop] if is_one else near[cell])  # of one set each pair of cells once
        for start in range(0, len(some), _TILE_ROWS):
            rows = some[start : start + _TILE_ROWS]
            within = np.flatnonzero(left.codes[rows] @ right.codes[first:stop].T >= least)
            if len(within):
                a, b = np.divmod(within, stop - first)
                a, b = rows[a], b + first
                joined = _join(
                    parent, a, b, offset, left.vectors, left.scales, right.vectors, right.scales, float(distance)
                )
                found.append(np.stack([left.row[a[joined]], right.row[b[joined]]], axis=1))
    return np.concatenate(found)


def _near_cells(coded: CodedRows, sketch: Sketch, distance: float) -> npt.NDArray[np.bool_]:
    """Which rows can be within the distance of a row in each cell; (cells, n).

    A row y in the cell of q is no nearer to p than to q, so it lies beyond the plane between p and q, whose distance
    from x is (score(x, p) - score(x, q)) / |p - q|. p is the centre of x's own cell.
    """
    centres = sketch.centres.astype(np.float64)
    apart = np.sqrt(np.maximum(0.0, ((centres[:, None] - centres[None]) ** 2).sum(axis=2)))
    limit = (apart * np.sqrt(2.0 * distance) * (1.0 + 1e-6) + 4.0 * sketch.slack).astype(np.float32)
    near = np.empty((len(centres), len(coded.row)), np.bool_)
    for cell in range(len(centres)):
        for start in range(coded.borders[cell], coded.borders[cell + 1], _TILE_ROWS):
            here = slice(start, min(start + _TILE_ROWS, coded.borders[cell + 1]))
            scores = _scores(coded.codes[here], sketch.centres)
            near[:, here] = (scores[:, cell, None] - scores <= limit[cell]).T
    return near


@compiled
def _find(parent: Int64, i: int) -> int:
    """The root of i's group."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def _join(
    parent: Int64,
    a: Int64,
    b: Int64,
    offset: int,
    x: Float32,
    scale_x: Float64,
    y: Float32,
    scale_y: Float64,
    distance: float,
) -> npt.NDArray[np.bool_]:
    """Of candidates (a, b), those that lie within the distance and join two groups."""
    joined = np.zeros(len(a), np.bool_)
    for i in range(len(a)):
        one, two = _find(parent, a[i]), _find(parent, offset + b[i])
        if one != two and (cosine_distance(x[a[i]], scale_x[a[i]], y[b[i]], scale_y[b[i]], distance) <= distance):
            parent[max(one, two)] = min(one, two)
            joined[i] = True
    return joined


@compiled
def unite(parent: Int64, pairs: Int64) -> None:
    """Join the groups of pairs (m, 2) in a forest whose roots are the lowest of their group."""
    for i in range(len(pairs)):
        one, two = _find(parent, pairs[i, 0]), _find(parent, pairs[i, 1])
        parent[max(one, two)] = min(one, two)


@compiled
def roots(parent: Int64) -> Int64:
    """The lowest of each one's group; (n,)."""
    result = np.empty(len(parent), np.int64)
    for i in range(len(parent)):
        result[i] = _find(parent, i)
    return result
