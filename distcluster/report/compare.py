"""Comparison with a taxonomy: classes beside clusters, over all rows, and yardsticks in the same projection."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distcluster.errors import JobError
from distcluster.report.agreement import GrowingTable, Scores, contingency, scores
from distcluster.report.row_statistics import RowStatistics
from distcluster.report.taxonomy import Taxonomy, read_labels
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.url import Url

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

Int64 = npt.NDArray[np.int64]

_LEAST_CLUSTER = 200  # HDBSCAN's least cluster: this part of the rows


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
        Rows by class and cluster, all that have both; a row of several classes counts for each of them.
    n_rows : (K,) int64
        Rows of each cluster that have a class.
    n_sets : int
        Different sets of classes that rows have; C where every row has one class.
    n_without : int
        Rows that have a cluster and no class.
    methods : list of Yardstick
        The mixture first.
    of_subsample : (n, C) bool
        The classes of some rows of the mixture subsample.
    of_drawn : (n,) int64
        The first class of each row of ``statistics.drawn``; -1 for none.
    """

    name: str
    classes: list[str]
    table: Int64
    n_rows: Int64
    n_sets: int
    n_without: int
    methods: list[Yardstick]
    of_subsample: npt.NDArray[np.bool_]
    of_drawn: Int64


def compare(run: Run, url: Url, statistics: RowStatistics, subsample_row: Int64) -> Comparison:
    """Compare the clusters with a taxonomy, in one pass over all rows.

    k-means and HDBSCAN are fitted on the evenly spread rows of the same projection; k-means then labels all rows,
    HDBSCAN knows none but its own, and so the mixture is given for the same rows beside it.

    Parameters
    ----------
    run : Run
    url : Url
        As ``taxonomy.read_labels`` takes it; an empty label is none.
    statistics : RowStatistics
    subsample_row : (n,) int64
        Rows whose classes are wanted besides, in any order.

    Raises
    ------
    JobError
        When the labels cannot be read, are not N, or have too many classes.
    """
    taxonomy = Taxonomy(url)
    kmeans, density = _fit_yardsticks(run, statistics)
    counted = _count_rows(run, url, taxonomy, kmeans, statistics, subsample_row)
    n_sets = len(taxonomy.members)
    table = counted.of_mixture.counts(n_sets)
    if not table.any():
        raise JobError(f"report.labels: no row has a label in {taxonomy.url}.")
    tables = {"this run's mixture": table, "k-means on the same projection": counted.of_kmeans.counts(n_sets)}
    code, label = counted.point_code, statistics.points.label.to_numpy().astype(np.int64)
    known = code >= 0
    if known.any():  # HDBSCAN's noise counts as a cluster of its own
        tables |= {
            "HDBSCAN on rows spread evenly (noise as a cluster)": contingency(code[known], density[known] + 1, n_sets),
            "this run's mixture on the same rows": contingency(code[known], label[known], n_sets),
        }
    return Comparison(
        taxonomy.url,
        taxonomy.classes,
        taxonomy.by_class(table),
        table.sum(axis=0),
        n_sets,
        counted.of_mixture.n_without,
        [_yardstick(name, each, taxonomy) for name, each in tables.items()],
        taxonomy.has(counted.subsample_code),
        np.array([*(min(members) for members in taxonomy.members), -1], np.int64)[counted.drawn_code],
    )


def first_class(has: npt.NDArray[np.bool_]) -> Int64:
    """The first of each row's classes, (n,), from (n, C); -1 where it has none."""
    return np.where(has.any(axis=1), has.argmax(axis=1), -1)


def _fit_yardsticks(run: Run, statistics: RowStatistics) -> tuple["KMeans", npt.NDArray[np.integer]]:
    """k-means with as many clusters as have rows, and HDBSCAN's labels, of the evenly spread rows."""
    from sklearn.cluster import HDBSCAN, KMeans  # a second to import; many runs have no labels

    n_filled = int((statistics.moments.size > 0).sum())
    seed = run.job.sample.seed
    few = statistics.points_projection.astype(np.float64)
    kmeans = KMeans(min(n_filled, len(few)), n_init=4, random_state=seed).fit(few)
    return kmeans, HDBSCAN(min_cluster_size=max(5, len(few) // _LEAST_CLUSTER), copy=True).fit(few).labels_


@dataclass(frozen=True, slots=True)
class _CountedRows:
    """All rows by class and cluster, and the classes (as numbers of sets, -1 for none) of those kept."""

    of_mixture: GrowingTable
    of_kmeans: GrowingTable
    point_code: Int64
    drawn_code: Int64
    subsample_code: Int64


def _count_rows(
    run: Run, url: Url, taxonomy: Taxonomy, kmeans: "KMeans", statistics: RowStatistics, subsample_row: Int64
) -> _CountedRows:
    """Read every row's classes, cluster and place in the projection, a partition at a time."""
    points, drawn = statistics.points.row.to_numpy(), statistics.drawn
    of_mixture, of_kmeans = GrowingTable(len(statistics.moments.size)), GrowingTable(kmeans.n_clusters)
    drawn_code, subsample_code = [], np.full(len(subsample_row), -1, np.int64)
    for start, names in read_labels(url, run.partitioning):
        stop = start + len(names)
        partition = run.partitioning[start // run.partitioning.partition_rows]
        label = run.read_rows(layout.LABEL, partition)
        rows = run.read_rows(layout.PROJECTION, partition)
        code = taxonomy.codes(names)
        both = (label >= 0) & (code >= 0)
        of_mixture.add(code[both], label[both], n_without=int(((label >= 0) & (code < 0)).sum()))
        if both.any():
            of_kmeans.add(code[both], kmeans.predict(rows[both].astype(np.float64)))
        drawn_code.append(code[drawn[slice(*np.searchsorted(drawn, (start, stop)))] - start])
        here = (subsample_row >= start) & (subsample_row < stop)
        subsample_code[here] = code[subsample_row[here] - start]
    of_drawn = np.concatenate(drawn_code)
    return _CountedRows(of_mixture, of_kmeans, of_drawn[np.searchsorted(drawn, points)], of_drawn, subsample_code)


def _yardstick(name: str, table: Int64, taxonomy: Taxonomy) -> Yardstick:
    found = scores(table, taxonomy.by_class(table))
    return Yardstick(name, int(table.sum()), int(table.any(axis=0).sum()), found)
