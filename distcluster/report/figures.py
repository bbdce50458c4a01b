"""Drawings as SVG: they print sharp, and take their colours from the page, light or dark."""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image
from scipy.cluster.hierarchy import dendrogram, leaves_list
from scipy.ndimage import convolve

Float64 = npt.NDArray[np.float64]

MOST_CLASSES = 60
"""That a heat map draws."""

_WIDTH, _HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 38
_LEAF, _TREE = 20, 260  # height of a leaf's line, width of the tree
_CELL, _NAME, _LETTERS = 20, 190, 26  # pixels of a cell, of a class's name, and its letters
_PALEST = 0.01  # share of a cluster that is drawn
_COVERED = 0.08  # share of the map that rows should cover to be seen
_LARGEST_DISC = 3  # pixels
_FAINTEST = 90  # of 255: a single row must still be seen


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a panel: ``style`` is a class of the page's style sheet, ``elbow`` a k to mark, or 0."""

    name: str
    style: str
    ks: Sequence[int]
    values: Sequence[float]
    elbow: int = 0


def curve_panel(
    title: str, unit: str, curves: Sequence[Curve], *, chosen: tuple[str, int], near: Sequence[int] = ()
) -> Markup:
    """A criterion over k on a logarithmic axis, one line a covariance type.

    Parameters
    ----------
    title, unit : str
    curves : sequence of Curve
        NaN is left out.
    chosen : (str, int)
        The name of the curve and the k to ring.
    near : sequence of int
        The ks that are as defensible as the elbow: a band.
    """
    points = {each.style: _finite(each) for each in curves}
    ks = [k for each in points.values() for k, _ in each]
    values = [value for each in points.values() for _, value in each]
    if not values:
        return Markup()
    x, y = _Axis(np.log2(ks), _LEFT, _WIDTH - _RIGHT), _Axis(values, _HEIGHT - _BOTTOM, _TOP)
    parts = [_band(x, near), _grid(x, y, sorted(set(ks)), unit)]
    for curve in curves:
        parts.append(_line(curve, points[curve.style], x, y))
        parts.extend(_mark(k, v, x, y, "elbow", f"{curve.name}: elbow at {k}") for k, v in points[curve.style]
                     if k == curve.elbow)  # fmt: skip
        parts.extend(_mark(k, v, x, y, "chosen", f"chosen: {k} {curve.name}") for k, v in points[curve.style]
                     if (curve.name, k) == chosen)  # fmt: skip
    return Markup(
        '<svg class="panel" viewBox="0 0 {w} {h}" role="img" aria-label="{title} over the number of components">'
        '<text class="title" x="{left}" y="16">{title}</text>{parts}</svg>'
    ).format(w=_WIDTH, h=_HEIGHT, left=_LEFT, title=title, parts=Markup().join(parts))


class _Axis:
    """A linear scale with a little room at both ends."""

    def __init__(self, values: Sequence[float] | Float64, start: float, stop: float) -> None:
        low, high = float(np.min(values)), float(np.max(values))
        room = 0.05 * (high - low) or 0.5
        self.low, self.high = low - room, high + room
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._stop - self._start), 1)

    def ticks(self) -> list[float]:
        """Four or so round numbers."""
        step = 10.0 ** np.floor(np.log10((self.high - self.low) / 2))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 5)
        return [float(v) + 0.0 for v in np.arange(np.ceil(self.low / step), self.high / step) * step]  # no "-0"


def _finite(curve: Curve) -> list[tuple[int, float]]:
    return [(k, float(v)) for k, v in zip(curve.ks, curve.values, strict=True) if np.isfinite(v)]


def _band(x: _Axis, near: Sequence[int]) -> Markup:
    if len(near) < 2:
        return Markup()
    left, right = x(np.log2(near[0])), x(np.log2(near[-1]))
    return Markup('<rect class="range" x="{}" y="{}" width="{}" height="{}"/>').format(
        left, _TOP, round(right - left, 1), _HEIGHT - _BOTTOM - _TOP
    )


