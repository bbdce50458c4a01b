"""The repulsion of all anchors at any place: summed over groups of them, or by a polynomial in a box around it."""

import itertools

import numpy as np
import numpy.typing as npt

from distcluster.numerics.forces import add_squares, compiled, repel
from distcluster.numerics.neighbors import pairwise_sum

Float32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Cut = tuple[int, np.float32]

_DEPTH = 9  # 2^9 = 512 groups of anchors; the sum over all of 30,000 changes 0.6 % of labels, as noise does 4 %
_SOFTENING = 0.6  # of a group's mean squared radius, best of 0, 0.3, 0.6 and 1 against the sum over all anchors
_PLANE_DEPTH, _PLANE_SOFTENING = 10, 1.0  # in two dimensions 512 groups and 0.6 are seen: rows lie along their borders

# Boxes with polynomials, for what is looked at: decision 33.
_BOX_ANCHORS, _BOX_DIMENSIONS = 4_096, 3
_BOX_DEPTH = 11  # 2^11 leaves, and as many groups that the polynomials are fitted to
_AROUND = 1.4  # of the extent of a box's anchors
_NARROWEST = 0.3  # of a box's widest side, at least
_REACH = 0.85  # of half a side, from the middle: where a polynomial has the force of the groups
_LEVELS = 2  # of boxes, from the leaves up, that a place is looked for in


def repulsion_field(anchors: Float32) -> Float32:
    """The anchors as at most 512 groups of about equal size, or 1,024 in a plane, whose repulsion is about that of all.

    A balanced k-d tree: halves at the median of the widest coordinate.

    Parameters
    ----------
    anchors : (S, d) float32

    Returns
    -------
    (d + 2, m) float32
        Each group's mean, the softening of its squared distances, and its share of the anchors.

    Examples
    --------
    >>> anchors = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    >>> field = repulsion_field(anchors)
    >>> field.shape, round(float(field[-1].sum()), 3)  # a mean of two numbers, a softening and a share for each group
    ((4, 1024), 1.0)
    """
    depth, softening = _fineness(anchors.shape[1])
    levels, _ = _tree(anchors, depth)
    return _groups(anchors, levels[-1], softening)


def _fineness(d: int) -> tuple[int, float]:
    return (_PLANE_DEPTH, _PLANE_SOFTENING) if d <= 2 else (_DEPTH, _SOFTENING)


def view_field(anchors: Float32, a: float, b: float) -> Float32:
    """The groups, and boxes around anchors, in each of which a polynomial of the place stands for the sum over groups.

    For two and three dimensions and many anchors; otherwise the groups alone, as ``repulsion_field`` has them.

    Parameters
    ----------
    anchors : (S, d) float32
    a, b : float
        ``curve_parameters``.

    Returns
    -------
    (2 m, 2 + 2 d + d (d + 1) (d + 2) / 2 + d + 2) float32
        A k-d tree with m leaves. Row i is node i (the root is 1, its children 2 and 3): the axis and the place of its
        cut; of the box around its anchors the middle, and one over half of its sides; the polynomial's coefficients,
        of 1, of the coordinates, and of their products, d of each; and in the first rows the groups.

    Examples
    --------
    >>> anchors = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    >>> view_field(anchors, a=1.9, b=0.8).shape
    (4096, 22)
    """
    d = anchors.shape[1]
    if len(anchors) < _BOX_ANCHORS or d > _BOX_DIMENSIONS:
        return repulsion_field(anchors)
    levels, cuts = _tree(anchors, _BOX_DEPTH)
    depth, softening = _fineness(d)
    groups, boxes = _groups(anchors, levels[depth], softening), _boxes(anchors, levels, cuts, a, b)
    beside = np.zeros((len(boxes), d + 2), np.float32)
    beside[: groups.shape[1]] = groups.T
    return np.hstack([boxes, beside])


def parts_of(field: Float32, d: int) -> tuple[Float32, Float32]:
    """What ``repulsion`` takes of a field in d dimensions: groups, and boxes or none."""
    if len(field) == d + 2:
        return field, np.empty((0, 0), np.float32)
    groups = field[:, -(d + 2) :]
    return np.ascontiguousarray(groups[groups[:, -1] > 0].T), np.ascontiguousarray(field[:, : -(d + 2)])


