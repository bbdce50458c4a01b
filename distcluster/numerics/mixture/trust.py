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
    n, trust = row.n_returning, _trust(row)
    if trust == "strong":
        who = f"These {k} groups return" if n == k else f"{n} of these {k} groups return"
        return Assessment(trust, f"{who} when other rows are drawn: use them as categories.")
    coarser = [
        each
        for each in table
        if each.covariance_type == row.covariance_type and each.n_components < k and do_return(each)
    ]
    advice = ""
    if coarser:
        best = max(coarser, key=lambda each: each.n_components)
        advice = (
            f" {best.n_components} coarser ones do (choose --n-components {best.n_components} "
            f"--covariance-type {best.covariance_type})."
        )
    if trust == "fair":
        return Assessment(
            trust,
            f"{n} of these {k} groups return when other rows are drawn: use those as categories, the others to browse.",
        )
    who = f"Most of these {k} groups do" if n else f"These {k} groups do"
    return Assessment(trust, f"{who} not return when other rows are drawn: use them to browse.{advice}")


def _trust(row: Criteria) -> Trust:
    return "strong" if row.row_stability >= STRONG else "fair" if row.row_stability >= FAIR else "weak"


def do_return(row: Criteria) -> bool:
    """Whether most clusters of a candidate return, and most rows with them; not where that was not measured."""
    return row.row_stability >= FAIR and 2 * row.n_returning > row.n_components
