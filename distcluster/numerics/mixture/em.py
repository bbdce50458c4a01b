"""EM: E-step and M-step as sums over rows, the stopping rule, and the fit of one candidate.

The file is in the order of the mathematics. ``distcluster.numerics.mixture.kernels`` has the loops over rows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import Candidate, CovarianceType
from distcluster.numerics.mixture.kernels import KIND, expectation, label_sums, make_tiles, n_features
from distcluster.numerics.mixture.parameters import DEAD_WEIGHT, Mixture, natural_parameters

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]


# --- the E-step -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moments:
    """What the M-step needs to know of the rows themselves; coordinates are relative to a centre.

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


def moments(scatter: Float64) -> Moments:
    """Moments of rows from their sums of (1, y) (1, y)', (d + 1, d + 1)."""
    n, total, squares = float(scatter[0, 0]), scatter[0, 1:], scatter[1:, 1:]
    return Moments(int(n), squares, np.diagonal(squares) / n - (total / n) ** 2)


def scatter_rows(rows: Rows, centre: Float64) -> Float64:
    """The sum over the valid rows of a block of (1, y) (1, y)', with y = row - centre; (d + 1, d + 1) float64."""
    tiles, weight = make_tiles(rows, ~np.isnan(rows).any(axis=1), centre)
    with_one = np.concatenate([weight[:, None, :], tiles], axis=1)
    return np.asarray((with_one @ np.swapaxes(with_one, 1, 2)).sum(axis=0))


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
        ``tile.make_tiles``.
    mixture : Mixture
        Its means relative to the tiles' centre.
    """
    natural = natural_parameters(mixture, np.zeros(mixture.means.shape[1]))
    return Expectation(*expectation(tiles, weight, natural.kind, natural.theta, natural.shared))


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

_DEAD_MASS = 1e-3  # rows: a component that has less of them than this can estimate nothing
_FLOOR = 1e-10  # variance of a component over that of the data: below, double precision cannot hold a log density


def m_step(expected: Expectation, of_rows: Moments, previous: Mixture, reg_covar: float) -> Mixture:
    """The parameters that maximise the expected log-likelihood, as scikit-learn estimates them.

    Parameters
    ----------
    expected : Expectation
    of_rows : Moments
    previous : Mixture
        A component that has died (less than a thousandth of a row) keeps its mean and covariance and gets a weight of
        1e-300: no row will ever be its, and all shapes stay.
    reg_covar : float
        Added to the diagonal of every covariance, squared units of the data.

    Returns
    -------
    Mixture
        No variance in any direction is below 1e-10 of the data's (a constant feature counts with ``reg_covar``).
    """
    candidate, sums = previous.candidate, expected.sums
    d = of_rows.scatter.shape[0]
    dead = sums[:, 0] < _DEAD_MASS
    mass = np.where(dead, 1.0, sums[:, 0]) + 10.0 * np.finfo(np.float64).eps
    means = sums[:, 1 : d + 1] / mass[:, None]
    total = np.where(dead, 0.0, mass).sum()
    weights = np.where(dead, DEAD_WEIGHT, mass / total)
    covariances = _COVARIANCES[candidate.covariance_type](sums[:, d + 1 :], np.where(dead, 0.0, mass), means, of_rows)
    covariances = _raised(candidate.covariance_type, covariances, reg_covar, _floor(of_rows, reg_covar))
    if dead.any():
        means = np.where(dead[:, None], previous.means, means)
        if candidate.covariance_type != "tied":
            covariances[dead] = previous.covariances[dead]
    return Mixture(candidate, weights, means, covariances)


def _full(quadratic: Float64, mass: Float64, means: Float64, of_rows: Moments) -> Float64:
    d = of_rows.scatter.shape[0]
    upper = np.triu_indices(d)
    covariances = np.empty((len(mass), d, d))
    covariances[:, *upper] = quadratic / np.maximum(mass, _DEAD_MASS)[:, None]
    covariances[:, *upper[::-1]] = covariances[:, *upper]
    return covariances - means[:, :, None] * means[:, None, :]


def _tied(_quadratic: Float64, mass: Float64, means: Float64, of_rows: Moments) -> Float64:
    return np.asarray((of_rows.scatter - (mass * means.T) @ means) / mass.sum())


def _diag(quadratic: Float64, mass: Float64, means: Float64, _of_rows: Moments) -> Float64:
    return np.asarray(quadratic / np.maximum(mass, _DEAD_MASS)[:, None] - means**2)


def _spherical(quadratic: Float64, mass: Float64, means: Float64, _of_rows: Moments) -> Float64:
    squares = quadratic[:, 0] / np.maximum(mass, _DEAD_MASS)
    return np.asarray((squares - (means**2).sum(axis=1)) / means.shape[1])


_COVARIANCES: dict[CovarianceType, Callable[[Float64, Float64, Float64, Moments], Float64]] = {
    "spherical": _spherical,
    "diag": _diag,
    "tied": _tied,
    "full": _full,
}


def _floor(of_rows: Moments, reg_covar: float) -> Float64:
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
class PreparedRows:
    """The rows that a mixture is fitted on, relative to their mean.

    Attributes
    ----------
    tiles, weight : (T, d, 1024), (T, 1024) float64
    centre : (d,) float64
    of_rows : Moments
    """

    tiles: Float64
    weight: Float64
    centre: Float64
    of_rows: Moments


def prepare_rows(points: Rows) -> PreparedRows:
    """Cut valid rows (n, d) into tiles around their mean."""
    centre = points.mean(axis=0, dtype=np.float64)
    tiles, weight = make_tiles(points, np.ones(len(points), np.bool_), centre)
    return PreparedRows(tiles, weight, centre, moments(scatter_rows(points, centre)))


def from_labels(rows: PreparedRows, labels: npt.NDArray[np.int32], candidate: Candidate, reg_covar: float) -> Mixture:
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


def maximise(rows: PreparedRows, start: Mixture, *, tol: float, reg_covar: float, max_iter: int) -> Maximum:
    """EM with scikit-learn's stopping rule.

    Parameters
    ----------
    rows : PreparedRows
    start : Mixture
        Its means relative to ``rows.centre``, as are the result's.
    tol : float
        Stop when the mean log-likelihood of a row changes by less, nats.
    reg_covar : float
        See ``m_step``.
    max_iter : int
    """
    mixture, history = start, [-np.inf]
    for _ in range(max_iter):
        expected = e_step(rows.tiles, rows.weight, mixture)
        mixture = m_step(expected, rows.of_rows, mixture, reg_covar)
        history.append(expected.log_likelihood / rows.of_rows.n_rows)
        if abs(history[-1] - history[-2]) < tol:
            return Maximum(mixture, tuple(history[1:]), True)
    return Maximum(mixture, tuple(history[1:]), False)


def remarks(mixture: Mixture, of_rows: Moments, reg_covar: float) -> str:
    """What a reader must know of a mixture's components: dead ones, and those at the floor; empty when nothing."""
    found = []
    dead = int((mixture.weights <= DEAD_WEIGHT).sum())
    if dead:
        found.append(f"{dead} of {len(mixture.weights)} components died: no row is theirs")
    extent = np.sqrt(_floor(of_rows, reg_covar))
    least = np.linalg.eigvalsh(mixture.full_covariances() / (extent[:, None] * extent))[:, 0]
    flat = int((least < 1.0 + 1e-3).sum())
    if flat:
        found.append(
            f"{flat} of {len(mixture.weights)} components have no extent of their own and were given a least one"
        )
    return "; ".join(found)


