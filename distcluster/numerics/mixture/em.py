"""EM: E-step and M-step as sums over rows, and the stopping rule.

The file is in the order of the mathematics. ``distcluster.numerics.mixture.kernels`` has the loops over rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import Candidate, CovarianceType
from distcluster.numerics.mixture.kernels import label_sums, tile_expectation
from distcluster.numerics.mixture.parameters import DEGENERATE_WEIGHT, Mixture, natural_parameters
from distcluster.numerics.mixture.row_moments import RowMoments, moments, scatter_rows
from distcluster.numerics.mixture.tiles import KIND, make_tiles, n_features

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]


# --- the E-step -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expectation:
    """One E-step: sums over rows, which add up over blocks.

    Attributes
    ----------
    sums : (K, F) float64
        Sum over rows of responsibility times phi.
    log_likelihood : float
        Of the parameters that gave the responsibilities, nats.
    """

    sums: Float64
    log_likelihood: float


def e_step(tiles: Float64, weight: Float64, mixture: Mixture) -> Expectation:
    """The sums over rows for the next M-step.

    Parameters
    ----------
    tiles, weight : (T, d, 1024), (T, 1024) float64
        ``tiles.make_tiles``.
    mixture : Mixture
        Its means relative to the tiles' centre.
    """
    natural = natural_parameters(mixture, np.zeros(mixture.means.shape[1]))
    return Expectation(*tile_expectation(tiles, weight, natural.kind, natural.theta, natural.shared))


def expect_rows(rows: Rows, centre: Float64, mixture: Mixture) -> Expectation:
    """The E-step over a block of rows (n, d), NaN where invalid; the mixture's means are relative to the centre."""
    tiles, weight = make_tiles(rows, ~np.isnan(rows).any(axis=1), centre)
    return e_step(tiles, weight, mixture)


def packed(expected: Expectation) -> Float64:
    """An E-step as one array (K + 1, F), to be added up and stored: its sums, then the log-likelihood."""
    last = np.zeros((1, expected.sums.shape[1]))
    last[0, 0] = expected.log_likelihood
    return np.concatenate([expected.sums, last])


def unpacked(values: Float64) -> Expectation:
    """What ``packed`` packed."""
    return Expectation(values[:-1], float(values[-1, 0]))


# --- the M-step -------------------------------------------------------------------------------------------------

_DEGENERATE_ROWS = 1e-3  # a component whose responsibilities sum to less can estimate nothing
_FLOOR = 1e-10  # variance of a component over that of the data: below, double precision cannot hold a log density


def m_step(expected: Expectation, of_rows: RowMoments, previous: Mixture, reg_covar: float) -> Mixture:
    """The parameters that maximise the expected log-likelihood, as scikit-learn estimates them.

    Parameters
    ----------
    expected : Expectation
    of_rows : RowMoments
    previous : Mixture
        A degenerate component (less than a thousandth of a row) keeps its mean and covariance and gets a weight of
        1e-300: it will never label a row, and all shapes stay.
    reg_covar : float
        Added to the diagonal of every covariance, squared units of the data.

    Returns
    -------
    Mixture
        No variance in any direction is below 1e-10 of the data's (a constant feature counts with ``reg_covar``).
    """
    candidate, sums = previous.candidate, expected.sums
    d = of_rows.scatter.shape[0]
    degenerate = sums[:, 0] < _DEGENERATE_ROWS
    mass = np.where(degenerate, 1.0, sums[:, 0]) + 10.0 * np.finfo(np.float64).eps
    means = sums[:, 1 : d + 1] / mass[:, None]
    total = np.where(degenerate, 0.0, mass).sum()
    weights = np.where(degenerate, DEGENERATE_WEIGHT, mass / total)
    covariances = _COVARIANCES[candidate.covariance_type](
        sums[:, d + 1 :], np.where(degenerate, 0.0, mass), means, of_rows
    )
    covariances = _raised(candidate.covariance_type, covariances, reg_covar, _floor(of_rows, reg_covar))
    if degenerate.any():
        means = np.where(degenerate[:, None], previous.means, means)
        if candidate.covariance_type != "tied":
            covariances[degenerate] = previous.covariances[degenerate]
    return Mixture(candidate, weights, means, covariances)


def _full(quadratic: Float64, mass: Float64, means: Float64, of_rows: RowMoments) -> Float64:
    d = of_rows.scatter.shape[0]
    upper = np.triu_indices(d)
    covariances = np.empty((len(mass), d, d))
    covariances[:, *upper] = quadratic / np.maximum(mass, _DEGENERATE_ROWS)[:, None]
    covariances[:, *upper[::-1]] = covariances[:, *upper]
    return covariances - means[:, :, None] * means[:, None, :]


def _tied(_quadratic: Float64, mass: Float64, means: Float64, of_rows: RowMoments) -> Float64:
    return np.asarray((of_rows.scatter - (mass * means.T) @ means) / mass.sum())


def _diag(quadratic: Float64, mass: Float64, means: Float64, _of_rows: RowMoments) -> Float64:
    return np.asarray(quadratic / np.maximum(mass, _DEGENERATE_ROWS)[:, None] - means**2)


def _spherical(quadratic: Float64, mass: Float64, means: Float64, _of_rows: RowMoments) -> Float64:
    squares = quadratic[:, 0] / np.maximum(mass, _DEGENERATE_ROWS)
    return np.asarray((squares - (means**2).sum(axis=1)) / means.shape[1])


_COVARIANCES: dict[CovarianceType, Callable[[Float64, Float64, Float64, RowMoments], Float64]] = {
    "spherical": _spherical,
    "diag": _diag,
    "tied": _tied,
    "full": _full,
}


