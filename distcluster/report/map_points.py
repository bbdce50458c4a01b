"""The rows that the map draws and the page knows little else of, in few bytes a row."""

import gzip
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Float64 = npt.NDArray[np.float64]

AUTO_POINTS = 250_000
"""Rows that are drawn by default: 2.3 MB of the page, which then still goes into a mail."""

UNKNOWN = 255
"""A value that is not known, of those in one byte."""

_EFFORT = 6  # of gzip: 9 takes four times as long for half a percent
_PLACES = 2**16 - 1  # a place in the map's extent: at a zoom of 64 finer than a pixel
_MOST_SUPPORT = 0.999  # this quantile is the largest support that is told apart: a far outlier would take all steps


class PackedPoints(NamedTuple):
    """Rows as text.

    Attributes
    ----------
    columns : dict
        ``n``; ``columns``: name and bytes a row of each, in their order; ``support_step``: what one step of the support
        is.
    text : str
        Their bytes, by gzip, as base64.
    """

    columns: dict[str, Any]
    text: str


def packed_points(
    points: pd.DataFrame, extent: Float64 | None, classes: Sequence[npt.NDArray[np.int64]]
) -> PackedPoints:
    """Rows as bytes that ``templates/points.js`` unpacks; the same rows give the same bytes.

    Columns follow one another, whole; of those of several bytes first all lowest bytes, then all next ones, and so on,
    which compresses better. They are in the order of the rows, for then the rows' numbers, as differences, take next to
    nothing.

    Parameters
    ----------
    points : (n,) pandas.DataFrame
        row, x, y, label, probability, stability, support; rows rise.
    extent : (2, 2) float64 or None
        Lowest and highest x and y; None where there is no map, and no points.
    classes : sequence of (n,) int64
        Of each taxonomy the place of a row's class among those with colours, below 255; -1 for none.
    """
    low, high = np.array([[0.0, 0.0], [1.0, 1.0]]) if extent is None else extent
    known = points.support[np.isfinite(points.support)]
    step = float(known.quantile(_MOST_SUPPORT)) / (UNKNOWN - 1) if len(known) else 0.0
    place = (points[["x", "y"]].to_numpy(np.float64) - low) / (high - low) * _PLACES
    columns: Mapping[str, npt.NDArray[Any]] = {
        "row": np.diff(points.row.to_numpy(), prepend=0).astype("<u4"),
        "x": np.round(place[:, 0]).astype("<u2"),
        "y": np.round(place[:, 1]).astype("<u2"),
        "label": points.label.to_numpy().astype("<u2"),
        "probability": in_a_byte(points.probability, 0.01),
        "stability": in_a_byte(points.stability, 0.01),
        "support": in_a_byte(points.support, step),
        **{f"class {i}": np.where(each < 0, UNKNOWN, each).astype(np.uint8) for i, each in enumerate(classes)},
    }
    planes = b"".join(each.view(np.uint8).reshape(len(each), each.itemsize).T.tobytes() for each in columns.values())
    sizes = [[name, each.itemsize] for name, each in columns.items()]
    return PackedPoints(
        {"n": len(points), "columns": sizes, "support_step": step},
        b64encode(gzip.compress(planes, _EFFORT, mtime=0)).decode(),
    )


def in_a_byte(values: "pd.Series[float]", step: float) -> npt.NDArray[np.uint8]:
    """Values from 0 on in steps, (n,); what is larger than 254 of them is 254, and what is not known 255.

    Examples
    --------
    >>> in_a_byte(pd.Series([0.0, 0.504, 1.0, 9.0, np.nan]), 0.01).tolist()
    [0, 50, 100, 254, 255]
    """
    steps = np.clip(np.round(values.to_numpy(np.float64) / (step or 1.0)), 0, UNKNOWN - 1)
    return np.where(np.isnan(steps), UNKNOWN, steps).astype(np.uint8)
