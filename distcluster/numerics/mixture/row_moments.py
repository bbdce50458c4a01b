"""What the M-step needs to know of the rows themselves."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.tiles import make_tiles

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowMoments:
    """Number, scatter and variance of rows; coordinates are relative to a centre.

    Attributes
    ----------
    n_rows : int
    scatter : (d, d) float64
        Sum of y y'.
    variance : (d,) float64
        Of every feature: the data's scale.
    """

    n_rows: int
    scatter: Float64
    variance: Float64


def moments(scatter: Float64) -> RowMoments:
    """Moments of rows from their sums of (1, y) (1, y)', (d + 1, d + 1).

    Examples
    --------
    >>> found = moments(scatter_rows(np.array([[1.0], [3.0], [np.nan]]), np.zeros(1)))
    >>> found.n_rows, found.scatter.tolist(), found.variance.tolist()
    (2, [[10.0]], [1.0])
    """
    n, total, squares = float(scatter[0, 0]), scatter[0, 1:], scatter[1:, 1:]
    return RowMoments(int(n), squares, np.diagonal(squares) / n - (total / n) ** 2)


def scatter_rows(rows: Rows, centre: Float64) -> Float64:
    """The sum over the valid rows of a block of (1, y) (1, y)', with y = row - centre; (d + 1, d + 1) float64."""
    tiles, weight = make_tiles(rows, ~np.isnan(rows).any(axis=1), centre)
    with_one = np.concatenate([weight[:, None, :], tiles], axis=1)
    return np.asarray((with_one @ np.swapaxes(with_one, 1, 2)).sum(axis=0))
