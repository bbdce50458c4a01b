"""Rows of the mixture subsample, whose embeddings the run still holds; the first ones, in random order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from distcluster.report.row_statistics import ClusterMoments, silhouette_sums
from distcluster.stages.projecting import views
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import RowArray

Float64 = npt.NDArray[np.float64]

MOST_ROWS = 5_000
"""Read at most: what a forest is grown on, and what the interactive views show."""


@dataclass(frozen=True, slots=True)
class SubsampleRows:
    """Some rows of the mixture subsample, with all that is known of them.

    Attributes
    ----------
    row : (n,) int64
    embedding : (n, D) float32
        Of unit length.
    projection : (n, d) float32
    view : (n, 3) float32 or None
        The three-dimensional view, where the run has one.
    label : (n,) int32
    probability : (n,) float32
    """

    row: npt.NDArray[np.int64]
    embedding: npt.NDArray[np.float32]
    projection: npt.NDArray[np.float32]
    view: npt.NDArray[np.float32] | None
    label: npt.NDArray[np.int32]
    probability: npt.NDArray[np.float32]


def read_subsample_rows(run: Run) -> SubsampleRows:
    """Read the rows; the input is not needed, which may have gone since."""
    row = run.read(layout.MIXTURE_ROW)[:MOST_ROWS].astype(np.int64)
    vectors = run.read(layout.MIXTURE_SAMPLE)[:MOST_ROWS].copy()
    return SubsampleRows(
        row,
        unit(vectors),
        rows_of(run, layout.PROJECTION, row),
        rows_of(run, layout.VIEW_3D, row) if "view_3d" in views(run.job) else None,
        rows_of(run, layout.LABEL, row),
        rows_of(run, layout.PROBABILITY, row),
    )


def rows_of(run: Run, array: RowArray, row: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Some rows of an array, in their own order, some partitions at a time."""
    part = row // run.partitioning.partition_rows
    found: npt.NDArray[Any] | None = None
    partitions = [run.partitioning[int(index)] for index in np.unique(part)]
    for partition, values in zip(partitions, run.read_partitions(array, partitions), strict=True):
        here = part == partition.index
        if found is None:
            found = np.empty((len(row), *values.shape[1:]), values.dtype)
        found[here] = values[row[here] - partition.start]
    assert found is not None  # a subsample has rows
    return found


def unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0), np.float32)


def silhouettes(rows: npt.NDArray[np.float32], label: npt.NDArray[np.integer], K: int) -> Float64:
    """Mean silhouette of each cluster in squared Euclidean distance, over these rows; (K,), NaN where there is none.

    On rows of unit length that is the cosine silhouette: their squared distance is twice their cosine distance.
    """
    own: npt.NDArray[np.int32] = label.astype(np.int32)
    x = rows.astype(np.float64)
    size = np.bincount(own, minlength=K)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.stack([np.bincount(own, column, K) for column in x.T], axis=1) / size[:, None]
        mean_square = np.bincount(own, (x**2).sum(axis=1), K) / size
        found = silhouette_sums(rows, own, ClusterMoments(size, mean, mean_square, None)) / size
    return found if np.count_nonzero(size) > 1 else np.full(K, np.nan)


def principal_axes(rows: npt.NDArray[np.float32], n: int) -> tuple[Float64, Float64]:
    """The mean of the rows, and their first principal axes as columns; (D,), (D, n), zeros where D is smaller."""
    x = rows.astype(np.float64)
    mean, D = x.mean(axis=0), x.shape[1]
    axes = np.zeros((D, n))
    few = min(n, D)
    _, vectors = eigh(np.cov(x, rowvar=False).reshape(D, D), subset_by_index=(D - few, D - 1))
    axes[:, :few] = vectors[:, ::-1]
    return mean, axes
