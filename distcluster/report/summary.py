"""What a finished run found: the verdict, the largest clusters, how far to trust them."""

from dataclasses import dataclass

import numpy as np

from distcluster.job import ReportTable
from distcluster.numerics.support import BEYOND_LIMIT
from distcluster.report.predecessors import read_lineage
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.labelling import MEASURE_PROJECTION, SUMMARISE_CLUSTERS
from distcluster.stages.searching import BUILD_INDEX
from distcluster.stages.subsampling import SUBSAMPLE, n_valid
from distcluster.storage import layout
from distcluster.storage.items import read_items
from distcluster.storage.run import Run

_CLUSTERS = 10
_ITEMS = 3
_OUTSIDE = 3.0  # times as many rows beyond the UMAP subsample's support as there should be deserve a warning


@dataclass(frozen=True, slots=True)
class Cluster:
    """One row of the summary's table; ``items`` are the texts, or else the row numbers, nearest to the mean."""

    label: int
    size: int
    mean_probability: float
    items: list[str]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run found.

    Attributes
    ----------
    trust, advice : str
        Whether the clusters return when other rows are drawn, in a word and a sentence.
    reason : str
        The verdict, a sentence with its figures.
    n_rows, n_clusters : int
        Rows with a label; clusters with at least one row.
    clusters : list of Cluster
        The largest ten, by size.
    sizes : tuple of int
        The smallest, the median and the largest cluster, rows.
    quality : str
        How far the projection can be trusted, a sentence with its figures.
    lineage : str
        What became of a previous run's clusters, a sentence; empty where ids follow no run.
    warnings : list of str
        What a reader must know before using the labels.
    url : str
        The run.
    """

    trust: str
    advice: str
    reason: str
    n_rows: int
    n_clusters: int
    clusters: list[Cluster]
    sizes: tuple[int, int, int]
    quality: str
    lineage: str
    warnings: list[str]
    url: str


def summarise(run: Run, table: ReportTable) -> Summary:
    """Read the summary of a finished run.

    Parameters
    ----------
    run : Run
    table : ReportTable
        What a row is.
    """
    table = table.beside(run.input_url)
    size = run.read(layout.CLUSTER_SIZE)
    exemplar, mean_probability = run.read(layout.EXEMPLAR), run.read(layout.CLUSTER_PROBABILITY)
    order = np.argsort(-size, kind="stable")[:_CLUSTERS]
    order = order[size[order] > 0]
    rows = {int(k): [int(row) for row in exemplar[k][:_ITEMS] if row >= 0] for k in order}
    wanted = [row for each in rows.values() for row in each]
    texts = read_items(table.items, wanted, table.item_column) if table.items else {}
    clusters = [
        Cluster(
            k,
            int(size[k]),
            float(mean_probability[k]),
            [texts.get(row, f"row {row}") for row in each],
        )
        for k, each in rows.items()
    ]
    filled = np.sort(size[size > 0])
    lineage = read_lineage(run)
    verdict = SELECT_CANDIDATE.facts_of(run)
    return Summary(
        trust=verdict.trust,
        advice=verdict.advice,
        reason=verdict.reason,
        n_rows=int(size.sum()),
        n_clusters=len(filled),
        clusters=clusters,
        sizes=(int(filled[0]), int(filled[len(filled) // 2]), int(filled[-1])),
        quality=_quality(run),
        lineage="" if lineage is None else lineage.line,
        warnings=_warnings(run),
        url=str(run.url),
    )


def _quality(run: Run) -> str:
    search, measured = BUILD_INDEX.facts_of(run).search, MEASURE_PROJECTION.facts_of(run)
    how = "an exact search" if search.kind == "exact" else f"the {search.kind}"
    trust = measured.trustworthiness
    outside = SUMMARISE_CLUSTERS.facts_of(run).n_outside_support / n_valid(run)
    return (
        f"Projection: {how} finds {search.recall:.1%} of a row's nearest rows in the UMAP subsample; "
        + (f"trustworthiness {trust:.3f} on rows that it was not fitted on; " if trust is not None else "")
        + f"mean log density {measured.sample_log_density:.2f} nats for the subsample's rows, "
        f"{measured.other_log_density:.2f} for others; "
        f"{outside:.2%} of the rows lie beyond the subsample's support "
        f"({BEYOND_LIMIT:.1%} expected)."
    )


def _warnings(run: Run) -> list[str]:
    found, subsample, valid = [], SUBSAMPLE.facts_of(run), n_valid(run)
    skipped = run.partitioning.n_rows - valid
    if skipped:
        found.append(f"{skipped:,} invalid rows were skipped and have label -1.")
    if SELECT_CANDIDATE.facts_of(run).uses_mixture_rows:
        found.append(
            "No row was held out of both subsamples: the candidates were compared on the rows that they were fitted "
            "on, so their figures flatter. Lower sample.rows or sample.mixture_rows."
        )
    limit, outside = BUILD_INDEX.facts_of(run).support_limit, SUMMARISE_CLUSTERS.facts_of(run).n_outside_support
    expected = BEYOND_LIMIT * valid
    if outside > _OUTSIDE * expected:
        found.append(
            f"{outside:,} rows lie beyond the UMAP subsample's support (array `support` above "
            f"{limit:.2f}), where about {expected:.0f} were to be expected: the subsample misses what they are, and "
            f"their coordinates say little. Raise sample.rows, now {subsample.sample:,}."
        )
    return found