def _tree(anchors: Float32, depth: int) -> tuple[list[list[Rows]], list[Cut]]:
    """Halves of halves of the anchors, of two at least, level by level; axis and place of every cut, from the root."""
    levels, cuts = [[np.arange(len(anchors))]], list[Cut]()
    while len(levels) <= depth and 2 * len(levels[-1]) <= len(anchors):
        halves = list[Rows]()
        for rows in levels[-1]:
            widest = int(np.argmax(np.ptp(anchors[rows], axis=0)))
            order = rows[np.argsort(anchors[rows, widest], kind="stable")]
            low, high = order[: len(rows) // 2], order[len(rows) // 2 :]
            halves += [low, high]
            cuts.append((widest, np.float32(0.5) * (anchors[low[-1], widest] + anchors[high[0], widest])))
        levels.append(halves)
    return levels, cuts


def _groups(anchors: Float32, groups: list[Rows], softening: float) -> Float32:
    means = [anchors[group].mean(axis=0, dtype=np.float64) for group in groups]
    spread = [np.square(anchors[group] - mean).sum(axis=1).mean() for group, mean in zip(groups, means, strict=True)]
    share = np.array([len(group) for group in groups]) / len(anchors)
    return np.ascontiguousarray(np.vstack([np.transpose(means), softening * np.array(spread), share]), "f4")


# --- boxes ------------------------------------------------------------------------------------------------------


def _boxes(anchors: Float32, levels: list[list[Rows]], cuts: list[Cut], a: float, b: float) -> Float32:
    nodes, d = [rows for level in levels for rows in level], anchors.shape[1]
    low, high = (np.stack([reduce(anchors[rows], axis=0) for rows in nodes]) for reduce in (np.min, np.max))
    middle, half = np.float32(0.5) * (low + high), np.float32(_AROUND / 2) * (high - low)
    half = np.maximum(half, np.float32(_NARROWEST) * half.max(axis=1, keepdims=True))
    half = np.maximum(half, np.float32(1e-6))  # of anchors in one place
    places = middle[:, None] + half[:, None] * (np.float32(_REACH) * _stencil(d))
    force = np.empty_like(places)
    groups = _groups(anchors, levels[-1], _SOFTENING)
    _forces(places.reshape(-1, d), groups, np.float32(a), np.float32(b), force.reshape(-1, d))
    cut = np.zeros((len(nodes), 2), np.float32)
    cut[: len(cuts)] = cuts  # leaves come last
    boxes = np.hstack([cut, middle, 1 / half, _quadratic(force).reshape(len(nodes), -1)])
    return np.vstack([np.zeros_like(boxes[:1]), boxes])


def _stencil(d: int) -> Float32:
    """The middle, both ways along each axis, and the four corners of each plane; (1 + 2 d + 2 d (d - 1), d)."""
    unit = np.eye(d, dtype=np.float32)
    along = [sign * unit[c] for c in range(d) for sign in (1, -1)]
    corners = [i * unit[c] + j * unit[e] for c, e in itertools.combinations(range(d), 2) for i, j in _CORNERS]
    return np.stack([0 * unit[0], *along, *corners])


_CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def _quadratic(at: Float32) -> Float32:
    """Coefficients (m, terms, d), in the order of ``_polynomial``, from the force on the stencil: its differences."""
    d, h = at.shape[2], np.float32(_REACH)
    middle, plus, minus = at[:, 0], at[:, 1 : 2 * d : 2], at[:, 2 : 2 * d + 1 : 2]
    linear = (plus - minus) / (2 * h)
    square = (plus + minus - 2 * middle[:, None]) / (2 * h * h)
    corner = at[:, 2 * d + 1 :].reshape(len(at), -1, 4, d)
    product = (corner[:, :, 0] - corner[:, :, 1] - corner[:, :, 2] + corner[:, :, 3]) / (4 * h * h)
    second, pair = [], iter(range(product.shape[1]))
    for c in range(d):
        second += [square[:, c], *(product[:, next(pair)] for _ in range(c + 1, d))]
    return np.concatenate([middle[:, None], linear, np.stack(second, axis=1)], axis=1)


# --- at a place -------------------------------------------------------------------------------------------------


@compiled
def _forces(places: Float32, groups: Float32, a: np.float32, b: np.float32, result: Float32) -> None:
    scratch = np.empty((2, groups.shape[1]), np.float32)
    for i in range(len(places)):
        _summed(places[i], groups, a, b, scratch, result[i])


@compiled
def repulsion(
    place: Float32, groups: Float32, boxes: Float32, a: np.float32, b: np.float32, scratch: Float32, force: Float32
) -> None:
    """Sets ``force`` (d,) to the sum over groups of share (place - mean) / ((0.001 + x) (1 + a x^b)).

    x is the squared distance, softened. In a box its polynomial stands for the sum, over more groups. ``scratch`` is
    (2, m).
    """
    box = _box_around(place, boxes, force) if len(boxes) else 0
    if box:
        _polynomial(boxes[box], scratch, force)
    else:
        _summed(place, groups, a, b, scratch, force)


@compiled
def _summed(place: Float32, groups: Float32, a: np.float32, b: np.float32, scratch: Float32, force: Float32) -> None:
    d, m = groups.shape[0] - 2, groups.shape[1]
    softening, share = groups[d], groups[d + 1]
    strength, terms = scratch[0], scratch[1]
    strength[:] = softening
    add_squares(place, groups, m, strength)
    repel(strength, a, b)
    for p in range(m):
        strength[p] *= share[p]
    for c in range(d):
        here = place[c]
        for p in range(m):
            terms[p] = strength[p] * (here - groups[c, p])
        force[c] = pairwise_sum(terms, m)


@compiled
def _box_around(place: Float32, boxes: Float32, inside: Float32) -> int:
    """The node whose box is the smallest around a place, or 0; sets ``inside`` to the place in it, -1 to 1."""
    d, leaves, node = len(place), len(boxes) // 2, 1
    while node < leaves:
        node = 2 * node + (1 if place[np.int64(boxes[node, 0])] > boxes[node, 1] else 0)
    for _ in range(_LEVELS):
        n = 0
        for c in range(d):
            inside[c] = (place[c] - boxes[node, 2 + c]) * boxes[node, 2 + d + c]
            n += abs(inside[c]) <= np.float32(1.0)
        if n == d:
            return node
        node //= 2
    return 0


@compiled
def _polynomial(box: Float32, scratch: Float32, force: Float32) -> None:
    """Of the place in the box, which is in ``force``; its value comes there."""
    d, u = len(force), scratch[0]
    at = 2 + 2 * d
    for c in range(d):
        u[c] = force[c]
        force[c] = box[at + c]
    at += d
    for i in range(d):
        for c in range(d):
            force[c] += u[i] * box[at + c]
        at += d
    for i in range(d):
        for j in range(i, d):
            term = u[i] * u[j]
            for c in range(d):
                force[c] += term * box[at + c]
            at += d
