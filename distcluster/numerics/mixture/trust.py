"""Trust in the chosen clusters, in a word and a sentence: whether they return when other rows are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.criteria import Criteria

Trust = Literal["strong", "fair", "weak", "none", "not measured"]

STRONG, FAIR = 0.75, 0.5
"""Of a cluster's stability, and of the mean over rows of their cluster's, at least."""

AS_GOOD = 0.1
"""Of an adjusted Rand index: stabilities, be one the null's, that differ by no more are taken as equal."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """How far to trust the chosen clusters.

    Attributes
    ----------
    trust : Trust
    advice : str
        A sentence on what to use them for.
    """

    trust: Trust
    advice: str


def assess(table: Sequence[Criteria], chosen: Candidate) -> Assessment:
    """Whether the clusters of a candidate return: what a row may expect of its own, by the selection table.

    Examples
    --------
    >>> nan = float("nan")
    >>> table = [
    ...     Criteria(k, "full", nan, nan, nan, nan, 9, True, stability=0.5, row_stability=each, n_returning=n)
    ...     for k, each, n in ((1, nan, 0), (8, 0.7, 7), (32, 0.4, 5))
    ... ]
    >>> for sentence in assess(table, Candidate(32, "full")).advice.split(". "):
    ...     print(sentence)
    Most of these 32 groups do not return when other rows are drawn: use them to browse
    8 coarser ones do (choose --n-components 8 --covariance-type full).

    Two halves of any cloud have much in common with two halves of it in another run:

    >>> halves = Criteria(2, "tied", *[nan] * 4, 9, True, stability=0.1, stability_null=0.5, row_stability=0.6)
    >>> assess([halves], halves.candidate).trust
    'weak'
    """
    if chosen.n_components == 1:
        return Assessment(
            "none", "There are no groups here that could be defended: one cloud describes the rows as well."
        )
    k, row = chosen.n_components, next((each for each in table if each.candidate == chosen), None)
    if row is None or np.isnan(row.row_stability):
        return Assessment(
            "not measured", f"Whether these {k} groups return when other rows are drawn was not measured."
        )
    n, trust = row.n_returning, trust_of(row.row_stability)
    if trust != "weak" and is_like_null(row):
        return Assessment(
            "weak",
            f"These {k} groups do not clearly return more often than groups cut out of one shapeless cloud: use them "
            f"to browse."
            f"{_coarser_ones(table, row)}",
        )
    if trust == "strong":
        who = f"These {k} groups return" if n == k else f"{n} of these {k} groups return"
        return Assessment(trust, f"{who} when other rows are drawn: use them as categories.")
    if trust == "fair":
        return Assessment(
            trust,
            f"{n} of these {k} groups return when other rows are drawn: use those as categories, the others to browse.",
        )
    who = f"Most of these {k} groups do" if n else f"These {k} groups do"
    return Assessment(
        trust, f"{who} not return when other rows are drawn: use them to browse.{_coarser_ones(table, row)}"
    )


def _coarser_ones(table: Sequence[Criteria], chosen: Criteria) -> str:
    """The largest smaller number of clusters of the same type of which most return, as advice."""
    coarser = [
        each.n_components
        for each in table
        if each.covariance_type == chosen.covariance_type
        and each.n_components < chosen.n_components
        and do_return(each)
    ]
    if not coarser:
        return ""
    k = max(coarser)
    return f" {k} coarser ones do (choose --n-components {k} --covariance-type {chosen.covariance_type})."


def trust_of(stability: float) -> Trust:
    """The word for a cluster's stability, or for the mean over rows of their cluster's.

    Examples
    --------
    >>> [trust_of(each) for each in (0.8, 0.6, 0.3, float("nan"))]
    ['strong', 'fair', 'weak', 'not measured']
    """
    if np.isnan(stability):
        return "not measured"
    return "strong" if stability >= STRONG else "fair" if stability >= FAIR else "weak"


def do_return(row: Criteria) -> bool:
    """Whether most clusters of a candidate return, and most rows with them, and more so than the null's.

    Not where that was not measured.
    """
    return row.row_stability >= FAIR and 2 * row.n_returning > row.n_components and not is_like_null(row)


def is_like_null(row: Criteria) -> bool:
    """Whether rows of one Gaussian agree on a candidate about as well as the data; not where that was not measured.

    Few groups have much in common by chance: two random halves of all rows have a Jaccard index of a third.
    """
    return row.excess_over_null <= AS_GOOD
