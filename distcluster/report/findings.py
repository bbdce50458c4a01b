"""All that the page's sections are made of, read from a finished run once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distcluster.job import ReportTable
from distcluster.numerics.mixture.parameters import Mixture
from distcluster.report.clusters import TYPICAL, ClusterRow, cluster_rows
from distcluster.report.compare import Comparison, compare
from distcluster.report.levels import Level, read_levels
from distcluster.report.map_points import AUTO_POINTS
from distcluster.report.names import Names, levels_with_names, with_names
from distcluster.report.near_duplicates import ShownDuplicates, read_duplicates
from distcluster.report.row_statistics import RowStatistics, collect_row_statistics
from distcluster.report.shown_items import ShownItems, kept_items
from distcluster.report.subsample_rows import SubsampleRows, read_subsample_rows, silhouettes
from distcluster.report.summary import Summary, summarise
from distcluster.report.thumbnails import thumbnails
from distcluster.stages.labelling import SUMMARISE_CLUSTERS
from distcluster.stages.projecting import views
from distcluster.stages.refining import published_mixture
from distcluster.storage import layout
from distcluster.storage.items import read_items
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ItemArray
from distcluster.storage.urls import absolute_url

_LETTERS = 1_000  # of an item that are read for words and kept: documents may be long, and the run is copied about


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run found, K components.

    Attributes
    ----------
    run : Run
    table : ReportTable
        What a row is, and the taxonomies.
    summary : Summary
    mixture : Mixture
    statistics : RowStatistics
    subsample : SubsampleRows
    shown : ShownItems
        The items of all rows that are shown or read for words.
    clusters : list of ClusterRow
        Those with rows.
    comparisons : list of Comparison
        One an entry of ``table.labels``.
    levels : list of Level
        The coarsest first.
    duplicates : list of ShownDuplicates
        One a distance that was searched.
    seed : int
    names : Names
        That the clusters have, where they have any.
    """

    run: Run
    table: ReportTable
    summary: Summary
    mixture: Mixture
    statistics: RowStatistics
    subsample: SubsampleRows
    shown: ShownItems
    clusters: list[ClusterRow]
    comparisons: list[Comparison]
    levels: list[Level]
    duplicates: list[ShownDuplicates]
    seed: int
    names: Names = field(default_factory=Names)

    def named(self, names: Names) -> "Findings":
        """The same with names."""
        clusters, levels = with_names(names, self.clusters), levels_with_names(names, self.levels)
        return replace(self, names=names, clusters=clusters, levels=levels)

    @property
    def n_components(self) -> int:
        """K, empty components included."""
        return len(self.statistics.moments.size)


def read_findings(run: Run, table: ReportTable) -> Findings:
    """Read a run for its report.

    Rows are read by partition, twice (once more for each taxonomy), and items once: memory does not grow with N.
    """
    arrays = {
        array.path.removeprefix("cluster/"): run.read(array)
        for array in SUMMARISE_CLUSTERS.writes
        if isinstance(array, ItemArray)
    }
    arrays["stability"] = run.read(layout.CLUSTER_STABILITY)
    K = len(arrays["size"])
    typical = arrays["exemplar"][:, :TYPICAL]
    statistics = collect_row_statistics(
        run,
        K,
        has_map="view_2d" in views(run.job),
        typical=typical[typical >= 0],
        n_points=AUTO_POINTS if table.points == "auto" else table.points,
    )
    subsample, duplicates = read_subsample_rows(run), read_duplicates(run)
    others = np.concatenate([arrays["exemplar"].ravel(), *(each.rows for each in duplicates)])
    shown = _read_items(table, statistics, subsample, others) if table.items else kept_items(run)
    cosine = silhouettes(subsample.embedding, subsample.label, K)
    clusters = cluster_rows(arrays, statistics, cosine, shown.texts, has_items=bool(shown.source))
    if table.items:
        shown = replace(shown, images=_thumbnails(table, shown.texts, clusters, statistics, duplicates))
    return Findings(
        run=run,
        table=table,
        summary=summarise(run, ReportTable()),
        mixture=published_mixture(run),
        statistics=statistics,
        subsample=subsample,
        shown=shown,
        clusters=clusters,
        comparisons=[compare(run, url, statistics, subsample.row) for url in table.labels],
        levels=read_levels(run, statistics, shown.texts, has_items=bool(shown.source)),
        duplicates=duplicates,
        seed=run.job.sample.seed,
    )


def _read_items(table: ReportTable, statistics: RowStatistics, subsample: SubsampleRows, others: Any) -> ShownItems:
    """The texts of the rows that are shown, or read for words."""
    assert table.items is not None
    frames = (
        statistics.points, statistics.word_rows, statistics.outliers, statistics.borderline, statistics.ambiguous,
    )  # fmt: skip
    shown = [*(frame.row for frame in frames), subsample.row, others[others >= 0]]
    found = read_items(table.items, (int(row) for row in np.unique(np.concatenate(shown))), table.item_column)
    return ShownItems(str(absolute_url(table.items)), {row: text[:_LETTERS] for row, text in found.items()})


def _thumbnails(
    table: ReportTable,
    texts: Mapping[int, str],
    clusters: list[ClusterRow],
    statistics: RowStatistics,
    duplicates: list[ShownDuplicates],
) -> Mapping[int, str]:
    """Of the rows in the tables whose items are images, by row."""
    assert table.items is not None
    rows = {item.row for each in clusters for item in (*each.typical, *each.borderline)}
    rows |= {int(row) for frame in (statistics.outliers, statistics.ambiguous) for row in frame.row}
    rows |= {int(row) for each in duplicates for row in each.rows}
    items = {row: texts[row] for row in sorted(rows) if row in texts}
    return thumbnails(items, table.items, remote=table.remote_images)
