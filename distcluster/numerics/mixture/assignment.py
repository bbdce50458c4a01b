"""Responsibilities, labels and log density of rows; the rows nearest to each component."""

from dataclasses import dataclass, fields

import numba
import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.kernels import tile_responsibilities
from distcluster.numerics.mixture.parameters import Mixture, natural_parameters
from distcluster.numerics.mixture.tiles import TILE_ROWS, make_tiles

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Rows = Float32 | Float64

_ROWS = 8 * TILE_ROWS  # whose responsibilities are held at a time: under 512 components a partition's would be 270 MB


def responsibilities(rows: Rows, mixture: Mixture) -> tuple[Float64, Float64]:
    """Responsibilities and log density of rows under one mixture; each row by itself.

    Parameters
    ----------
    rows : (n, d) float32 or float64
        NaN in invalid rows.

    Returns
    -------
    responsibility : (n, K) float64
        Sums to 1 in a row; NaN in a row of NaN.
    log_density : (n,) float64
        log p(x), nats.

    Examples
    --------
    >>> from distcluster.numerics.mixture.candidate import Candidate
    >>> mixture = Mixture(Candidate(2, "diag"), np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), np.ones((2, 1)))
    >>> share, log_density = responsibilities(np.array([[0.0], [0.5], [np.nan]]), mixture)
    >>> share.round(3).tolist()
    [[0.5, 0.5], [0.269, 0.731], [nan, nan]]
    """
    natural = natural_parameters(mixture, mixture.weights @ mixture.means)
    tiles, weight = make_tiles(rows, ~np.isnan(rows).any(axis=1), natural.centre)
    responsibility, density = tile_responsibilities(tiles, weight, natural.kind, natural.theta, natural.shared)
    return responsibility[: len(rows)], density[: len(rows)]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is written for n rows; invalid rows have -1 and NaN.

    Attributes
    ----------
    label : (n,) int32
        Component with the largest responsibility, the lower one of a tie.
    probability : (n,) float32
        Its responsibility.
    top_label, top_probability : (n, top) int32, float32
        The largest responsibilities, descending; -1 and NaN past the last component.
    log_density : (n,) float32
        log p(row), nats.
    """

    label: Int32
    probability: Float32
    top_label: Int32
    top_probability: Float32
    log_density: Float32


def assign_rows(projection: Float32, mixture: Mixture, top: int) -> Assignment:
    """Assign rows to the components of a mixture; each row by itself.

    Parameters
    ----------
    projection : (n, d) float32
        NaN in invalid rows.
    mixture : Mixture
    top : int
        How many components to keep for each row.

    Examples
    --------
    >>> from distcluster.numerics.mixture.candidate import Candidate
    >>> mixture = Mixture(Candidate(2, "diag"), np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), np.ones((2, 1)))
    >>> found = assign_rows(np.array([[0.0], [0.5], [np.nan]], np.float32), mixture, top=2)
    >>> found.label.tolist(), found.top_label.tolist()  # a tie goes to the lower component; an invalid row has none
    ([0, 1, -1], [[0, 1], [1, 0], [-1, -1]])
    """
    parts = [_assign(projection[i : i + _ROWS], mixture, top) for i in range(0, max(len(projection), 1), _ROWS)]
    return Assignment(
        **{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Assignment)}
    )


def _assign(projection: Float32, mixture: Mixture, top: int) -> Assignment:
    n = len(projection)
    kept = min(top, mixture.candidate.n_components)
    responsibility, log_density = responsibilities(projection, mixture)
    order = np.argsort(-responsibility, axis=1, kind="stable")[:, :kept]
    invalid = np.isnan(projection).any(axis=1)
    top_label = np.full((n, top), -1, np.int32)
    top_probability = np.full((n, top), np.nan, np.float32)
    top_label[:, :kept] = order
    top_probability[:, :kept] = np.take_along_axis(responsibility, order, axis=1)
    top_label[invalid] = -1
    return Assignment(
        label=top_label[:, 0].copy(),
        probability=top_probability[:, 0].copy(),
        top_label=top_label,
        top_probability=top_probability,
        log_density=log_density.astype(np.float32),
    )


def nearest_to_means(
    projection: Float32, label: Int32, mixture: Mixture, first_row: int, m: int
) -> tuple[npt.NDArray[np.int64], Float32]:
    """The m rows of each component that lie nearest to its mean, in Mahalanobis distance.

    Parameters
    ----------
    projection, label : (n, d) float32, (n,) int32
    mixture : Mixture
    first_row : int
        Global number of the first row.
    m : int

    Returns
    -------
    row : (K, m) int64
        Global rows by ascending distance, then row; -1 where a component has fewer.
    distance : (K, m) float32
        Mahalanobis distance; infinite where there is no row.
    """
    K = mixture.candidate.n_components
    row = np.full((K, m), -1, np.int64)
    distance = np.full((K, m), np.inf, np.float32)
    precisions = np.linalg.inv(mixture.full_covariances())
    for k in range(K):
        members = np.flatnonzero(label == k)
        squares = _squared_mahalanobis(projection[members], mixture.means[k], precisions[k])
        best = np.argsort(squares, kind="stable")[:m]
        row[k, : len(best)] = first_row + members[best]
        distance[k, : len(best)] = np.sqrt(squares[best])
    return row, distance


@numba.njit(cache=True, nogil=True)
def _squared_mahalanobis(
    rows: Float32, mean: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    n, d = rows.shape
    result = np.zeros(n)
    for r in range(n):
        for i in range(d):
            for j in range(d):
                result[r] += (rows[r, i] - mean[i]) * precision[i, j] * (rows[r, j] - mean[j])
    return result


def merge_nearest(rows: npt.NDArray[np.int64], distances: Float32, m: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """The m nearest rows of each component over all partitions.

    Parameters
    ----------
    rows, distances : (P, K, m) int64, float32
        ``nearest_to_means`` of every partition, in order.

    Returns
    -------
    (K, m) int64, (K, m) float32
    """
    flat_rows = np.moveaxis(rows, 0, 1).reshape(rows.shape[1], -1)
    flat_distances = np.moveaxis(distances, 0, 1).reshape(rows.shape[1], -1)
    order = np.argsort(flat_distances, axis=1, kind="stable")[:, :m]
    return np.take_along_axis(flat_rows, order, axis=1), np.take_along_axis(flat_distances, order, axis=1)
