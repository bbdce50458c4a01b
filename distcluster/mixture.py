"""Gaussian mixtures: fit one candidate; densities and responsibilities of rows under many at once."""

import time
import warnings
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from distcluster.job import CovarianceType, MixtureTable

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of the grid: a number of components and a covariance type."""

    n_components: int
    covariance_type: CovarianceType

    def __str__(self) -> str:
        return f"{self.covariance_type}-{self.n_components}"


@dataclass(frozen=True, slots=True)
class Mixture:
    """The parameters of a Gaussian mixture, in scikit-learn's shapes.

    Attributes
    ----------
    candidate : Candidate
    weights : (K,) float64
    means : (K, d) float64
    covariances : float64
        spherical (K,), diag (K, d), tied (d, d), full (K, d, d).
    """

    candidate: Candidate
    weights: Float64
    means: Float64
    covariances: Float64

    @property
    def n_parameters(self) -> int:
        """Free parameters, as BIC counts them."""
        K, d = int(self.means.shape[0]), int(self.means.shape[1])
        of_covariance = {"spherical": K, "diag": K * d, "tied": d * (d + 1) // 2, "full": K * d * (d + 1) // 2}
        return K - 1 + K * d + of_covariance[self.candidate.covariance_type]

    def full_covariances(self) -> Float64:
        """The covariances of all components, (K, d, d)."""
        K, d = self.means.shape
        identity = np.eye(d)
        c = self.covariances
        match self.candidate.covariance_type:
            case "spherical":
                return np.asarray(c[:, None, None] * identity)
            case "diag":
                return np.asarray(c[:, :, None] * identity)
            case "tied":
                return np.broadcast_to(c, (K, d, d))
            case "full":
                return c


@dataclass(frozen=True, slots=True)
class CandidateFit:
    """The result of fitting one candidate; ``mixture`` is None where ``error`` says why there is none."""

    candidate: Candidate
    mixture: Mixture | None
    n_iter: int
    converged: bool
    seconds: float
    error: str = ""


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
    x = points.astype(np.float64)
    n_clusters = min(n_components, len(np.unique(x, axis=0)))  # empty ones are the mixture's to report
    return np.asarray(KMeans(n_clusters, n_init=n_init, random_state=seed).fit_predict(x), np.int32)


def fit_candidate(
    points: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], candidate: Candidate, table: MixtureTable
) -> CandidateFit:
    """Fit one candidate by EM from a k-means start.

    Parameters
    ----------
    points : (M, d) float32
    labels : (M,) int32
        ``initial_labels`` for the candidate's k.
    candidate : Candidate
    table : MixtureTable
        ``max_iter``, ``tol`` and ``reg_covar`` are scikit-learn's.

    Returns
    -------
    CandidateFit
        With an error instead of a mixture where the covariances are singular or the rows too few.
    """
    started = time.perf_counter()
    x = points.astype(np.float64)
    try:
        start = _from_labels(x, labels, candidate, table.reg_covar)
        model = GaussianMixture(
            candidate.n_components,
            covariance_type=candidate.covariance_type,
            tol=table.tol,
            reg_covar=table.reg_covar,
            max_iter=table.max_iter,
            weights_init=start.weights,
            means_init=start.means,
            precisions_init=_precisions(start),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # recorded in `converged`
            model.fit(x)
    except (ValueError, np.linalg.LinAlgError) as error:
        message = str(error).splitlines()[0]
        return CandidateFit(candidate, None, 0, False, time.perf_counter() - started, message)
    mixture = Mixture(candidate, model.weights_, model.means_, model.covariances_)
    return CandidateFit(candidate, mixture, int(model.n_iter_), bool(model.converged_), time.perf_counter() - started)


def _from_labels(x: Float64, labels: npt.NDArray[np.int32], candidate: Candidate, reg_covar: float) -> Mixture:
    """The mixture that hard labels imply: an M-step with responsibilities of 0 and 1."""
    (n, d), k = x.shape, candidate.n_components
    counts = np.bincount(labels, minlength=k)
    if (counts == 0).any():
        raise ValueError(f"too few distinct rows: k-means filled only {np.count_nonzero(counts)} of {k} components")
    means = np.stack([x[labels == c].mean(axis=0) for c in range(k)])
    residual = x - means[labels]
    identity = reg_covar * np.eye(d)
    if candidate.covariance_type == "tied":
        covariances = residual.T @ residual / n + identity
    else:
        members = [residual[labels == c] for c in range(k)]
        covariances = np.stack([rows.T @ rows / len(rows) for rows in members]) + identity
        if candidate.covariance_type != "full":
            covariances = np.einsum("kii->ki", covariances)
        if candidate.covariance_type == "spherical":
            covariances = covariances.mean(axis=1)
    return Mixture(candidate, counts / n, means, covariances)


def _precisions(mixture: Mixture) -> Float64:
    """The inverse covariances, in scikit-learn's shapes; LinAlgError where one is singular."""
    if mixture.candidate.covariance_type in ("full", "tied"):
        return np.asarray(np.linalg.inv(mixture.covariances), np.float64)
    if (mixture.covariances <= 0.0).any():
        raise np.linalg.LinAlgError("a component has no extent: its covariance is singular; raise reg_covar")
    return 1.0 / mixture.covariances