def _floor(of_rows: RowMoments, reg_covar: float) -> Float64:
    """The least variance of a component in each feature, (d,)."""
    return _FLOOR * np.where(of_rows.variance > 0.0, of_rows.variance, reg_covar or 1.0)


def _raised(kind: CovarianceType, covariances: Float64, reg_covar: float, floor: Float64) -> Float64:
    """Covariances with ``reg_covar`` on their diagonals and no variance below the floor."""
    if kind == "spherical":
        return np.asarray(np.maximum(covariances + reg_covar, floor.mean()))
    if kind == "diag":
        return np.maximum(covariances + reg_covar, floor)
    matrices = np.atleast_3d(covariances.T).T + reg_covar * np.eye(len(floor))
    extent = np.sqrt(floor)
    unit = extent[:, None] * extent
    scaled = matrices / unit
    try:
        np.linalg.cholesky(scaled - np.eye(len(floor)))  # no eigenvalue below 1: the usual case, and cheap
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(scaled)
        low = values[:, 0] < 1.0
        raised = (vectors * np.maximum(values, 1.0)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
        matrices = np.where(low[:, None, None], raised * unit, matrices)
    return matrices if kind == "full" else matrices[0]


# --- EM ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CentredRows:
    """The rows that a mixture is fitted on, relative to their mean.

    Attributes
    ----------
    tiles, weight : (T, d, 1024), (T, 1024) float64
    centre : (d,) float64
    of_rows : RowMoments
    """

    tiles: Float64
    weight: Float64
    centre: Float64
    of_rows: RowMoments


def centre_rows(points: Rows) -> CentredRows:
    """Cut valid rows (n, d) into tiles around their mean."""
    centre = points.mean(axis=0, dtype=np.float64)
    tiles, weight = make_tiles(points, np.ones(len(points), np.bool_), centre)
    return CentredRows(tiles, weight, centre, moments(scatter_rows(points, centre)))


def from_labels(rows: CentredRows, labels: npt.NDArray[np.int32], candidate: Candidate, reg_covar: float) -> Mixture:
    """The mixture that hard labels (n,) imply: an M-step with responsibilities of 0 and 1.

    Raises
    ------
    ValueError
        When a component has no row.
    """
    k, d = candidate.n_components, len(rows.centre)
    counts = np.bincount(labels, minlength=k)
    if (counts == 0).any():
        raise ValueError(f"too few distinct rows: k-means filled only {np.count_nonzero(counts)} of {k} components")
    sums = np.zeros((k, n_features(candidate.covariance_type, d)))
    label_sums(rows.tiles, rows.weight, KIND[candidate.covariance_type], labels, sums)
    nothing = Mixture(candidate, *(np.empty(0),) * 3)
    return m_step(Expectation(sums, float("nan")), rows.of_rows, nothing, reg_covar)


@dataclass(frozen=True, slots=True)
class Maximum:
    """Where EM ended.

    Attributes
    ----------
    mixture : Mixture
    log_likelihoods : tuple of float
        Mean over rows before each M-step, nats: scikit-learn's lower bounds.
    converged : bool
        Whether the last change was less than ``tol``.
    """

    mixture: Mixture
    log_likelihoods: tuple[float, ...]
    converged: bool


def maximise(rows: CentredRows, start: Mixture, *, tol: float, reg_covar: float, max_iter: int) -> Maximum:
    """EM with scikit-learn's stopping rule.

    Parameters
    ----------
    rows : CentredRows
    start : Mixture
        Its means relative to ``rows.centre``, as are the result's.
    tol : float
        Stop when the mean log-likelihood of a row changes by less, nats.
    reg_covar : float
        See ``m_step``.
    max_iter : int

    Examples
    --------
    >>> points = np.random.default_rng(0).normal([[-5.0]] * 500 + [[5.0]] * 500)
    >>> rows = centre_rows(points)
    >>> start = from_labels(rows, np.repeat(np.arange(2, dtype=np.int32), 500), Candidate(2, "full"), reg_covar=1e-6)
    >>> found = maximise(rows, start, tol=1e-3, reg_covar=1e-6, max_iter=100)
    >>> found.converged, found.mixture.moved(rows.centre).means.round(1).tolist()
    (True, [[-5.0], [4.9]])
    """
    mixture, history = start, [-np.inf]
    for _ in range(max_iter):
        expected = e_step(rows.tiles, rows.weight, mixture)
        mixture = m_step(expected, rows.of_rows, mixture, reg_covar)
        history.append(expected.log_likelihood / rows.of_rows.n_rows)
        if abs(history[-1] - history[-2]) < tol:
            return Maximum(mixture, tuple(history[1:]), True)
    return Maximum(mixture, tuple(history[1:]), False)


def remarks(mixture: Mixture, of_rows: RowMoments, reg_covar: float) -> str:
    """What a reader must know of a mixture's components: degenerate, or at the floor; empty when nothing."""
    found = []
    degenerate = int((mixture.weights <= DEGENERATE_WEIGHT).sum())
    if degenerate:
        found.append(f"{degenerate} of {len(mixture.weights)} components are degenerate: no row is theirs")
    extent = np.sqrt(_floor(of_rows, reg_covar))
    least = np.linalg.eigvalsh(mixture.full_covariances() / (extent[:, None] * extent))[:, 0]
    flat = int((least < 1.0 + 1e-3).sum())
    if flat:
        found.append(
            f"{flat} of {len(mixture.weights)} components have no extent of their own and were given a least one"
        )
    return "; ".join(found)
