"""Comparison with a taxonomy: an exact contingency table over all rows, what it says, and yardsticks beside it."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numba
import numpy as np
import numpy.typing as npt
from sklearn.cluster import HDBSCAN, KMeans

from distcluster.job import JobError
from distcluster.partition import Partitioning
from distcluster.report.survey import Survey
from distcluster.run import Run
from distcluster.stages.task import job_of
from distcluster.store import open_entries, public_url, stream_lines

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_MOST_CLASSES = 10_000  # a column that has more is no taxonomy, and its table would not fit
_LEAST_CLUSTER = 200  # HDBSCAN's least cluster: this part of the rows


@dataclass(frozen=True, slots=True)
class Scores:
    """How far clusters and classes agree.

    Attributes
    ----------
    adjusted_rand, adjusted_mutual_information : float
        1 for equal partitions, 0 on average by chance (Hubert & Arabie 1985; Vinh, Epps & Bailey 2010, with the
        arithmetic mean).
    homogeneity, completeness, v_measure : float
        0 to 1 (Rosenberg & Hirschberg 2007): clusters hold one class; classes lie in one cluster; their harmonic mean.
    purity : float
        Share of rows that have the most frequent class of their cluster.
    """

    adjusted_rand: float
    adjusted_mutual_information: float
    homogeneity: float
    completeness: float
    v_measure: float
    purity: float


@dataclass(frozen=True, slots=True)
class Yardstick:
    """One method's agreement with the taxonomy, over so many rows, with so many clusters."""

    name: str
    n_rows: int
    n_clusters: int
    scores: Scores


@dataclass(frozen=True, slots=True)
class Comparison:
    """One taxonomy beside the clusters.

    Attributes
    ----------
    name : str
        The URL, without credentials.
    classes : list of C str
    table : (C, K) int64
        Rows by class and cluster: all that have a class and a cluster.
    n_without : int
        Rows that have a cluster and no class.
    methods : list of Yardstick
        The mixture first.
    of_drawn : (n,) int64
        The class of each drawn row; -1 for none.
    """

    name: str
    classes: list[str]
    table: Int64
    n_without: int
    methods: list[Yardstick]
    of_drawn: Int64


