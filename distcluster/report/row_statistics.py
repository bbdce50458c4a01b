"""What the report shows of the rows, from what the tasks that labelled them have left for it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from distcluster.numerics.partition import RowRange
from distcluster.numerics.shown_rows import (
    Table,
    borderline,
    least_probable,
    notable_rows,
    outliers,
    row_table,
    spread_evenly,
)
from distcluster.report.palette import colours
from distcluster.stages.labelling import LABEL_ROWS
from distcluster.stages.stage import partitions
from distcluster.storage import layout
from distcluster.storage.run import Run

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MAP_PIXELS = 1_200
"""Width and height of the map of all rows."""

_BLOCK = 16_384  # rows whose distances to all K clusters are held at a time
_POINTS = 8_000  # rows that the map shows as points of their own when it is zoomed
_WORD_ROWS = 100_000  # whose items are read for the distinguishing words
_HELD = 64  # partitions whose notable rows are held before they are sifted


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
    """What is known of the rows; of a run of more than two million, map and silhouettes are of as many, spread evenly.

    Attributes
    ----------
    moments : ClusterMoments
    silhouette : (K,) float64
        Mean silhouette (Rousseeuw 1987) of a cluster's rows in squared Euclidean distance; NaN for K = 1.
    colour_sums : (MAP_PIXELS, MAP_PIXELS, 4) float64 or None
        Of every pixel of the map: red, green and blue summed over its rows (0 to 255 each), and their number.
    points : pandas.DataFrame
        Some rows, spread evenly: row, x, y, and their results.
    points_projection : (points, d) float32
        Their coordinates in the space that is clustered.
    word_rows : pandas.DataFrame
        Rows whose items are read for words, spread evenly: row, label.
    outliers : pandas.DataFrame
        The rows that the UMAP subsample represents least, with the same columns.
    borderline : pandas.DataFrame
        The least probable rows of each cluster.
    ambiguous : pandas.DataFrame
        The least probable rows of all.
    typical : pandas.DataFrame
        The rows that were asked for as typical.
    map_points : pandas.DataFrame
        Rows that the map draws besides those above, spread evenly: row, x, y, label, probability, stability, support.
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
    typical: pd.DataFrame
    map_points: pd.DataFrame
    n_unsure: int

    @property
    def drawn(self) -> Int64:
        """All rows that the page shows one by one, rising, (n,)."""
        return _rows_of(self.points, self.typical, self.borderline, self.outliers, self.ambiguous, self.map_points)


def collect_row_statistics(
    run: Run, K: int, *, has_map: bool, typical: Int64 | None = None, n_points: int = 0
) -> RowStatistics:
    """Gather what the labelling tasks have left for the report.

    No array of a finished run is read, but for typical rows that are not among what was left: in runs of more than two
    million rows.

    Parameters
    ----------
    run : Run
    K : int
        Components of the chosen mixture.
    has_map : bool
        Whether the run has a 2-D view.
    typical : (n,) int64 or None
        Rows whose results are wanted besides.
    n_points : int
        Rows that the map may draw, at most.
    """
    shown, notable, sums = [], [], np.zeros((K, run.job.projection.n_components + 2))
    arrays = [layout.SHOWN_ROWS, layout.NOTABLE_ROWS, layout.MOMENT_SUMS]
    for some, few, of_partition in run.read_items(arrays, partitions(run)):
        shown.append(some)
        notable.append(few)
        sums += of_partition
        if len(notable) == _HELD:
            notable = [notable_rows(np.concatenate(notable))]
    rows, few = np.concatenate(shown), np.concatenate(notable)
    moments = _moments(sums, rows if has_map and len(rows) else None)
    label, extent = rows["label"], moments.extent
    points = spread_evenly(rows, _POINTS)
    wanted = np.unique(typical) if typical is not None else np.empty(0, np.int64)
    singled = {
        "outliers": _frame(few[outliers(few)]),
        "borderline": _frame(few[borderline(few)]),
        "ambiguous": _frame(few[least_probable(few)]),
        "typical": _frame(results_of(run, wanted, rows, has_map=has_map)),
    }
    held = _rows_of(_frame(points), *singled.values())
    with np.errstate(invalid="ignore"):
        count = np.bincount(label, minlength=K)
        silhouette = silhouette_sums(rows["projection"], label, moments) / count if K > 1 else np.full(K, np.nan)
    return RowStatistics(
        moments,
        silhouette,
        None if extent is None else paint(_frame(rows), extent, K),
        points=_frame(points),
        points_projection=points["projection"],
        word_rows=_frame(spread_evenly(rows, _WORD_ROWS))[["row", "label"]],
        **singled,
        map_points=_map_points(rows, n_points if has_map else 0, held),
        n_unsure=sum(each.n_unsure for each in LABEL_ROWS.facts_of_all(run, partitions(run))),
    )


def results_of(run: Run, wanted: Int64, rows: Table, *, has_map: bool) -> Table:
    """The results of some rows: of those at hand, and read from the run where they are not.

    Parameters
    ----------
    run : Run
    wanted : (n,) int64
        Rising.
    rows : (m,) Table
        Those at hand; rows rise.
    has_map : bool
        Whether the run has a 2-D view.

    Returns
    -------
    (n,) Table
        Without neighbours and projection of those that were read.
    """
    found = row_table(len(wanted), rows["projection"].shape[1])
    at = np.minimum(np.searchsorted(rows["row"], wanted), max(len(rows) - 1, 0))
    here = rows["row"][at] == wanted if len(rows) else np.zeros(len(wanted), np.bool_)
    found[here] = rows[at[here]]
    others = wanted[~here]
    size = run.partitioning.partition_rows
    single = [RowRange(int(row) // size, int(row), int(row) + 1) for row in others]
    columns = {name: layout.ASSIGNMENT[name] for name in ("label", "probability", "log_density")}
    columns |= {"stability": layout.STABILITY, "support": layout.SUPPORT}
    values = row_table(len(others), rows["projection"].shape[1])
    values["row"] = others
    for name, array in columns.items() if single else ():
        values[name] = np.concatenate(list(run.read_partitions(array, single)))
    if has_map and single:
        values["x"], values["y"] = np.concatenate(list(run.read_partitions(layout.VIEW_2D, single))).T
    found[~here] = values
    return found


def _map_points(rows: Table, at_most: int, held: Int64) -> pd.DataFrame:
    """Rows that are spread evenly and not held with all that is known of them."""
    spread = spread_evenly(rows, at_most)
    others = spread[~np.isin(spread["row"], held)]
    columns = ("row", "x", "y", "label", "probability", "stability", "support")
    return pd.DataFrame({name: others[name] for name in columns})


def _rows_of(*frames: pd.DataFrame) -> Int64:
    return np.unique(np.concatenate([frame.row.to_numpy() for frame in frames]))


def _moments(sums: Float64, rows: Table | None) -> ClusterMoments:
    """Of the sums over all rows, and the extent of those that are shown."""
    size = sums[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):  # an empty component has no mean
        mean, mean_square = sums[:, 1:-1] / size[:, None], sums[:, -1] / size
    extent = None
    if rows is not None:
        low, high = (np.array([edge(rows["x"]), edge(rows["y"])], np.float64) for edge in (np.min, np.max))
        margin = 0.03 * (high - low) + 1e-6
        extent = np.stack([low - margin, high + margin])
    return ClusterMoments(size.astype(np.int64), mean, mean_square, extent)


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
    """The map.

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


def _frame(table: Table) -> pd.DataFrame:
    """Rows without their coordinates in the space that is clustered."""
    return pd.DataFrame({name: table[name] for name in table.dtype.names or () if name != "projection"})
