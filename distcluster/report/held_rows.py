"""The rows that the page holds: what its map draws as points, its search finds and its lists show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from distcluster.report.clusters import shown_item
from distcluster.report.compare import Comparison
from distcluster.report.map_points import PackedPoints, packed_points
from distcluster.report.palette import colouring
from distcluster.report.row_statistics import RowStatistics

KINDS = ("random", "typical", "borderline", "outlier", "ambiguous")
"""Why a row is held; a row's kinds are a number with a bit of each."""

_DIGITS = {"x": 3, "y": 3, "probability": 3, "stability": 2, "support": 2, "log_density": 2}


def held_rows(
    statistics: RowStatistics,
    comparisons: Sequence[Comparison],
    texts: Mapping[int, str],
) -> tuple[dict[str, Any], PackedPoints]:
    """The rows that are held, and those that the map draws besides.

    Of the former columns for the page's script, rows rising, None where a value is not known.
    """
    rows, extent = _gathered(statistics), statistics.moments.extent
    colourings = [colouring(each.of_drawn, each.classes) for each in comparisons]
    held, on_map = (np.searchsorted(statistics.drawn, each.row) for each in (rows, statistics.map_points))
    columns = {
        **{name: rows[name].tolist() for name in ("row", "label", "kinds")},
        **{name: [known(value, digits) for value in rows[name]] for name, digits in _DIGITS.items()},
        "item": [shown_item(row, texts) for row in rows.row],
        "classes": [
            {"name": each.name.rpartition("/")[2], **found, "of": found["of"][held].tolist()}
            for each, found in zip(comparisons, colourings, strict=True)
        ],
    }
    return columns, packed_points(statistics.map_points, extent, [each["of"][on_map] for each in colourings])


def _gathered(statistics: RowStatistics) -> pd.DataFrame:
    """Every row once, with all its kinds."""
    frames = [
        statistics.points, statistics.typical, statistics.borderline, statistics.outliers, statistics.ambiguous,
    ]  # fmt: skip
    together = pd.concat([frame.assign(kinds=1 << bit) for bit, frame in enumerate(frames)])
    return together.groupby("row", as_index=False).first().assign(kinds=together.groupby("row").kinds.sum().to_numpy())


def known(value: float, digits: int) -> float | None:
    """A rounded value, None where there is none."""
    return None if pd.isna(value) else round(float(value), digits)  # JSON knows no NaN
