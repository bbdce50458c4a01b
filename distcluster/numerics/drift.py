"""Whether other rows are like those that a model was made from: sizes of clusters, density, support."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are named: few runs ask for statistics

Counts = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Verdict = Literal["as before", "watch", "refit"]

_ERROR = 0.001  # chance of a false alarm of each of the seven tests: together less than 1 in 100
_WATCH, _REFIT = 0.1, 0.25  # of the population stability index, and of distances between distributions
_BEYOND_WATCH, _BEYOND_REFIT = 0.003, 0.03  # share of rows without support, beyond that of the model's own rows
_RECALL_WATCH, _RECALL_REFIT = 0.02, 0.1
_SIZE_RATIO = 4.0  # a cluster that grew or shrank so much is named
_FEW = 50  # rows of a cluster on each side below which its densities are not compared


@dataclass(frozen=True, slots=True)
class Rows:
    """One side.

    Attributes
    ----------
    size : (K,) int64
        Rows of each cluster, of all rows.
    label : (n,) int32
    log_density, support : (n,) float32
        Of some rows, spread evenly.
    """

    size: Counts
    label: npt.NDArray[np.int32]
    log_density: Float32
    support: Float32


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of the nearest sample rows that the search finds, and its standard error."""

    share: float
    error: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How far other rows are from those that a model was made from.

    Attributes
    ----------
    verdict : "as before", "watch" or "refit"
    reasons : list of str
        What speaks against "as before", with its figures.
    psi, psi_by_chance : float
        The population stability index of the clusters' shares, and what it would be without drift, on average.
    density_distance, support_distance : float
        Largest difference between the two distribution functions (Kolmogorov and Smirnov).
    distance_error : float
        How far both may be from what they would be for all rows there could be, at 0.95.
    beyond, beyond_before : float
        Shares of rows above the support limit.
    recall, recall_before : Recall or None
        Of the search for the rows' neighbours; None where all sample rows are compared.
    """

    verdict: Verdict
    psi: float
    psi_by_chance: float
    density_distance: float
    support_distance: float
    distance_error: float
    beyond: float
    beyond_before: float
    recall: Recall | None
    recall_before: Recall | None
    reasons: list[str]


def population_stability(before: Counts, now: Counts) -> float:
    """The population stability index of two counts: sum of (q - p) ln(q / p) over shares; half a row more in each.

    Examples
    --------
    >>> round(population_stability(np.array([500, 500]), np.array([600, 400])), 2)
    0.04
    """
    p, q = ((each + 0.5) / (each + 0.5).sum() for each in (before, now))
    return float(((q - p) * np.log(q / p)).sum())


def compare(
    before: Rows, now: Rows, support_limit: float, recalls: tuple[Recall, Recall] | tuple[None, None] = (None, None)
) -> Drift:
    """Hold rows against those that the model was made from.

    A figure counts where chance would not have it, at 0.001, and it is large: the stability index less its mean without
    drift, (K - 1)(1/n + 1/m), which it is a chi-square's of (Yurdakul 2018), or a distance between distributions, of at
    least 0.1, "refit" from 0.25; 0.3 % or 3 % more rows without support; a search that finds 2 % or 10 % fewer of the
    nearest rows; a cluster four times as large or small; a cluster whose rows have other densities.

    Parameters
    ----------
    before, now : Rows
    support_limit : float
        Above it a row has no support in the sample.
    recalls : pair of Recall, or of None
        Before and now.
    """
    psi, psi_by_chance, of_shares = _compare_shares(before.size, now.size)
    density_distance, of_density = _compare_values("log densities", before.log_density, now.log_density)
    support_distance, of_support = _compare_values("supports", before.support, now.support)
    beyond_before, beyond = (each.support > support_limit for each in (before, now))
    found = [
        *of_shares, *of_density, *of_support, *_compare_beyond(beyond_before, beyond),
        *_compare_recalls(*recalls), *_compare_sizes(before.size, now.size), *_compare_clusters(before, now),
    ]  # fmt: skip
    verdicts = {each for each, _ in found}
    return Drift(
        "refit" if "refit" in verdicts else "watch" if verdicts else "as before",
        psi,
        psi_by_chance,
        density_distance,
        support_distance,
        sum(_distance_error(len(each.support)) for each in (before, now)),
        float(beyond.mean()),
        float(beyond_before.mean()),
        recalls[1],
        recalls[0],
        [each for _, each in found],
    )


_Finding = tuple[Verdict, str]


def _graded(size: float) -> Verdict:
    return "refit" if size >= _REFIT else "watch"


def _compare_shares(before: Counts, now: Counts) -> tuple[float, float, list[_Finding]]:
    """The stability index, its mean by chance, and what it says."""
    psi, unit, freedom = population_stability(before, now), 1 / before.sum() + 1 / now.sum(), len(before) - 1
    chance = float(freedom * unit)
    if freedom == 0 or psi - chance < _WATCH or scipy.stats.chi2.sf(psi / unit, freedom) >= _ERROR:
        return psi, chance, []
    said = f"the clusters' shares differ: stability index {psi:.2f}, {chance:.2f} by chance"
    return psi, chance, [(_graded(psi - chance), said)]


def _compare_values(what: str, before: Float32, now: Float32) -> tuple[float, list[_Finding]]:
    test = scipy.stats.ks_2samp(before, now, method="asymp")
    distance = float(test.statistic)
    if distance < _WATCH or test.pvalue >= _ERROR:
        return distance, []
    medians = f"median {np.median(now):.2f}, {np.median(before):.2f} before"
    said = f"{what} differ, by up to {distance:.2f} of the rows: {medians}"
    return distance, [(_graded(distance), said)]


def _distance_error(n: int) -> float:
    """How far the distribution function of n values is from the true one at most, at 0.975 (Massart 1990)."""
    return float(np.sqrt(np.log(2 / 0.025) / (2 * n)))


def _compare_recalls(before: Recall | None, now: Recall | None) -> list[_Finding]:
    if before is None or now is None:
        return []
    less = before.share - now.share
    error = max(float(np.hypot(before.error, now.error)), 1e-9)
    if less < _RECALL_WATCH or scipy.stats.norm.sf(less / error) >= _ERROR:
        return []
    said = (
        f"the search finds {now.share:.1%} of the rows' nearest rows in the model's sample, {before.share:.1%} before"
    )
    return [("refit" if less >= _RECALL_REFIT else "watch", said)]


def _compare_beyond(before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> list[_Finding]:
    least = _least_share(now)
    more = least - float(before.mean())
    table = [[int(each.sum()), int((~each).sum())] for each in (now, before)]
    if more < _BEYOND_WATCH or scipy.stats.fisher_exact(table, alternative="greater").pvalue >= _ERROR:
        return []
    said = (
        f"{now.mean():.1%} of the rows (at least {least:.1%}) have no support in the model's sample, "
        f"{before.mean():.1%} before: it does not know what they are"
    )
    return [("refit" if more >= _BEYOND_REFIT else "watch", said)]


def _least_share(is_so: npt.NDArray[np.bool_]) -> float:
    """The share that there is at least (Clopper and Pearson 1934)."""
    interval = scipy.stats.binomtest(int(is_so.sum()), len(is_so), alternative="greater").proportion_ci(1 - _ERROR)
    return float(interval.low)


def _compare_sizes(before: Counts, now: Counts) -> list[_Finding]:
    """Clusters that hold four times as large a share, or a fourth, beyond chance (Fisher's exact test, Bonferroni)."""
    n, m = int(before.sum()), int(now.sum())
    found: list[_Finding] = []
    for k, (a, b) in enumerate(zip(before.tolist(), now.tolist(), strict=True)):
        ratio = (b + 0.5) / (m + 1) / ((a + 0.5) / (n + 1))
        if 1 / _SIZE_RATIO < ratio < _SIZE_RATIO:
            continue
        if scipy.stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue < _ERROR / len(before):
            found.append(("watch", f"cluster {k} has {b / m:.2%} of the rows, {a / n:.2%} before"))
    return found


def _compare_clusters(before: Rows, now: Rows) -> list[_Finding]:
    """Clusters whose rows have other densities than before (Bonferroni)."""
    found: list[_Finding] = []
    for k in range(len(before.size)):
        a, b = (each.log_density[each.label == k] for each in (before, now))
        if min(len(a), len(b)) < _FEW:
            continue
        test = scipy.stats.ks_2samp(a, b, method="asymp")
        if test.statistic >= _REFIT and test.pvalue < _ERROR / len(before.size):
            medians = f"median {np.median(b):.2f}, {np.median(a):.2f} before"
            found.append(("watch", f"rows of cluster {k} have other log densities: {medians}"))
    return found
