"""The rows that the page holds: what its map draws as points, its search finds and its lists show."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from distcluster.report.clusters import ClusterRow, shown_item
from distcluster.report.compare import Comparison
from distcluster.report.palette import colouring
from distcluster.report.row_statistics import RowStatistics

KINDS = ("random", "typical", "borderline", "outlier", "ambiguous")
"""Why a row is held; a row's kinds are a number with a bit of each."""

_DIGITS = {"x": 3, "y": 3, "probability": 3, "stability": 2, "support": 2, "log_density": 2}


def held_rows(
    statistics: RowStatistics,
    clusters: Sequence[ClusterRow],
    comparisons: Sequence[Comparison],
    texts: Mapping[int, str],
) -> dict[str, Any]:
    """Columns of the rows, rising, for the page's script; None where a value is not known.

    Of typical rows no more than their cluster is known, unless they are held for another reason as well.
    """
    rows = _gathered(statistics, clusters, comparisons)
    return {
        **{name: rows[name].tolist() for name in ("row", "label", "kinds")},
        **{name: [known(value, digits) for value in rows[name]] for name, digits in _DIGITS.items()},
        "item": [shown_item(row, texts) for row in rows.row],
        "classes": [
            {"name": each.name.rpartition("/")[2], **colouring(rows[each.name].to_numpy(), each.classes)}
            for each in comparisons
        ],
    }


def _gathered(
    statistics: RowStatistics, clusters: Sequence[ClusterRow], comparisons: Sequence[Comparison]
) -> pd.DataFrame:
    """Every row once, with all its kinds."""
    typical = pd.DataFrame(
        [(item.row, each.label) for each in clusters for item in each.typical], columns=["row", "label"]
    )
    points = statistics.points.assign(**{each.name: each.of_points for each in comparisons})
    frames = [points, typical, statistics.borderline, statistics.outliers, statistics.ambiguous]
    together = pd.concat([frame.assign(kinds=1 << bit) for bit, frame in enumerate(frames)])
    rows = together.groupby("row", as_index=False).first().assign(kinds=together.groupby("row").kinds.sum().to_numpy())
    return rows.fillna({each.name: -1 for each in comparisons}).astype({each.name: int for each in comparisons})


def known(value: float, digits: int) -> float | None:
    """A rounded value, None where there is none."""
    return None if pd.isna(value) else round(float(value), digits)  # JSON knows no NaN
