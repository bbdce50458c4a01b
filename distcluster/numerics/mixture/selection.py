"""The verdict, and its reason in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.criteria import Criteria
from distcluster.numerics.mixture.elbow import GAIN_BEFORE, SHARE_AFTER, Elbow, elbows_by_type
from distcluster.numerics.mixture.trust import AS_GOOD, Trust, assess, do_return, is_like_null, trust_of

Rule = Literal["elbow", "bic", "icl", "silhouette", "stability"]

_STRUCTURE = 0.5  # nats per row over one Gaussian, below which there is no cluster structure
_OCTAVE = 2.0  # ks from an elbow's half to its double are compared by whether their clusters return
_AS_STABLE = 0.02  # a row stability this close to the largest is as good: of few clusters it is a little larger


@dataclass(frozen=True, slots=True)
class Verdict:
    """The chosen candidate and why.

    Attributes
    ----------
    candidate : Candidate
    finding : str
        "elbow" (it is accepted), "no elbow", "no cluster structure", or the name of another rule.
    reason : str
        A sentence or two, with the figures.
    trust : Trust
        Whether the clusters return when other rows are drawn, in a word.
    advice : str
        The same in a sentence: what to use them for.
    """

    candidate: Candidate
    finding: str
    reason: str
    trust: Trust = "not measured"
    advice: str = ""

    def __str__(self) -> str:
        return self.reason


def select(table: Sequence[Criteria], rule: Rule, n_rows: int) -> Verdict:
    """Choose one candidate of the grid.

    Parameters
    ----------
    table : sequence of Criteria
    rule : Rule
    n_rows : int
        J, the number of held-out rows.

    Raises
    ------
    ValueError
        When no candidate could be fitted; the errors are named.

    Examples
    --------
    >>> nan, n_rows = float("nan"), 1000
    >>> cost = {1: 8.0, 2: 7.0, 4: 6.0, 8: 5.0, 16: 4.9, 32: 4.8}  # BIC / 2J
    >>> table = [Criteria(k, "full", nan, 2 * n_rows * y, nan, nan, n_iter=9, converged=True) for k, y in cost.items()]
    >>> verdict = select(table, "elbow", n_rows)
    >>> print(verdict.candidate, verdict.finding, sep=", ")
    full-8, elbow
    >>> print(select(table, "bic", n_rows).candidate)
    full-32
    """
    usable = [row for row in table if not row.error]
    if not usable:
        errors = sorted({row.error for row in table})
        raise ValueError(f"no candidate of the grid could be fitted: {'; '.join(errors)}")
    verdict = _choose(usable, rule, n_rows)
    return replace(verdict, **asdict(assess(usable, verdict.candidate)))


def _choose(usable: Sequence[Criteria], rule: Rule, n_rows: int) -> Verdict:
    if rule == "stability":
        return _most_stable(usable)
    if rule != "elbow":
        return _best(usable, rule)
    verdict = _unless_it_is_gone(_select_elbow(usable, n_rows), usable)
    if verdict.finding == "elbow":
        verdict = _about_the_elbow(verdict, usable)
    if verdict.finding == "no elbow":
        verdict = _within_range(usable, verdict)
    return replace(verdict, reason=verdict.reason + _agreement(usable, verdict.candidate))


def _agreement(usable: Sequence[Criteria], chosen: Candidate) -> str:
    """What replicates say of the chosen candidate."""
    row = next(row for row in usable if row.candidate == chosen)
    if np.isnan(row.excess_over_null):
        return ""
    error = f" (standard error {row.stability_error:.2f})" if np.isfinite(row.stability_error) else ""
    return (
        f" Replicates of the whole pipeline on other halves of the rows agree on it by an adjusted Rand index of "
        f"{row.stability:.2f}{error}; on one Gaussian of the same extent by {row.stability_null:.2f}."
    )


def _most_stable(usable: Sequence[Criteria]) -> Verdict:
    ranked = [row for row in usable if np.isfinite(row.excess_over_null)]
    if not ranked:
        raise ValueError("no candidate has been replicated: set selection.replicates to 2 or more")
    best = max(ranked, key=lambda row: row.excess_over_null)
    return Verdict(
        best.candidate,
        "stability",
        f"{best.n_components} components with {best.covariance_type} covariance: of {len(ranked)} candidates the one "
        f"with the largest excess of its stability over the null.{_agreement(usable, best.candidate)}",
    )


def _about_the_elbow(verdict: Verdict, usable: Sequence[Criteria]) -> Verdict:
    """Of the ks within an octave of an elbow the largest whose clusters return about as well as those of any.

    How well they return is the mean over covariance types of the row stability.
    """
    elbow, of_k = verdict.candidate.n_components, dict[int, list[float]]()
    for row in usable:
        if elbow / _OCTAVE <= row.n_components <= elbow * _OCTAVE and np.isfinite(row.row_stability):
            of_k.setdefault(row.n_components, []).append(row.row_stability)
    if not of_k:
        return verdict
    mean = {k: float(np.mean(values)) for k, values in of_k.items()}
    best = max(mean.values())
    k = max(k for k, value in mean.items() if value >= best - _AS_STABLE)
    if k == elbow:
        return replace(verdict, reason=f"{verdict.reason} Of half to twice as many, no larger number returns as well.")
    chosen = min((row for row in usable if row.n_components == k), key=lambda row: row.bic).candidate
    return replace(
        verdict,
        candidate=chosen,
        reason=f"{k} components with {chosen.covariance_type} covariance: of half to twice the elbow's number the "
        f"largest whose clusters return about as well as any's when other rows are drawn (row stability {mean[k]:.2f}; "
        f"the best has {best:.2f}{f', the elbow {mean[elbow]:.2f}' if elbow in mean else ''}). The elbow: "
        f"{verdict.reason}",
    )


def _unless_it_is_gone(verdict: Verdict, usable: Sequence[Criteria]) -> Verdict:
    """An elbow whose clusters do not return when other rows are drawn, or no more than the null's, is none."""
    row = next(row for row in usable if row.candidate == verdict.candidate)
    if verdict.finding != "elbow" or np.isnan(row.row_stability) or do_return(row):
        return verdict
    why = (
        "but rows of one Gaussian agree on as many about as well"
        if trust_of(row.row_stability) != "weak" and is_like_null(row)
        else f"but only {row.n_returning} of these clusters return when other rows are drawn"
    )
    return replace(
        verdict,
        finding="no elbow",
        reason=f"No elbow: the BIC curve bends at {row.n_components} components with {row.covariance_type} covariance, "
        f"{why}. They were taken for want of others that do.",
    )


