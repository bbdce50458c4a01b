"""The shape of the components: ellipses in the plane where the projection is widest, and the tied matrix."""

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from distcluster.numerics.mixture.parameters import Mixture
from distcluster.report.subsample_rows import principal_axes

Float64 = npt.NDArray[np.float64]

_SIDE, _MARGIN = 560, 24
_POINTS = 1_500
_CELL = 46


def ellipses(mixture: Mixture, rows: npt.NDArray[np.float32], fills: list[str]) -> Markup:
    """Every component's ellipse of one standard deviation, seen along the projection's two leading principal axes.

    Exact, unlike on a map of its own: a Gaussian's shadow on a plane is the Gaussian of the shadow's mean and
    covariance.

    Parameters
    ----------
    mixture : Mixture
    rows : (n, d) float32
        Some rows of the projection: they choose the plane, and are drawn as dots.
    fills : list of K str
    """
    centre, axes = principal_axes(rows, 2)
    dots = (rows.astype(np.float64) - centre) @ axes
    means = (mixture.means - centre) @ axes
    shadows = axes.T @ mixture.full_covariances() @ axes
    low, high = np.quantile(np.concatenate([dots, means]), [0.002, 0.998], axis=0)
    scale = (_SIDE - 2 * _MARGIN) / max(float((high - low).max()), 1e-9)
    height = round(2 * _MARGIN + scale * float(high[1] - low[1]))

    def place(points: Float64) -> Float64:
        x, y = _MARGIN + scale * (points[:, 0] - low[0]), _MARGIN + scale * (high[1] - points[:, 1])
        return np.round(np.stack([x, y], axis=1), 1)

    some = place(dots[:: -(-len(dots) // _POINTS)])
    path = "".join(f"M{x:g} {y:g}h.01" for x, y in some)
    shown = np.flatnonzero(mixture.weights > 1e-6)
    drawn = []
    for k, (x, y) in zip(shown, place(means[shown]), strict=True):
        values, vectors = np.linalg.eigh(shadows[k])
        long, short = scale * np.sqrt(np.maximum(values[::-1], 0.0))
        turn = -np.degrees(np.arctan2(vectors[1, -1], vectors[0, -1]))
        drawn.append(
            Markup(
                '<ellipse cx="{}" cy="{}" rx="{:.1f}" ry="{:.1f}" transform="rotate({:.1f} {} {})" fill="{}" '
                'stroke="{}"><title>component {}: weight {:.1%}</title></ellipse>'
            ).format(x, y, max(long, 1.0), max(short, 1.0), turn, x, y, fills[k], fills[k], k, mixture.weights[k])
        )
    names = (Markup('<text class="mid" x="{}" y="{}">{}</text>').format(x, y + 4, k)
             for k, (x, y) in zip(shown, place(means[shown]), strict=True))  # fmt: skip
    return Markup(
        '<svg class="ellipses" viewBox="0 0 {w} {h}" width="{w}" role="img" aria-label="Components as ellipses">'
        '<path class="dots" d="{path}"/>{drawn}{names}</svg>'
    ).format(w=_SIDE, h=height, path=path, drawn=Markup().join(drawn), names=Markup().join(names))


def tied_matrix(mixture: Mixture) -> Markup:
    """The one covariance matrix of a tied mixture as shades with its values; nothing for the other types."""
    if mixture.candidate.covariance_type != "tied":
        return Markup()
    matrix = mixture.covariances
    largest = float(np.abs(matrix).max()) or 1.0
    d = len(matrix)
    cells = (
        Markup(
            '<rect class="{}" x="{}" y="{}" width="{w}" height="{w}" opacity="{:.2f}"/>'
            '<text class="mid" x="{}" y="{}">{:.2g}</text>'
        ).format(
            "below" if matrix[i, j] < 0 else "above", _CELL * j, _CELL * i, 0.6 * abs(matrix[i, j]) / largest,
            _CELL * (j + 0.5), _CELL * (i + 0.5) + 4, matrix[i, j], w=_CELL - 1,
        )
        for i in range(d)
        for j in range(d)
    )  # fmt: skip
    return Markup(
        '<svg class="matrix" viewBox="0 0 {s} {s}" width="{s}" role="img" aria-label="Covariance of all components">'
        "{cells}</svg>"
    ).format(s=_CELL * d, cells=Markup().join(cells))
