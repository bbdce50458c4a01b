"""Agreement of classes and clusters: their contingency table, and the indices that follow from it alone."""

import math
from dataclasses import dataclass, field

import numba
import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def contingency(code: Int64, label: npt.NDArray[np.integer], C: int | None = None) -> Int64:
    """Rows by class and cluster, (C, K) int64; C is the highest code and one where it is not given."""
    table = GrowingTable(int(label.max()) + 1)
    table.add(code, label)
    return table.counts(int(code.max()) + 1 if C is None else C)


@dataclass
class GrowingTable:
    """Counts that grow as classes are met."""

    K: int
    n_without: int = 0
    flat: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, code: Int64, label: npt.NDArray[np.integer], n_without: int = 0) -> None:
        """Count rows by class and cluster."""
        self.n_without += n_without
        counts = np.bincount(code * self.K + label, minlength=len(self.flat))
        counts[: len(self.flat)] += self.flat
        self.flat = counts

    def counts(self, C: int) -> Int64:
        """The table, (C, K)."""
        return np.pad(self.flat, (0, C * self.K - len(self.flat))).reshape(C, self.K).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Scores:
    """How far clusters and classes agree; where rows have several classes, each set of them is one.

    Attributes
    ----------
    adjusted_rand, adjusted_mutual_information : float
        1 for equal partitions, 0 on average by chance (Hubert & Arabie 1985; Vinh, Epps & Bailey 2010, with the
        arithmetic mean).
    homogeneity, completeness, v_measure : float
        0 to 1 (Rosenberg & Hirschberg 2007): clusters hold one class; classes lie in one cluster; their harmonic mean.
    purity : float
        Share of rows that have the most frequent single class of their cluster.
    """

    adjusted_rand: float
    adjusted_mutual_information: float
    homogeneity: float
    completeness: float
    v_measure: float
    purity: float


def scores(table: Int64, by_class: Int64 | None = None) -> Scores:
    """Agreement of classes and clusters from their contingency table alone.

    Parameters
    ----------
    table : (C, K) int64
        At least one row is counted, and each once.
    by_class : (C', K) int64
        Where its rows are sets of classes: the same by single class, for the purity.
    """
    n = int(table.sum())
    classes, clusters = table.sum(axis=1), table.sum(axis=0)
    of_classes, of_clusters = _entropy(classes), _entropy(clusters)
    mutual = max(of_classes + of_clusters - _entropy(table.ravel()), 0.0)
    homogeneity = mutual / of_classes if of_classes else 1.0
    completeness = mutual / of_clusters if of_clusters else 1.0
    total = homogeneity + completeness
    return Scores(
        adjusted_rand=_adjusted_rand(table),
        adjusted_mutual_information=_adjusted_mutual_information(table, n, mutual, (of_classes + of_clusters) / 2.0),
        homogeneity=homogeneity,
        completeness=completeness,
        v_measure=2.0 * homogeneity * completeness / total if total else 0.0,
        purity=float((table if by_class is None else by_class).max(axis=0).sum() / n),
    )


@dataclass(frozen=True, slots=True)
class Errors:
    """Standard errors over rows of two of ``Scores``; NaN below three rows."""

    adjusted_rand: float
    v_measure: float


def standard_errors(table: Int64) -> Errors:
    """How far the agreement would differ on other rows of the same kind, both partitions as they are.

    The jackknife over rows (Efron & Stein 1981), exact: rows of one cell leave the same table behind when they are
    left out, so that it takes as many tables as there are cells with rows, and sums of each are one step from the whole
    table's. It knows nothing of how either run would have come out with another seed.

    Parameters
    ----------
    table : (C, K) int64
        At least one row is counted, and each once.
    """
    of_class, of_cluster = np.nonzero(table)
    cell = table[of_class, of_cluster].astype(np.float64)
    classes, clusters = table.sum(axis=1).astype(np.float64), table.sum(axis=0).astype(np.float64)
    n = cell.sum()
    if n < 3:
        return Errors(math.nan, math.nan)
    every, left = (cell, classes, clusters), (cell, classes[of_class], clusters[of_cluster])
    together, in_class, in_cluster = (
        (whole * (whole - 1)).sum() / 2 - (own - 1) for whole, own in zip(every, left, strict=True)
    )
    joint, of_classes, of_clusters = (
        np.log(n - 1) - (_weighed(whole).sum() - _weighed(own) + _weighed(own - 1)) / (n - 1)
        for whole, own in zip(every, left, strict=True)
    )
    by_chance = in_class * in_cluster / ((n - 1) * (n - 2) / 2)
    rand = _ratio(together - by_chance, (in_class + in_cluster) / 2 - by_chance)
    v_measure = _ratio(2.0 * (of_classes + of_clusters - joint), of_classes + of_clusters)
    return Errors(*(_jackknife(left_out, cell, n) for left_out in (rand, v_measure)))