def _grid(x: _Axis, y: _Axis, ks: Sequence[int], unit: str) -> Markup:
    parts = []
    for value in y.ticks():
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, _WIDTH - _RIGHT, y(value), y(value)))  # fmt: skip
        parts.append(Markup('<text class="tick end" x="{}" y="{}">{:g}</text>').format(
            _LEFT - 6, y(value) + 4, round(value, 6)))  # fmt: skip
    last = -np.inf
    for k in ks:
        if x(np.log2(k)) - last >= 26:
            last = x(np.log2(k))
            parts.append(Markup('<text class="tick mid" x="{}" y="{}">{}</text>').format(last, _HEIGHT - 22, k))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(Markup('<text class="tick mid" x="{}" y="{}">components k</text>').format(middle, _HEIGHT - 5))
    parts.append(Markup('<text class="tick end" x="{}" y="16">{}</text>').format(_WIDTH - _RIGHT, unit))
    return Markup().join(parts)


def _line(curve: Curve, points: Sequence[tuple[int, float]], x: _Axis, y: _Axis) -> Markup:
    path = " ".join(f"{x(np.log2(k))},{y(value)}" for k, value in points)
    dots = (
        Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"><title>{}, k = {}: {:.4g}</title></circle>').format(
            curve.style, x(np.log2(k)), y(value), curve.name, k, value
        )
        for k, value in points
    )
    return Markup('<polyline class="line {}" points="{}"/>').format(curve.style, path) + Markup().join(dots)


def _mark(k: int, value: float, x: _Axis, y: _Axis, style: str, text: str) -> Markup:
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
        style, x(np.log2(k)), y(value), 9 if style == "chosen" else 6, text
    )


# --- the tree ---------------------------------------------------------------------------------------------------


def leaf_order(merges: Float64, K: int) -> list[int]:
    """The components as the tree's leaves stand, similar ones together."""
    return [int(k) for k in leaves_list(merges)] if len(merges) else list(range(K))


def tree(merges: Float64, names: Mapping[int, str], fills: Sequence[str]) -> Markup:
    """The hierarchy as a dendrogram, leaves on the right, earlier merges nearer to them.

    Parameters
    ----------
    merges : (K - 1, 4) float64
        ``hierarchy/merge``.
    names : mapping of int to str
        What to write beside each component.
    fills : sequence of K str
        Colours.
    """
    if not len(merges):
        return Markup()
    drawn = dendrogram(merges, no_plot=True)
    height = _LEAF * len(drawn["leaves"])
    last = merges[-1, 2]

    def x(merge: float) -> float:
        return round(_TREE - 8 - (_TREE - 16) * merge / float(last), 1)

    def y(place: float) -> float:
        return round(place / 10.0 * _LEAF, 1)  # SciPy puts leaves at 5, 15, 25 ...

    links = (
        Markup('<path class="link" d="M{} {}H{}V{}H{}"/>').format(x(d[0]), y(i[0]), x(d[1]), y(i[2]), x(d[3]))
        for i, d in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    )
    leaves = (
        Markup(
            '<circle cx="{}" cy="{}" r="5" fill="{}"/>'
            '<a href="#cluster-{}"><text class="leaf" x="{}" y="{}">{}</text></a>'
        ).format(_TREE, y(10 * place + 5), fills[k], k, _TREE + 12, y(10 * place + 5) + 4, names[k])
        for place, k in enumerate(drawn["leaves"])
    )
    return Markup('<svg class="tree" viewBox="0 0 760 {h}" width="760" height="{h}">{links}{leaves}</svg>').format(
        h=height, links=Markup().join(links), leaves=Markup().join(leaves)
    )


# --- the contingency table --------------------------------------------------------------------------------------


