"""The grid, the verdict, and its reason in words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import Candidate, CovarianceType
from distcluster.numerics.mixture.criteria import Criteria

Float64 = npt.NDArray[np.float64]
Rule = Literal["elbow", "bic", "icl", "silhouette", "stability"]

_STRUCTURE = 0.5  # nats a row over one Gaussian, below which there is no cluster structure
_GAIN_BEFORE = 0.25  # nats a row that the doubling before a standing elbow gained at least
_SHARE_AFTER = 0.5  # of that, what the doubling after it may still gain
_SHALLOW = 0.9  # ks this close to the deepest are the range of an elbow that does not stand
_AS_GOOD = 0.1  # reproducibility above the null this close to the best is as good
_ROWS_PER_COMPONENT = 20  # mixture rows that the automatic grid asks for each component


@dataclass(frozen=True, slots=True)
class Verdict:
    """The chosen candidate and why.

    Attributes
    ----------
    candidate : Candidate
    finding : str
        "elbow" (it stands), "no elbow", "no cluster structure", or the name of another rule.
    reason : str
        A sentence or two, with the figures.
    """

    candidate: Candidate
    finding: str
    reason: str


AUTO_N_COMPONENTS = (2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)
"""The automatic grid's start: geometric, two steps a doubling, because BIC is read over log2 k."""


def grid(
    n_components: Literal["auto"] | Sequence[int], covariance_types: Sequence[CovarianceType], mixture_rows: int
) -> list[Candidate]:
    """The candidates to fit: k = 1 always, then the ks in ascending order, each with every covariance type.

    Parameters
    ----------
    n_components : "auto" or sequence of int
    covariance_types : sequence of str
    mixture_rows : int
        M; the automatic grid stops where a component would have fewer than 20 of them.
    """
    if n_components == "auto":
        ks = [k for k in AUTO_N_COMPONENTS if k * _ROWS_PER_COMPONENT <= mixture_rows] or [2]
    else:
        ks = sorted(n_components)
    return [Candidate(k, kind) for k in dict.fromkeys([1, *ks]) for kind in covariance_types]


@dataclass(frozen=True, slots=True)
class Elbow:
    """The elbow of one covariance type's curve, and the figures that say whether it stands.

    Attributes
    ----------
    n_components : int
        The k farthest below the chord, or, where that one does not stand and one a step beside it does, that one.
    cost : float
        BIC / 2J there, nats a row.
    lowest : float
        The same at the best k within half a doubling: what the covariance type can do, were the elbow a step off.
    gain_before, gain_after : float
        Fall of the cost over the doubling of k before and after, nats a row; after the grid's last half doubling the
        slope of what is left is scaled to a doubling, and NaN at its very end.
    shorter : int
        The elbow without the grid's last doubling; 0 where too little is left.
    near : tuple of int
        The ks that lie at least 0.9 times as far below the chord.
    stands : bool
    """

    n_components: int
    cost: float
    lowest: float
    gain_before: float
    gain_after: float
    shorter: int
    near: tuple[int, ...]
    stands: bool


_STEP = 0.6  # of log2 k: the largest step of the automatic grid, from 2 to 3
_MOST_KS = 512  # of the automatic grid
_SAMPLE_ROWS_PER_COMPONENT = 50  # sample rows that an extension of the grid asks for each component
_BETWEEN = 8  # ks at most that are fitted between an elbow's neighbours


@dataclass(frozen=True, slots=True)
class Addition:
    """What the automatic grid lacks: ks to fit, ascending, and why; no ks when it is complete."""

    ks: tuple[int, ...]
    why: Literal["extended", "between", "complete"]