def _weighed(counts: Float64) -> Float64:
    return np.asarray(counts * np.log(np.maximum(counts, 1.0)))


def _ratio(of: Float64, to: Float64) -> Float64:
    """1 where both partitions are one cluster, or all alone: nothing could have differed."""
    return np.divide(of, to, out=np.ones_like(of), where=np.abs(to) > 1e-12 * np.abs(to).max(initial=1.0))


def _jackknife(left_out: Float64, cell: Float64, n: float) -> float:
    mean = (cell * left_out).sum() / n
    return float(np.sqrt((n - 1) / n * (cell * (left_out - mean) ** 2).sum()))


def _entropy(counts: Int64) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def _adjusted_rand(table: Int64) -> float:
    """Hubert & Arabie 1985, in whole numbers: products of pairs of a million rows do not fit a float."""
    together, in_class, in_cluster = (
        sum(int(count) * (int(count) - 1) // 2 for count in counts)
        for counts in (table[table > 1], table.sum(axis=1), table.sum(axis=0))
    )
    n = int(table.sum())
    pairs = n * (n - 1) // 2
    if in_class == in_cluster == together:
        return 1.0
    return (pairs * together - in_class * in_cluster) / (pairs * (in_class + in_cluster) / 2 - in_class * in_cluster)


def _adjusted_mutual_information(table: Int64, n: int, mutual: float, mean_entropy: float) -> float:
    filled = table[table.any(axis=1)][:, table.any(axis=0)]
    if filled.shape in ((1, 1), (n, n)):
        return 1.0  # scikit-learn's convention: nothing could have differed
    expected = expected_mutual_information(filled.sum(axis=1), filled.sum(axis=0))
    above = mean_entropy - expected
    least = np.finfo(np.float64).eps
    return float((mutual - expected) / (min(above, -least) if above < 0 else max(above, least)))


@numba.njit(cache=True, nogil=True)
def expected_mutual_information(classes: Int64, clusters: Int64) -> float:
    """Mutual information, nats, expected by chance of two partitions of these sizes (Vinh et al. 2010, eq. 24).

    A cell of the table is then hypergeometric. scikit-learn adds up all values it may have, a number that grows with N;
    here those within twelve standard deviations, and as many more, are: what is left out is below rounding.

    Parameters
    ----------
    classes : (C,) int64
        Rows of each, above 0.
    clusters : (K,) int64
    """
    n = classes.sum()
    total = 0.0
    for a in classes:
        for b in clusters:
            mean = a * (b / n)
            reach = 12.0 * math.sqrt(mean * (1.0 - a / n) * (1.0 - b / n)) + 12.0
            low, high = max(1, a + b - n, math.ceil(mean - reach)), min(a, b, math.floor(mean + reach))
            fixed = (
                math.lgamma(a + 1.0) + math.lgamma(b + 1.0) + math.lgamma(n - a + 1.0) + math.lgamma(n - b + 1.0)
                - math.lgamma(n + 1.0)
            )  # fmt: skip
            for m in range(low, high + 1):
                free = math.lgamma(m + 1.0) + math.lgamma(a - m + 1.0) + math.lgamma(b - m + 1.0)
                chance = math.exp(fixed - free - math.lgamma(n - a - b + m + 1.0))
                total += m / n * math.log(m / mean) * chance
    return total