def heat_map(
    table: npt.NDArray[np.int64],
    classes: Sequence[str],
    order: Sequence[int],
    n_rows: npt.NDArray[np.int64],
    *,
    square_of: str = "",
) -> Markup:
    """A contingency table as shades: of every cluster (a column), the share of its rows in each class (a row).

    Clusters stand in the order of the tree, and a class where the middle of its rows is, so that structure lies along
    the diagonal. The most frequent classes are drawn; the others are counted in the shares. Where rows and columns are
    the same things, both stand in the given order.

    Parameters
    ----------
    table : (C, K) int64
    classes : sequence of C str
    order : sequence of int
        Clusters with rows, from left to right.
    n_rows : (K,) int64
        Rows of each cluster: fewer than its column adds up to where rows have several classes.
    square_of : str
        What rows and columns are, where they are the same.
    """
    drawn = np.array(order) if square_of else np.argsort(-table.sum(axis=1), kind="stable")[:MOST_CLASSES]
    counts = table[drawn][:, list(order)].astype(np.float64)
    middle = counts @ np.arange(len(order)) / np.maximum(counts.sum(axis=1), 1.0)
    rows = np.arange(len(order)) if square_of else np.argsort(middle, kind="stable")
    share = counts / np.maximum(n_rows[list(order)], 1)
    width, height = _NAME + _CELL * len(order), _CELL * (len(rows) + 1)
    parts = [
        Markup('<text class="tick mid" x="{}" y="13">{}</text>').format(_NAME + _CELL * (j + 0.5), k)
        for j, k in enumerate(order)
    ]
    for i, row in enumerate(rows):
        name, top = classes[drawn[row]], _CELL * (i + 1)
        shown = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
        parts.append(Markup('<text class="end" x="{}" y="{}">{}</text>').format(_NAME - 6, top + 14, shown))
        parts.extend(
            Markup(
                '<rect x="{}" y="{}" width="{w}" height="{w}" opacity="{:.2f}"><title>{}, {} {}: {:.1%}</title></rect>'
            ).format(_NAME + _CELL * j, top, share[row, j], name, square_of or "cluster", k, share[row, j], w=_CELL - 1)
            for j, k in enumerate(order)
            if share[row, j] >= _PALEST
        )
    return Markup('<svg class="heat" viewBox="0 0 {w} {h}" width="{w}" height="{h}">{parts}</svg>').format(
        w=width, h=height, parts=Markup().join(parts)
    )


# --- the map ----------------------------------------------------------------------------------------------------


def map_png(colour_sums: Float64) -> str:
    """``map_image`` as a data URL."""
    file = io.BytesIO()
    Image.fromarray(map_image(colour_sums)[::-1]).save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


def map_image(colour_sums: Float64) -> npt.NDArray[np.uint8]:
    """The map of all rows: the mean colour of a pixel's rows, its opacity the rank of their number.

    Opacity by rank (histogram equalisation, as datashader's ``eq_hist``) shows a lone row and a crowd of thousands
    alike.

    Parameters
    ----------
    colour_sums : (height, width, 4) float64
        ``RowStatistics.colour_sums``.

    Returns
    -------
    (height, width, 4) uint8
        Red, green, blue and opacity; the first row is the lowest.
    """
    sums = spread(colour_sums)
    rows = sums[..., 3]
    filled = rows > 0
    image = np.zeros((*rows.shape, 4), np.uint8)
    image[filled, :3] = np.round(sums[filled, :3] / rows[filled, None])
    counts, place = np.unique(rows[filled], return_inverse=True)
    below = np.cumsum(np.bincount(place, minlength=len(counts))) / max(filled.sum(), 1)
    image[filled, 3] = np.round(_FAINTEST + (255 - _FAINTEST) * below[place])
    return image


def spread(sums: Float64) -> Float64:
    """Draw every row as a small disc where the rows are so few that single pixels would be lost to the eye.

    Parameters
    ----------
    sums : (height, width, channels) float64

    Returns
    -------
    (height, width, channels) float64
        Of the discs; the same array where rows are many.
    """
    share = np.count_nonzero(sums[..., -1]) / sums[..., -1].size
    radius = next((r for r in range(_LARGEST_DISC) if share * np.pi * (r + 0.5) ** 2 >= _COVERED), _LARGEST_DISC)
    if radius == 0:
        return sums
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x**2 + y**2 <= (radius + 0.5) ** 2).astype(np.float64)
    return np.stack([convolve(channel, disc, mode="constant") for channel in np.moveaxis(sums, -1, 0)], axis=-1)
