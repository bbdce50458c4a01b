"""What a finished run found: the verdict, the largest clusters, how far to trust them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distcluster.job import ReportTable
from distcluster.numerics.neighbors import BEYOND_LIMIT
from distcluster.stages.context import ONE
from distcluster.storage.inputs import public_url
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
    warnings : list of str
        What a reader must know before using the labels.
    url : str
        The run.
    """

    reason: str
    n_rows: int
    n_clusters: int
    clusters: list[Cluster]
    sizes: tuple[int, int, int]
    quality: str
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
    select, draw, cluster = (run.record(stage, ONE) or {} for stage in ("select", "draw", "cluster"))
    arrays = {path.rpartition("/")[2]: values for path, values in run.read_model("cluster", ONE).items()}
    size = arrays["size"]
    order = np.argsort(-size, kind="stable")[:_CLUSTERS]
    order = order[size[order] > 0]
    rows = {int(k): [int(row) for row in arrays["exemplar"][k][:_ITEMS] if row >= 0] for k in order}
    wanted = [row for each in rows.values() for row in each]
    texts = read_items(table.items, wanted, table.item_column) if table.items else {}
    clusters = [
        Cluster(
            k,
            int(size[k]),
            float(arrays["mean_probability"][k]),
            [texts.get(row, f"row {row}") for row in each],
        )
        for k, each in rows.items()
    ]
    filled = np.sort(size[size > 0])
    return Summary(
        reason=select["facts"]["reason"],
        n_rows=int(size.sum()),
        n_clusters=len(filled),
        clusters=clusters,
        sizes=(int(filled[0]), int(filled[len(filled) // 2]), int(filled[-1])),
        quality=_quality(run, draw["facts"], cluster["facts"]),
        warnings=_warnings(run, select["facts"], draw["facts"], cluster["facts"]),
        url=public_url(run.url),
    )


def _quality(run: Run, draw: dict[str, int], cluster: dict[str, int]) -> str:
    search, measured = ((run.record(stage, ONE) or {})["facts"] for stage in ("index", "quality"))
    search = search["search"]
    how = "an exact search" if search["kind"] == "exact" else f"the {search['kind']}"
    trust = measured["trustworthiness"]
    return (
        f"Projection: {how} finds {search['recall']:.1%} of a row's nearest rows in the UMAP subsample; "
        + (f"trustworthiness {trust:.3f} on rows that it was not fitted on; " if trust is not None else "")
        + f"mean log density {measured['sample_log_density']:.2f} nats for the subsample's rows, "
        f"{measured['other_log_density']:.2f} for others; "
        f"{cluster['n_outside_support'] / draw['n_valid']:.2%} of the rows lie beyond the subsample's support "
        f"({BEYOND_LIMIT:.1%} expected)."
    )


def _warnings(run: Run, select: dict[str, Any], draw: dict[str, int], cluster: dict[str, int]) -> list[str]:
    found = []
    skipped = run.partitioning.n_rows - draw["n_valid"]
    if skipped:
        found.append(f"{skipped:,} invalid rows were skipped and have label -1.")
    if select["judged_by_draw"]:
        found.append(
            "No row was held out of both subsamples: the candidates were compared on the rows that they were fitted "
            "on, so their figures flatter. Lower sample.rows or sample.mixture_rows."
        )
    limit = (run.record("index", ONE) or {})["facts"]["support_limit"]
    expected = BEYOND_LIMIT * draw["n_valid"]
    if cluster["n_outside_support"] > _OUTSIDE * expected:
        found.append(
            f"{cluster['n_outside_support']:,} rows lie beyond the UMAP subsample's support (array `support` above "
            f"{limit:.2f}), where about {expected:.0f} were to be expected: the subsample misses what they are, and "
            f"their coordinates say little. Raise sample.rows, now {draw['sample']:,}."
        )
    return found