# --- the grid ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CandidateFit:
    """The result of fitting one candidate; ``mixture`` is None where ``error`` says why there is none.

    ``mean_log_likelihood`` is of the rows that it was fitted on, before the last M-step, nats a row.
    """

    candidate: Candidate
    mixture: Mixture | None
    n_iter: int
    converged: bool
    seconds: float
    error: str = ""
    note: str = ""
    mean_log_likelihood: float = float("nan")


def initial_labels(points: npt.NDArray[np.float32], n_components: int, n_init: int, seed: int) -> npt.NDArray[np.int32]:
    """Labels of k-means, the start that the four covariance types of one k share.

    Parameters
    ----------
    points : (M, d) float32
        The projected mixture draw.

    Returns
    -------
    (M,) int32
    """
    from sklearn.cluster import KMeans  # scikit-learn takes seconds to import, and a run's client can do without

    x = points.astype(np.float64)
    n_clusters = min(n_components, len(np.unique(x, axis=0)))  # empty ones are the mixture's to report
    return np.asarray(KMeans(n_clusters, n_init=n_init, random_state=seed).fit_predict(x), np.int32)


def fit_candidate(
    points: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    candidate: Candidate,
    *,
    tol: float,
    reg_covar: float,
    max_iter: int,
) -> CandidateFit:
    """Fit one candidate by EM from a k-means start.

    Parameters
    ----------
    points : (M, d) float32
    labels : (M,) int32
        ``initial_labels`` for the candidate's k.
    candidate : Candidate
    tol, reg_covar, max_iter
        As ``maximise``'s.

    Returns
    -------
    CandidateFit
        With an error instead of a mixture where the rows are too few.
    """
    started = time.perf_counter()
    rows = prepare_rows(points)
    try:
        start = from_labels(rows, labels, candidate, reg_covar)
        found = maximise(rows, start, tol=tol, reg_covar=reg_covar, max_iter=max_iter)
    except ValueError as error:
        return CandidateFit(candidate, None, 0, False, time.perf_counter() - started, str(error))
    return CandidateFit(
        candidate,
        found.mixture.moved(rows.centre),
        len(found.log_likelihoods),
        found.converged,
        time.perf_counter() - started,
        note=remarks(found.mixture, rows.of_rows, reg_covar),
        mean_log_likelihood=found.log_likelihoods[-1],
    )
