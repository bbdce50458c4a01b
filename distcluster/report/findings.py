"""All that the page's sections are made of, read from a finished run once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distcluster.job import ReportTable
from distcluster.numerics.mixture.parameters import Mixture
from distcluster.report.clusters import ClusterRow, cluster_rows
from distcluster.report.compare import Comparison, compare
from distcluster.report.row_statistics import RowStatistics, collect_row_statistics
from distcluster.report.subsample_rows import SubsampleRows, read_subsample_rows, silhouettes
from distcluster.report.summary import Summary, summarise
from distcluster.stages.labelling import SUMMARISE_CLUSTERS
from distcluster.stages.projecting import views
from distcluster.stages.refining import published_mixture
from distcluster.storage.items import read_items
from distcluster.storage.layout import ItemArray
from distcluster.storage.run import Run


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
    texts : mapping of int to str
        The items of all rows that are shown or read for words, by row.
    clusters : list of ClusterRow
        Those with rows.
    comparisons : list of Comparison
        One an entry of ``table.labels``.
    seed : int
    """

    run: Run
    table: ReportTable
    summary: Summary
    mixture: Mixture
    statistics: RowStatistics
    subsample: SubsampleRows
    texts: Mapping[int, str]
    clusters: list[ClusterRow]
    comparisons: list[Comparison]
    seed: int

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
    K = len(arrays["size"])
    statistics = collect_row_statistics(run, K, has_map="view_2d" in views(run.job))
    subsample = read_subsample_rows(run)
    texts = _read_texts(table, statistics, subsample, arrays["exemplar"])
    cosine = silhouettes(subsample.embedding, subsample.label, K)
    return Findings(
        run=run,
        table=table,
        summary=summarise(run, ReportTable()),
        mixture=published_mixture(run),
        statistics=statistics,
        subsample=subsample,
        texts=texts,
        clusters=cluster_rows(arrays, statistics, cosine, texts, has_items=table.items is not None),
        comparisons=[compare(run, url, statistics, subsample.row) for url in table.labels],
        seed=run.job.sample.seed,
    )


def _read_texts(
    table: ReportTable, statistics: RowStatistics, subsample: SubsampleRows, exemplars: Any
) -> Mapping[int, str]:
    if table.items is None:
        return {}
    frames = (
        statistics.points, statistics.word_rows, statistics.outliers, statistics.borderline, statistics.ambiguous,
    )  # fmt: skip
    shown = [*(frame.row for frame in frames), subsample.row, exemplars[exemplars >= 0]]
    return read_items(table.items, (int(row) for row in np.unique(np.concatenate(shown))), table.item_column)
