"""What the report takes from the rows: two passes over the partitions, some held at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from distcluster.numerics.partition import Partitioning, RowRange
from distcluster.report.palette import colours
from distcluster.storage import layout
from distcluster.storage.layout import RowArray
from distcluster.storage.run import Run

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MAP_PIXELS = 1_200
"""Width and height of the map of all rows."""

_BATCH_ROWS = 2**16  # read at once, or one partition: painting fewer costs as much, that of a whole picture
_BLOCK = 16_384  # rows whose distances to all K clusters are held at a time
_POINTS = 8_000  # rows that the map shows as points of their own when it is zoomed
_WORD_ROWS = 100_000  # whose items are read for the distinguishing words
_OUTLIERS = 20
_UNSURE = 0.5  # probability below which no cluster has the better half of a row
_BORDERLINE = 5  # rows kept for each cluster


@dataclass(frozen=True, slots=True)
class ClusterMoments:
    """Size and moments of every cluster in the projection, and the extent of the 2-D view.

    Attributes
    ----------
    size : (K,) int64
    mean : (K, d) float64
    mean_square : (K,) float64
        Mean of the squared length of a cluster's rows.
    extent : (2, 2) float64 or None
        Lowest and highest x and y, and a margin of 3%; None where the run has no 2-D view.
    """

    size: Int64
    mean: Float64
    mean_square: Float64
    extent: Float64 | None


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """What two passes over all rows give.

    Attributes
    ----------
    moments : ClusterMoments
    silhouette : (K,) float64
        Mean silhouette (Rousseeuw 1987) of a cluster's rows in squared Euclidean distance, exact; NaN for K = 1.
    colour_sums : (MAP_PIXELS, MAP_PIXELS, 4) float64 or None
        Of every pixel of the map: red, green and blue summed over its rows (0 to 255 each), and their number.
    points : pandas.DataFrame
        Some rows, spread evenly: row, x, y, label, probability.
    points_projection : (points, d) float32
        Their coordinates in the space that is clustered.
    word_rows : pandas.DataFrame
        Rows whose items are read for words, spread evenly: row, label.
    outliers : pandas.DataFrame
        The rows that the UMAP subsample represents least: row, support, log_density, label.
    borderline : pandas.DataFrame
        The least probable rows of each cluster: row, label, probability, neighbour, neighbour_probability.
    ambiguous : pandas.DataFrame
        The least probable rows of all, with the same columns.
    n_unsure : int
        Rows with a probability below 0.5.
    """

    moments: ClusterMoments
    silhouette: Float64
    colour_sums: Float64 | None
    points: pd.DataFrame
    points_projection: npt.NDArray[np.float32]
    word_rows: pd.DataFrame
    outliers: pd.DataFrame
    borderline: pd.DataFrame
    ambiguous: pd.DataFrame
    n_unsure: int


def collect_row_statistics(run: Run, K: int, *, has_map: bool) -> RowStatistics:
    """Read all rows of a finished run, twice, a batch of partitions at a time.

    Parameters
    ----------
    run : Run
    K : int
        Components of the chosen mixture.
    has_map : bool
        Whether the run has a 2-D view.
    """
    moments = measure_moments(run, K, has_map=has_map)
    silhouette_sum = np.zeros(K)
    colour_sums = np.zeros((MAP_PIXELS, MAP_PIXELS, 4)) if has_map else None
    points, coordinates, word_rows = [], [], []
    outliers, borderline, ambiguous, n_unsure = pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), 0
    for batch in _batches(run.partitioning):
        rows = _frame(run, batch, has_map=has_map)
        valid = rows.label.to_numpy() >= 0
        projection = _read(run, layout.PROJECTION, batch)[valid]
        rows = rows[valid]
        silhouette_sum += silhouette_sums(projection, rows.label.to_numpy(), moments)
        if colour_sums is not None and moments.extent is not None:
            colour_sums += paint(rows, moments.extent, K)
        spread = _is_spread(rows.row, run.partitioning.n_rows, _POINTS)
        points.append(rows[spread])
        coordinates.append(projection[spread])
        word_rows.append(rows.loc[_is_spread(rows.row, run.partitioning.n_rows, _WORD_ROWS), ["row", "label"]])
        outliers = pd.concat([outliers, rows]).nlargest(_OUTLIERS, "support")
        borderline = _least_probable(pd.concat([borderline, rows]))
        ambiguous = pd.concat([ambiguous, rows]).nsmallest(_OUTLIERS, "probability")
        n_unsure += int((rows.probability < _UNSURE).sum())
    with np.errstate(invalid="ignore"):
        silhouette = silhouette_sum / moments.size if K > 1 else np.full(K, np.nan)
    return RowStatistics(
        moments,
        silhouette,
        colour_sums,
        pd.concat(points),
        np.concatenate(coordinates),
        pd.concat(word_rows),
        outliers,
        borderline,
        ambiguous,
        n_unsure,
    )


def measure_moments(run: Run, K: int, *, has_map: bool) -> ClusterMoments:
    """The first pass: what the second one needs of all rows before it can say anything of one."""
    size, total, square = np.zeros(K, np.int64), None, np.zeros(K)
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for batch in _batches(run.partitioning):
        label = _read(run, layout.LABEL, batch)
        valid = label >= 0
        rows = _read(run, layout.PROJECTION, batch)[valid].astype(np.float64)
        label = label[valid]
        sums = np.stack([np.bincount(label, column, K) for column in rows.T], axis=1)
        total = sums if total is None else total + sums
        square += np.bincount(label, (rows**2).sum(axis=1), K)
        size += np.bincount(label, minlength=K)
        if has_map and len(rows):
            view = _read(run, layout.VIEW_2D, batch)[valid]
            low, high = np.minimum(low, view.min(axis=0)), np.maximum(high, view.max(axis=0))
    assert total is not None  # a run has rows
    with np.errstate(invalid="ignore", divide="ignore"):  # an empty component has no mean
        mean, mean_square = total / size[:, None], square / size
    margin = 0.03 * (high - low) + 1e-6
    return ClusterMoments(size, mean, mean_square, np.stack([low - margin, high + margin]) if has_map else None)


def silhouette_sums(rows: npt.NDArray[np.float32], label: npt.NDArray[np.int32], moments: ClusterMoments) -> Float64:
    """Sum of the rows' silhouettes for each cluster, in squared Euclidean distance.

    The mean squared distance of x to the rows of a cluster is |x|^2 - 2 x.mean + mean_square, so no pair of rows is
    ever formed. A row that is alone in its cluster has 0, as in scikit-learn.

    Parameters
    ----------
    rows : (n, d) float32
    label : (n,) int32
    moments : ClusterMoments
        Of all rows of the run.

    Returns
    -------
    (K,) float64
    """
    K = len(moments.size)
    total = np.zeros(K)
    if K == 1:
        return total
    filled = moments.size > 0
    for start in range(0, len(rows), _BLOCK):
        x, own = rows[start : start + _BLOCK].astype(np.float64), label[start : start + _BLOCK]
        distance = (x**2).sum(axis=1)[:, None] - 2.0 * x @ moments.mean.T + moments.mean_square
        distance[:, ~filled] = np.inf
        here = np.arange(len(x)), own
        others = moments.size[own] - 1
        within = distance[here] * moments.size[own] / np.maximum(others, 1)
        distance[here] = np.inf
        nearest = distance.min(axis=1)
        value = np.where(others > 0, (nearest - within) / np.maximum(np.maximum(within, nearest), 1e-300), 0.0)
        total += np.bincount(own, np.where(np.isfinite(nearest), value, 0.0), K)
    return total


def paint(rows: pd.DataFrame, extent: Float64, K: int) -> Float64:
    """A batch's part of the map.

    A pixel's colour is to be the mean colour of its rows, which sums of colours give for any K; one count a cluster
    would hold K images.

    Parameters
    ----------
    rows : pandas.DataFrame
        x, y, label; every place lies inside the extent.
    extent : (2, 2) float64
    K : int

    Returns
    -------
    (MAP_PIXELS, MAP_PIXELS, 4) float64
        Sums of red, green and blue, and the number of rows. The first row is the lowest y.
    """
    low, high = extent
    x, y = ((rows[["x", "y"]].to_numpy() - low) / (high - low) * MAP_PIXELS).astype(np.int64).T
    pixel = y * MAP_PIXELS + x
    rgb = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours(K)], np.float64)
    weights = [*rgb[rows.label].T, None]
    image = np.stack([np.bincount(pixel, weight, MAP_PIXELS**2) for weight in weights], axis=-1)
    return image.reshape(MAP_PIXELS, MAP_PIXELS, 4).astype(np.float64)


def _batches(parts: Partitioning) -> Iterator[list[RowRange]]:
    """Adjoining partitions, up to some rows together."""
    size = max(1, _BATCH_ROWS // parts.partition_rows)
    for first in range(0, len(parts), size):
        yield [parts[index] for index in range(first, min(first + size, len(parts)))]


def _read(run: Run, array: RowArray, batch: Sequence[RowRange]) -> npt.NDArray[Any]:
    return np.concatenate([run.read_rows(array, partition) for partition in batch])


def _frame(run: Run, batch: Sequence[RowRange], *, has_map: bool) -> pd.DataFrame:
    """Results of adjoining partitions, one row each, skipped rows too."""
    row = np.arange(batch[0].start, batch[-1].stop)
    top_label, top_probability = (_read(run, each, batch) for each in (layout.TOP_LABEL, layout.TOP_PROBABILITY))
    view = _read(run, layout.VIEW_2D, batch) if has_map else np.zeros((len(row), 2), np.float32)
    second = min(1, top_label.shape[1] - 1)
    return pd.DataFrame(
        {
            "row": row,
            "x": view[:, 0],
            "y": view[:, 1],
            "label": _read(run, layout.LABEL, batch),
            "probability": _read(run, layout.PROBABILITY, batch),
            "neighbour": top_label[:, second],
            "neighbour_probability": top_probability[:, second],
            "support": _read(run, layout.SUPPORT, batch),
            "log_density": _read(run, layout.LOG_DENSITY, batch),
        }
    )


def _is_spread(row: pd.Series, n_rows: int, at_most: int) -> npt.NDArray[np.bool_]:
    """Every so many-th row of the run: the same ones whatever the partitions."""
    return np.asarray(row.to_numpy() % -(-n_rows // at_most) == 0)


def _least_probable(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values("probability", kind="stable").groupby("label").head(_BORDERLINE)
