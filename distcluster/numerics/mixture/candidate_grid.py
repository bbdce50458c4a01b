"""The grid: which candidates are fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distcluster.numerics.mixture.candidate import Candidate, CovarianceType
from distcluster.numerics.mixture.criteria import Criteria
from distcluster.numerics.mixture.elbow import elbows_by_type

AUTO_N_COMPONENTS = (2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)
"""The automatic grid's start: geometric, two steps a doubling, because BIC is read over log2 k."""
_ROWS_PER_COMPONENT = 20  # mixture rows that the automatic grid asks for each component
_MOST_KS = 512  # of the automatic grid
_SAMPLE_ROWS_PER_COMPONENT = 50  # sample rows that an extension of the grid asks for each component
_BETWEEN = 8  # ks at most that are fitted between an elbow's neighbours


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

    Examples
    --------
    >>> [str(each) for each in grid([4, 2], ["tied", "full"], mixture_rows=1000)]
    ['tied-1', 'full-1', 'tied-2', 'full-2', 'tied-4', 'full-4']
    >>> [each.n_components for each in grid("auto", ["full"], mixture_rows=200)]
    [1, 2, 3, 4, 6, 8]
    """
    if n_components == "auto":
        ks = [k for k in AUTO_N_COMPONENTS if k * _ROWS_PER_COMPONENT <= mixture_rows] or [2]
    else:
        ks = sorted(n_components)
    return [Candidate(k, kind) for k in dict.fromkeys([1, *ks]) for kind in covariance_types]


@dataclass(frozen=True, slots=True)
class Addition:
    """What the automatic grid lacks: ks to fit, ascending, and why; no ks when it is complete."""

    ks: tuple[int, ...]
    why: Literal["extended", "between", "complete"]


def largest_k(sample_rows: int, mixture_rows: int) -> int:
    """Where the automatic grid ends: min(512, S / 50), and 20 rows of the mixture subsample for each component.

    Examples
    --------
    >>> largest_k(50_000, 100_000), largest_k(5_000, 2_500)
    (512, 100)
    """
    return min(_MOST_KS, sample_rows // _SAMPLE_ROWS_PER_COMPONENT, mixture_rows // _ROWS_PER_COMPONENT)


def missing_ks(table: Sequence[Criteria], n_rows: int, limit: int, *, has_between: bool) -> Addition:
    """The ks that the automatic grid should still try.

    While the elbow lies in the last doubling of the grid, the grid is extended by a doubling in two steps. Once it
    is accepted, up to eight ks between its neighbours in the grid are added, once.

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
    elbows = elbows_by_type([row for row in table if not row.error], n_rows)
    if not elbows:
        return nothing
    elbow = min(elbows.values(), key=lambda each: each.lowest)
    ks = sorted({row.n_components for row in table})
    if 2 * elbow.n_components > ks[-1] and ks[-1] < limit and not has_between:
        doubled = (round(ks[-1] * 2**0.5), 2 * ks[-1])
        return Addition(tuple(sorted({min(k, limit) for k in doubled})), "extended")
    if has_between or not elbow.accepted:
        return nothing
    place = ks.index(elbow.n_components)
    low, high = ks[max(place - 1, 0)], ks[min(place + 1, len(ks) - 1)]
    between = np.round(np.geomspace(low, high, _BETWEEN + 2)).astype(int) if high - low > _BETWEEN else range(low, high)
    new = tuple(sorted({int(k) for k in between if low < k < high} - set(ks)))
    return Addition(new, "between") if new else nothing