def _within_range(usable: Sequence[Criteria], verdict: Verdict) -> Verdict:
    """Without an elbow: of the ks around the most stable that are nearly as stable, the largest whose clusters return.

    Where none's do, the middle one.
    """
    kind = verdict.candidate.covariance_type
    curve = [row for row in usable if row.covariance_type == kind and np.isfinite(row.excess_over_null)]
    if len(curve) < 2:
        return verdict
    curve.sort(key=lambda row: row.n_components)
    place = max(range(len(curve)), key=lambda i: curve[i].excess_over_null)
    best = curve[place].excess_over_null
    first = last = place
    while first > 0 and curve[first - 1].excess_over_null >= best - AS_GOOD:
        first -= 1
    while last < len(curve) - 1 and curve[last + 1].excess_over_null >= best - AS_GOOD:
        last += 1
    ks = [row.n_components for row in curve[first : last + 1]]
    returning = [row.n_components for row in curve[first : last + 1] if do_return(row)]
    middle = min(ks, key=lambda k: abs(np.log2(k) - (np.log2(ks[0]) + np.log2(ks[-1])) / 2.0))
    k, why = (returning[-1], "the largest number of which most return") if returning else (middle, "in the middle")
    return Verdict(
        Candidate(k, kind),
        "no elbow",
        f"{verdict.reason.split('. ')[0]}. With {kind} covariance, {ks[0]} to {ks[-1]} components are stable "
        f"across replicates: their excess over the null lies within {AS_GOOD} of the largest ({best:.2f}, adjusted "
        f"Rand index); {k}, {why}, were taken.",
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


def _select_elbow(usable: Sequence[Criteria], n_rows: int) -> Verdict:
    one = min((row.bic for row in usable if row.n_components == 1), default=float("nan")) / (2 * n_rows)
    others = [row for row in usable if row.n_components > 1]  # the grid has one component whatever was asked for
    if len({row.n_components for row in others}) <= 1:
        return _without_a_curve(usable, min(others or usable, key=lambda row: row.bic), one, n_rows)
    elbows = elbows_by_type(usable, n_rows)
    kind = min(elbows, key=lambda name: elbows[name].lowest)
    elbow = elbows[kind]
    gain = one - elbow.cost
    what = f"{elbow.n_components} components with {kind} covariance"
    if gain < _STRUCTURE:
        return _no_structure(usable, f"the best elbow of the grid, {what},", gain)
    types = (
        f" Of {len(elbows)} covariance types, {kind} has the lowest BIC around its elbow." if len(elbows) > 1 else ""
    )
    if elbow.accepted:
        return Verdict(
            Candidate(elbow.n_components, kind),
            "elbow",
            f"{what}: the elbow of the BIC curve over log2 k. The doubling of k before it gained "
            f"{elbow.gain_before:.2f} nats per row, the doubling after it {elbow.gain_after:.2f}; it describes a row "
            f"{gain:.2f} nats better than one Gaussian.{types}",
        )
    return Verdict(
        Candidate(elbow.n_components, kind),
        "no elbow",
        f"No elbow: {_why_not(elbow)}. {_range(elbow)}{what} was taken because it lies farthest below the chord of "
        f"the BIC curve, {gain:.2f} nats per row better than one Gaussian.{types}",
    )


def _no_structure(usable: Sequence[Criteria], what: str, gain: float) -> Verdict:
    candidate = min((row for row in usable if row.n_components == 1), key=lambda row: row.bic).candidate
    return Verdict(
        candidate,
        "no cluster structure",
        f"No cluster structure: {what} describes a row only {gain:.2f} nats better than one Gaussian (at least "
        f"{_STRUCTURE} would show structure). One component was taken.",
    )


def _without_a_curve(usable: Sequence[Criteria], best: Criteria, one: float, n_rows: int) -> Verdict:
    """The verdict where a single k was asked for: the best of its candidates, unless it shows no structure."""
    gain = one - best.bic / (2 * n_rows)
    what = f"{best.n_components} component{'s' * (best.n_components > 1)} with {best.covariance_type} covariance"
    if best.n_components > 1 and gain < _STRUCTURE:
        return _no_structure(usable, f"the best candidate, {what},", gain)
    return Verdict(
        best.candidate,
        "no elbow",
        f"No elbow: a single number of components has no curve. {what} were taken"
        + (f", {gain:.2f} nats per row better than one Gaussian." if gain > 0.0 else "."),
    )


def _range(elbow: Elbow) -> str:
    if len(elbow.near) == 1:
        return ""
    return f"Any k from {elbow.near[0]} to {elbow.near[-1]} is as defensible; "


def _why_not(elbow: Elbow) -> str:
    reasons = []
    if elbow.gain_before < GAIN_BEFORE:
        reasons.append(
            f"the doubling of k before {elbow.n_components} gained only {elbow.gain_before:.2f} nats per row "
            f"(an accepted elbow needs {GAIN_BEFORE})"
        )
    if np.isnan(elbow.gain_after):
        reasons.append(f"the grid ends at {elbow.n_components}")
    elif elbow.gain_after > SHARE_AFTER * elbow.gain_before:
        reasons.append(
            f"the doubling after {elbow.n_components} still gained {elbow.gain_after:.2f} nats per row, after "
            f"{elbow.gain_before:.2f} before it"
        )
    if elbow.shorter == 0:
        reasons.append("the grid is too short to tell whether it would stay where it is")
    elif not elbow.accepted and not reasons:
        reasons.append(f"without the grid's last doubling it would be {elbow.shorter} instead of {elbow.n_components}")
    return ", and ".join(reasons)
