"""The elbow of a curve of BIC over k."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import CovarianceType
from distcluster.numerics.mixture.criteria import Criteria

Float64 = npt.NDArray[np.float64]

GAIN_BEFORE = 0.25
"""Nats per row that the doubling of k before an accepted elbow gained at least."""
SHARE_AFTER = 0.5
"""Of that, what the doubling after it may still gain."""
_SHALLOW = 0.9  # ks this close to the deepest are the range of an elbow that is not accepted
_ROUNDED = 1e-9  # nats per row: both ends of a chord lie on it, and where nothing lies below, the last k is deepest
_STEP = 0.6  # of log2 k: the largest step of the automatic grid, from 2 to 3


@dataclass(frozen=True, slots=True)
class Elbow:
    """The elbow of one covariance type's curve, and the figures that say whether it is accepted.

    Attributes
    ----------
    n_components : int
        The k farthest below the chord, or, where that one is not accepted and one a step beside it is, that one.
    cost : float
        BIC / 2J there, nats per row.
    lowest : float
        The same at the best k within half a doubling: what the covariance type can do, were the elbow a step off.
    gain_before, gain_after : float
        Fall of the cost over the doubling of k before and after, nats per row; after the grid's last half doubling the
        slope of what is left is scaled to a doubling, and NaN at its very end.
    shorter : int
        The elbow without the grid's last doubling; 0 where too little is left.
    near : tuple of int
        The ks that lie at least 0.9 times as far below the chord.
    accepted : bool
    """

    n_components: int
    cost: float
    lowest: float
    gain_before: float
    gain_after: float
    shorter: int
    near: tuple[int, ...]
    accepted: bool


def elbows_by_type(table: Sequence[Criteria], n_rows: int) -> dict[CovarianceType, Elbow]:
    """The elbow of every covariance type that has at least two ks."""
    curves: dict[CovarianceType, list[Criteria]] = {}
    for row in sorted(table, key=lambda row: row.n_components):
        curves.setdefault(row.covariance_type, []).append(row)
    return {
        kind: find_elbow([row.n_components for row in rows], [row.bic / (2 * n_rows) for row in rows])
        for kind, rows in curves.items()
        if len(rows) >= 2
    }


def find_elbow(ks: Sequence[int], cost: Sequence[float]) -> Elbow:
    """The elbow of a cost curve over log2 k (Kneedle: Satopaa, Albrecht, Irwin, Raghavan 2011).

    On a logarithmic axis the answer hardly moves with the end of the grid; on a linear one it does.

    Parameters
    ----------
    ks : sequence of int, ascending, at least 2
    cost : sequence of float
        BIC / 2J, nats per row.

    Examples
    --------
    >>> elbow = find_elbow([1, 2, 4, 8, 16, 32], [8.0, 7.0, 6.0, 5.0, 4.9, 4.8])
    >>> elbow.n_components, round(elbow.gain_before, 2), round(elbow.gain_after, 2), elbow.accepted
    (8, 1.0, 0.1, True)
    """
    x, y = np.log2(np.asarray(ks, np.float64)), np.asarray(cost, np.float64)
    depth = _below_chord(x, y)
    by_depth = np.argsort(-depth, kind="stable")
    deepest = by_depth[0]
    # An elbow is read off to one step of the grid: two ks that are equally deep must not hide one that is accepted.
    places = [i for i in by_depth if depth[i] >= _SHALLOW * depth[deepest] and abs(x[i] - x[deepest]) <= _STEP]
    elbows = [_elbow_at(int(i), ks, x, y, depth) for i in places]
    return next((elbow for elbow in elbows if elbow.accepted), elbows[0])


def _elbow_at(place: int, ks: Sequence[int], x: Float64, y: Float64, depth: Float64) -> Elbow:
    before = _at(x, y, x[place] - 1.0) - y[place]
    after = _fall_after(x, y, place)
    kept = x <= x[-1] - 1.0
    below = _below_chord(x[kept], y[kept]) if kept.sum() >= 3 else np.empty(0)
    shorter = int(np.flatnonzero(below >= below.max() - _ROUNDED)[-1]) if len(below) else -1
    accepted = bool(
        depth[place] > 0.0
        and before >= GAIN_BEFORE
        and after <= SHARE_AFTER * before  # false for NaN
        and shorter >= 0
        and abs(x[place] - x[shorter]) <= _STEP
    )
    near = tuple(k for k, below in zip(ks, depth, strict=True) if below >= _SHALLOW * depth.max())
    return Elbow(
        int(ks[place]),
        float(y[place]),
        float(y[np.abs(x - x[place]) <= _STEP].min()),
        float(before),
        float(after),
        int(ks[shorter]) if shorter >= 0 else 0,
        near,
        accepted,
    )


def _below_chord(x: Float64, y: Float64) -> Float64:
    """How far each point lies below the straight line from the first to the last."""
    return np.asarray(y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0]) - y)


def _at(x: Float64, y: Float64, place: float) -> float:
    return float(np.interp(place, x, y))


def _fall_after(x: Float64, y: Float64, best: int) -> float:
    """Fall of the cost over the doubling after ``best``, scaled up where the grid ends sooner."""
    length = min(1.0, x[-1] - x[best])
    if length <= 0.0:
        return float("nan")
    return float((y[best] - _at(x, y, x[best] + length)) / length)