def largest_k(sample_rows: int, mixture_rows: int) -> int:
    """Where the automatic grid ends: min(512, S / 50), and 20 rows of the mixture draw for each component."""
    return min(_MOST_KS, sample_rows // _SAMPLE_ROWS_PER_COMPONENT, mixture_rows // _ROWS_PER_COMPONENT)


def missing_ks(table: Sequence[Criteria], n_rows: int, limit: int, *, has_between: bool) -> Addition:
    """The ks that the automatic grid should still try.

    While the elbow lies in the last doubling of the grid, the grid is extended by a doubling in two steps. Once it
    stands, up to eight ks between its neighbours in the grid are added, once.

    Parameters
    ----------
    table : sequence of Criteria
        Of the rows that were fitted, or of others.
    n_rows : int
        Rows that the table is of.
    limit : int
        ``largest_k``.
    has_between : bool
        Whether ks between an elbow's neighbours have been added before.
    """
    nothing = Addition((), "complete")
    elbows = _elbows([row for row in table if not row.error], n_rows)
    if not elbows:
        return nothing
    elbow = min(elbows.values(), key=lambda each: each.lowest)
    ks = sorted({row.n_components for row in table})
    if 2 * elbow.n_components > ks[-1] and ks[-1] < limit and not has_between:
        doubled = (round(ks[-1] * 2**0.5), 2 * ks[-1])
        return Addition(tuple(sorted({min(k, limit) for k in doubled})), "extended")
    if has_between or not elbow.stands:
        return nothing
    place = ks.index(elbow.n_components)
    low, high = ks[max(place - 1, 0)], ks[min(place + 1, len(ks) - 1)]
    between = np.round(np.geomspace(low, high, _BETWEEN + 2)).astype(int) if high - low > _BETWEEN else range(low, high)
    new = tuple(sorted({int(k) for k in between if low < k < high} - set(ks)))
    return Addition(new, "between") if new else nothing


def find_elbow(ks: Sequence[int], cost: Sequence[float]) -> Elbow:
    """The elbow of a cost curve over log2 k (Kneedle: Satopaa, Albrecht, Irwin, Raghavan 2011).

    On a logarithmic axis the answer hardly moves with the end of the grid; on a linear one it does.

    Parameters
    ----------
    ks : sequence of int, ascending, at least 2
    cost : sequence of float
        BIC / 2J, nats a row.
    """
    x, y = np.log2(np.asarray(ks, np.float64)), np.asarray(cost, np.float64)
    depth = _below_chord(x, y)
    by_depth = np.argsort(-depth, kind="stable")
    deepest = by_depth[0]
    # An elbow is read off to one step of the grid: two ks that are equally deep must not hide one that stands.
    places = [i for i in by_depth if depth[i] >= _SHALLOW * depth[deepest] and abs(x[i] - x[deepest]) <= _STEP]
    elbows = [_elbow_at(int(i), ks, x, y, depth) for i in places]
    return next((elbow for elbow in elbows if elbow.stands), elbows[0])


def _elbow_at(place: int, ks: Sequence[int], x: Float64, y: Float64, depth: Float64) -> Elbow:
    before = _at(x, y, x[place] - 1.0) - y[place]
    after = _fall_after(x, y, place)
    kept = x <= x[-1] - 1.0
    shorter = int(np.argmax(_below_chord(x[kept], y[kept]))) if kept.sum() >= 3 else -1
    stands = bool(
        depth[place] > 0.0
        and before >= _GAIN_BEFORE
        and after <= _SHARE_AFTER * before  # false for NaN
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
        stands,
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


def select(table: Sequence[Criteria], rule: Rule, n_rows: int) -> Verdict:
    """Choose one candidate of the grid.

    Parameters
    ----------
    table : sequence of Criteria
    rule : Rule
    n_rows : int
        J, the number of judging rows.

    Raises
    ------
    ValueError
        When no candidate could be fitted; the errors are named.
    """
    usable = [row for row in table if not row.error]
    if not usable:
        errors = sorted({row.error for row in table})
        raise ValueError(f"no candidate of the grid could be fitted: {'; '.join(errors)}")
    if rule == "stability":
        return _most_reproducible(usable)
    if rule != "elbow":
        return _best(usable, rule)
    verdict = _select_elbow(usable, n_rows)
    if verdict.finding == "no elbow":
        verdict = _middle_of_range(usable, verdict)
    return replace(verdict, reason=verdict.reason + _agreement(usable, verdict.candidate))


def _agreement(usable: Sequence[Criteria], chosen: Candidate) -> str:
    """What replicates say of the chosen candidate."""
    row = next(row for row in usable if row.candidate == chosen)
    if np.isnan(row.above_null):
        return ""
    return (
        f" Replicates of the whole pipeline agree on it by an adjusted Rand index of {row.reproducibility:.2f}; on one "
        f"Gaussian of the same extent by {row.reproducibility_null:.2f}."
    )


def _most_reproducible(usable: Sequence[Criteria]) -> Verdict:
    ranked = [row for row in usable if np.isfinite(row.above_null)]
    if not ranked:
        raise ValueError("no candidate has been replicated: set selection.replicates to 2 or more")
    best = max(ranked, key=lambda row: row.above_null)
    return Verdict(
        best.candidate,
        "reproducibility",
        f"{best.n_components} components with {best.covariance_type} covariance: of {len(ranked)} candidates the one "
        f"that comes back best beyond a null.{_agreement(usable, best.candidate)}",
    )


def _middle_of_range(usable: Sequence[Criteria], verdict: Verdict) -> Verdict:
    """Without an elbow: the ks around the best that come back nearly as well, and the middle one of them."""
    kind = verdict.candidate.covariance_type
    curve = [row for row in usable if row.covariance_type == kind and np.isfinite(row.above_null)]
    if not curve:
        return verdict
    curve.sort(key=lambda row: row.n_components)
    place = max(range(len(curve)), key=lambda i: curve[i].above_null)
    best = curve[place].above_null
    first = last = place
    while first > 0 and curve[first - 1].above_null >= best - _AS_GOOD:
        first -= 1
    while last < len(curve) - 1 and curve[last + 1].above_null >= best - _AS_GOOD:
        last += 1
    ks = [row.n_components for row in curve[first : last + 1]]
    middle = min(ks, key=lambda k: abs(np.log2(k) - (np.log2(ks[0]) + np.log2(ks[-1])) / 2.0))
    return Verdict(
        Candidate(middle, kind),
        "no elbow",
        f"{verdict.reason.split('. ')[0]}. With {kind} covariance, {ks[0]} to {ks[-1]} components come back from "
        f"replicates within {_AS_GOOD} of the best ({best:.2f} above a null, adjusted Rand index); {middle}, in the "
        f"middle, were taken.",
    )


def _best(usable: Sequence[Criteria], rule: Rule) -> Verdict:
    sign = -1.0 if rule == "silhouette" else 1.0
    ranked = [row for row in usable if np.isfinite(getattr(row, rule))]
    if not ranked:
        only = usable[0]
        return Verdict(only.candidate, rule, f"{only.candidate} is the only candidate; {rule} compares nothing.")
    best = min(ranked, key=lambda row: sign * getattr(row, rule))
    name = {"bic": "lowest BIC", "icl": "lowest ICL", "silhouette": "highest silhouette"}[rule]
    value = getattr(best, rule)
    shown = f"{value:.3f}" if rule == "silhouette" else f"{value:,.0f}"
    return Verdict(
        best.candidate,
        rule,
        f"{best.n_components} components with {best.covariance_type} covariance: the {name} of "
        f"{len(ranked)} candidates, {shown}. The lowest value of a grid is not the number of groups in the data.",
    )


def _elbows(usable: Sequence[Criteria], n_rows: int) -> dict[CovarianceType, Elbow]:
    """The elbow of every covariance type that has at least two ks."""
    curves: dict[CovarianceType, list[Criteria]] = {}
    for row in sorted(usable, key=lambda row: row.n_components):
        curves.setdefault(row.covariance_type, []).append(row)
    return {
        kind: find_elbow([row.n_components for row in rows], [row.bic / (2 * n_rows) for row in rows])
        for kind, rows in curves.items()
        if len(rows) >= 2
    }


def _select_elbow(usable: Sequence[Criteria], n_rows: int) -> Verdict:
    one = min((row.bic for row in usable if row.n_components == 1), default=float("nan")) / (2 * n_rows)
    elbows = _elbows(usable, n_rows)
    if not elbows:
        best = min(usable, key=lambda row: row.bic)
        return Verdict(best.candidate, "no elbow", f"{best.candidate}: one k alone has no curve and no elbow.")
    kind = min(elbows, key=lambda name: elbows[name].lowest)
    elbow = elbows[kind]
    gain = one - elbow.cost
    what = f"{elbow.n_components} components with {kind} covariance"
    if gain < _STRUCTURE:
        candidate = min((row for row in usable if row.n_components == 1), key=lambda row: row.bic).candidate
        return Verdict(
            candidate,
            "no cluster structure",
            f"No cluster structure: the best elbow of the grid, {what}, describes a row only {gain:.2f} nats better "
            f"than one Gaussian (at least {_STRUCTURE} would show structure). One component was taken.",
        )
    types = (
        f" Of {len(elbows)} covariance types, {kind} has the lowest BIC around its elbow." if len(elbows) > 1 else ""
    )
    if elbow.stands:
        return Verdict(
            Candidate(elbow.n_components, kind),
            "elbow",
            f"{what}: the elbow of the BIC curve over log2 k. The doubling of k before it gained "
            f"{elbow.gain_before:.2f} nats a row, the doubling after it {elbow.gain_after:.2f}; it describes a row "
            f"{gain:.2f} nats better than one Gaussian.{types}",
        )
    return Verdict(
        Candidate(elbow.n_components, kind),
        "no elbow",
        f"No elbow: {_why_not(elbow)}. {_range(elbow)}{what} was taken because it lies farthest below the chord of "
        f"the BIC curve, {gain:.2f} nats a row better than one Gaussian.{types}",
    )


def _range(elbow: Elbow) -> str:
    if len(elbow.near) == 1:
        return ""
    return f"Any k from {elbow.near[0]} to {elbow.near[-1]} is as defensible; "


def _why_not(elbow: Elbow) -> str:
    reasons = []
    if elbow.gain_before < _GAIN_BEFORE:
        reasons.append(
            f"the doubling of k before {elbow.n_components} gained only {elbow.gain_before:.2f} nats a row "
            f"(a standing elbow needs {_GAIN_BEFORE})"
        )
    if np.isnan(elbow.gain_after):
        reasons.append(f"the grid ends at {elbow.n_components}")
    elif elbow.gain_after > _SHARE_AFTER * elbow.gain_before:
        reasons.append(
            f"the doubling after {elbow.n_components} still gained {elbow.gain_after:.2f} nats a row, after "
            f"{elbow.gain_before:.2f} before it"
        )
    if elbow.shorter == 0:
        reasons.append("the grid is too short to tell whether it would stay where it is")
    elif not elbow.stands and not reasons:
        reasons.append(f"without the grid's last doubling it would be {elbow.shorter} instead of {elbow.n_components}")
    return ", and ".join(reasons)