def compare(run: Run, url: str, found: Survey, drawn: Int64) -> Comparison:
    """Compare the clusters with a taxonomy, in one pass over all rows.

    k-means and HDBSCAN are fitted on the survey's evenly spread rows of the same projection; k-means then labels all
    rows, HDBSCAN knows none but its own, and so the mixture is given for the same rows beside it.

    Parameters
    ----------
    run : Run
    url : str
        A text file with one label a row, or a Zarr array of N strings or integers; an empty label is none.
    found : Survey
    drawn : (n,) int64
        Rows whose classes are wanted besides, in any order.

    Raises
    ------
    JobError
        When the labels cannot be read, are not N, or have more than 10,000 classes.
    """
    K = len(found.moments.size)
    n_filled = int((found.moments.size > 0).sum())
    seed = job_of(run).sample.seed
    few = found.points_projection.astype(np.float64)
    kmeans = KMeans(min(n_filled, len(few)), n_init=4, random_state=seed).fit(few)
    density = HDBSCAN(min_cluster_size=max(5, len(few) // _LEAST_CLUSTER), copy=True).fit(few).labels_
    wanted = found.points.row.to_numpy()
    classes = _Classes(public_url(url))
    of_mixture, of_kmeans = _Table(K), _Table(kmeans.n_clusters)
    of_few, of_drawn = [], np.full(len(drawn), -1, np.int64)
    for start, names in _labels(run, url):
        stop = start + len(names)
        partition = run.partitioning[start // run.partitioning.partition_rows]
        label = run.read_rows("label", partition, "assign")
        rows = run.read_rows("projection", partition, "project")
        code = classes.codes(names)
        both = (label >= 0) & (code >= 0)
        of_mixture.add(code[both], label[both], n_without=int(((label >= 0) & (code < 0)).sum()))
        if both.any():
            of_kmeans.add(code[both], kmeans.predict(rows[both].astype(np.float64)))
        of_few.append(code[wanted[(wanted >= start) & (wanted < stop)] - start])
        here = (drawn >= start) & (drawn < stop)
        of_drawn[here] = code[drawn[here] - start]
    table = of_mixture.counts(len(classes.names))
    if not table.any():
        raise JobError(f"report.labels: no row has a label in {public_url(url)}.")
    methods = [
        _yardstick("this run's mixture", table),
        _yardstick("k-means on the same projection", of_kmeans.counts(len(classes.names))),
        *_on_few_rows(np.concatenate(of_few), found.points.label.to_numpy(), density),
    ]
    return Comparison(public_url(url), classes.names, table, of_mixture.n_without, methods, of_drawn)


def _on_few_rows(code: Int64, label: npt.NDArray[np.int32], density: Int64) -> list[Yardstick]:
    """HDBSCAN and the mixture on the rows that HDBSCAN saw; its noise counts as a cluster of its own."""
    has_class = code >= 0
    if not has_class.any():
        return []
    return [
        _yardstick(name, contingency(code[has_class], found[has_class]))
        for name, found in (
            ("HDBSCAN on rows spread evenly (noise as a cluster)", density + 1),
            ("this run's mixture on the same rows", label.astype(np.int64)),
        )
    ]


def _yardstick(name: str, table: Int64) -> Yardstick:
    return Yardstick(name, int(table.sum()), int(table.any(axis=0).sum()), scores(table))


# --- the table --------------------------------------------------------------------------------------------------


def contingency(code: Int64, label: npt.NDArray[np.integer]) -> Int64:
    """Rows by class and cluster, (C, K) int64."""
    table = _Table(int(label.max()) + 1)
    table.add(code, label)
    return table.counts(int(code.max()) + 1)


@dataclass
class _Classes:
    """Numbers of the classes, in the order in which they are met."""

    url: str
    numbers: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(self.numbers)

    def codes(self, names: Iterable[str]) -> Int64:
        """The number of each row's class; -1 where it has none."""
        codes = np.array([self.numbers.setdefault(name, len(self.numbers)) if name else -1 for name in names], np.int64)
        if len(self.numbers) > _MOST_CLASSES:
            raise JobError(
                f"report.labels: {self.url} has more than {_MOST_CLASSES:,} classes, too many for a taxonomy; give "
                f"coarser labels."
            )
        return codes


@dataclass
class _Table:
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


def _labels(run: Run, url: str) -> Iterator[tuple[int, list[str]]]:
    """The labels of each partition's rows, with its first row.

    Raises
    ------
    JobError
        When there are not N labels.
    """
    parts = run.partitioning
    array = open_entries(url, "report.labels")
    if array is not None:
        _refuse_length(url, array.shape[0], parts)
        for index in range(len(parts)):
            yield parts[index].start, [str(value) for value in np.asarray(array[parts[index].rows])]
        return
    names: list[str] = []
    start = 0
    for line in stream_lines(url):
        names.append(line.strip())
        if start + len(names) > parts.n_rows:
            _refuse_length(url, start + len(names), parts)
        if len(names) == parts.partition_rows:
            yield start, names
            start, names = start + len(names), []
    _refuse_length(url, start + len(names), parts)
    if names:
        yield start, names


def _refuse_length(url: str, n_labels: int, parts: Partitioning) -> None:
    if n_labels != parts.n_rows:
        more = "or more " if n_labels > parts.n_rows else ""
        raise JobError(
            f"report.labels: {public_url(url)} has {n_labels:,} {more}labels, the run {parts.n_rows:,} rows: it must "
            f"have one a row, in the rows' order."
        )


# --- what it says -----------------------------------------------------------------------------------------------


def scores(table: Int64) -> Scores:
    """Agreement of classes and clusters from their contingency table alone.

    Parameters
    ----------
    table : (C, K) int64
        At least one row is counted.
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
        purity=float(table.max(axis=0).sum() / n),
    )


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