# --- The E-step -------------------------------------------------------------------------------------------------
#
# A Gaussian mixture is an exponential family: with y = x - centre and the features
#
#     phi(y) = [1, y_1 ... y_d, y_i y_j for i <= j]
#
# log(w_k N(x | k)) = phi(y) . theta_k. One row's densities are F multiply-adds over a row of K (or of all candidates'
# components), in one fixed order: they depend on the row and theta alone.


def natural_parameters(mixture: Mixture, centre: Float64) -> Float64:
    """Theta, so that the weighted log density of every component is phi(x - centre) @ theta.

    Parameters
    ----------
    mixture : Mixture
    centre : (d,) float64
        Near the data: far from zero the squares would cancel.

    Returns
    -------
    (F, K) float64, F = 1 + d + d (d + 1) / 2
    """
    covariances = mixture.full_covariances()
    precisions = np.linalg.inv(covariances)
    offset = mixture.means - centre
    linear = np.einsum("kij,kj->ki", precisions, offset)
    d = len(centre)
    constant = np.log(mixture.weights) - 0.5 * (
        d * np.log(2.0 * np.pi) + np.linalg.slogdet(covariances)[1] + np.einsum("ki,ki->k", offset, linear)
    )
    upper = np.triu_indices(d)
    quadratic = -0.5 * precisions[:, *upper] * np.where(upper[0] == upper[1], 1.0, 2.0)
    return np.ascontiguousarray(np.hstack([constant[:, None], linear, quadratic]).T)


@numba.njit(cache=True, nogil=True)
def _features(row: npt.NDArray[np.float32], centre: Float64, phi: Float64) -> None:
    d = row.shape[0]
    phi[0] = 1.0
    for i in range(d):
        phi[1 + i] = row[i] - centre[i]
    f = d + 1
    for i in range(d):
        for j in range(i, d):
            phi[f] = phi[1 + i] * phi[1 + j]
            f += 1


@numba.njit(cache=True, nogil=True)
def _log_densities(phi: Float64, theta: Float64, result: Float64) -> None:
    result[:] = theta[0]
    for f in range(1, theta.shape[0]):
        value = phi[f]
        for k in range(theta.shape[1]):
            result[k] += value * theta[f, k]


_NEGLIGIBLE = -40.0  # exp(-40) is 4e-18: in a sum that holds exp(0) it changes nothing


@numba.njit(cache=True, nogil=True)
def block_sums(
    rows: npt.NDArray[np.float32],
    taken: npt.NDArray[np.bool_],
    centre: Float64,
    theta: Float64,
    offsets: npt.NDArray[np.int64],
) -> Float64:
    """Log-likelihood and entropy of some rows of a block under many candidates, in one pass.

    Parameters
    ----------
    rows : (n, d) float32
    taken : (n,) bool
        The rows that count.
    centre, theta : (d,), (F, sum of K) float64
        ``natural_parameters`` of all candidates, side by side.
    offsets : (C + 1,) int64
        Where each candidate's components start in theta.

    Returns
    -------
    (C, 2) float64
        For each candidate the sums over rows, in row order, of log p(x) and of the entropy of the responsibilities,
        both in nats.
    """
    n_candidates = offsets.shape[0] - 1
    sums = np.zeros((n_candidates, 2))
    phi = np.empty(theta.shape[0])
    log_density = np.empty(theta.shape[1])
    for i in range(rows.shape[0]):
        if not taken[i]:
            continue
        _features(rows[i], centre, phi)
        _log_densities(phi, theta, log_density)
        for c in range(n_candidates):
            highest = -np.inf
            for k in range(offsets[c], offsets[c + 1]):
                highest = max(highest, log_density[k])
            total = 0.0
            weighted = 0.0
            for k in range(offsets[c], offsets[c + 1]):
                below = log_density[k] - highest
                if below > _NEGLIGIBLE:
                    share = np.exp(below)
                    total += share
                    weighted += share * below
            log_total = np.log(total)
            sums[c, 0] += highest + log_total
            sums[c, 1] += log_total - weighted / total
    return sums


@numba.njit(cache=True, nogil=True)
def responsibilities(
    rows: npt.NDArray[np.float32], centre: Float64, theta: Float64
) -> tuple[Float64, npt.NDArray[np.float64]]:
    """Responsibilities and log density of rows under one mixture.

    Parameters
    ----------
    rows : (n, d) float32
    centre, theta : (d,), (F, K) float64

    Returns
    -------
    responsibility : (n, K) float64
        Sums to 1 in a row; NaN in a row of NaN.
    log_density : (n,) float64
        log p(x), nats.
    """
    n, K = rows.shape[0], theta.shape[1]
    responsibility = np.empty((n, K))
    density = np.empty(n)
    phi = np.empty(theta.shape[0])
    log_density = np.empty(K)
    for i in range(n):
        _features(rows[i], centre, phi)
        _log_densities(phi, theta, log_density)
        highest = log_density[0]
        for k in range(1, K):
            highest = max(highest, log_density[k])
        total = 0.0
        for k in range(K):
            share = np.exp(log_density[k] - highest)
            responsibility[i, k] = share
            total += share
        for k in range(K):
            responsibility[i, k] /= total
        density[i] = highest + np.log(total)
    return responsibility, density
