"""The parameters of a Gaussian mixture: as scikit-learn has them, and as the loops over rows want them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.tiles import KIND

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

Float64 = npt.NDArray[np.float64]

DEGENERATE_WEIGHT = 1e-300
"""The weight of a degenerate component, one that no row belongs to: its logarithm is finite."""


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

    Examples
    --------
    >>> mixture = Mixture(Candidate(2, "spherical"), np.array([0.5, 0.5]), np.zeros((2, 3)), np.array([1.0, 4.0]))
    >>> mixture.n_parameters, mixture.full_covariances().shape
    (9, (2, 3, 3))
    """

    candidate: Candidate
    weights: Float64
    means: Float64
    covariances: Float64

    @property
    def n_parameters(self) -> int:
        """Free parameters, as BIC counts them."""
        return self.candidate.n_parameters(int(self.means.shape[1]))

    def moved(self, by: Float64) -> "Mixture":
        """The same mixture with ``by`` (d,) added to every mean."""
        return replace(self, means=self.means + by)

    def reordered(self, component: npt.NDArray[np.integer]) -> "Mixture":
        """The same mixture with its components in another order: which component each place gets, (K,) int."""
        is_shared = self.candidate.covariance_type == "tied"
        covariances = self.covariances if is_shared else self.covariances[component]
        return replace(self, weights=self.weights[component], means=self.means[component], covariances=covariances)

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
class NaturalParameters:
    """A mixture as the kernels want it: weighted log densities are ``theta @ phi(x - centre)``.

    Attributes
    ----------
    kind : int
        ``tiles.KIND`` of the covariance type.
    centre : (d,) float64
    theta : (K, F) float64
    shared : (d, d) float64
        For a tied mixture y' shared y is in every component's log density and not in theta; else zeros.
    """

    kind: int
    centre: Float64
    theta: Float64
    shared: Float64


def natural_parameters(mixture: Mixture, centre: Float64) -> NaturalParameters:
    """The natural parameters of a mixture.

    Parameters
    ----------
    mixture : Mixture
    centre : (d,) float64
        Near the data: far from zero the squares would cancel.

    Raises
    ------
    ValueError
        When a covariance is not positive definite.

    Examples
    --------
    Of the standard normal distribution on the line, with features 1, y and y^2:

    >>> mixture = Mixture(Candidate(1, "full"), np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1)))
    >>> natural_parameters(mixture, np.zeros(1)).theta.round(4).tolist()  # the first is -ln(2 pi) / 2
    [[-0.9189, 0.0, -0.5]]
    """
    kind = mixture.candidate.covariance_type
    offset = mixture.means - centre
    d = len(centre)
    shared = np.zeros((d, d))
    if kind in ("spherical", "diag"):
        if not (mixture.covariances > 0.0).all():
            raise ValueError("a component has no extent: its covariance is singular; raise reg_covar")
        precisions = 1.0 / np.broadcast_to(mixture.covariances.reshape(len(offset), -1), offset.shape)
        linear = precisions * offset
        log_determinant = -np.log(precisions).sum(axis=1)
        quadratic = -0.5 * (precisions[:, :1] if kind == "spherical" else precisions)
    else:
        covariances = mixture.covariances if kind == "full" else mixture.covariances[None]
        factors, log_determinant = _inverse_factors(covariances)
        precisions = np.swapaxes(factors, 1, 2) @ factors
        linear = (precisions @ offset[:, :, None])[:, :, 0]
        upper = np.triu_indices(d)
        quadratic = -0.5 * precisions[:, *upper] * np.where(upper[0] == upper[1], 1.0, 2.0)
        if kind == "tied":
            shared = -0.5 * precisions[0]
            quadratic = np.empty((len(offset), 0))
    # A degenerate component keeps its place: a logarithm of zero would make NaN of rows that are far from all others.
    weights = np.maximum(mixture.weights, DEGENERATE_WEIGHT)
    constant = np.log(weights) - 0.5 * (
        d * np.log(2.0 * np.pi) + log_determinant + np.einsum("ki,ki->k", offset, linear)
    )
    theta = np.ascontiguousarray(np.hstack([constant[:, None], linear, quadratic]))
    return NaturalParameters(KIND[kind], np.asarray(centre, np.float64), theta, shared)


def _inverse_factors(covariances: Float64) -> tuple[Float64, Float64]:
    """Triangular factors V (m, d, d), V' V the inverses of the covariances, and the log determinants (m,).

    By way of correlations, because features may differ in scale.
    """
    extent = np.sqrt(np.einsum("kii->ki", covariances))
    try:
        factor = np.linalg.cholesky(covariances / (extent[:, :, None] * extent[:, None, :]))
    except np.linalg.LinAlgError as error:
        raise ValueError("a covariance is singular: too few distinct rows in a component; raise reg_covar") from error
    log_determinant = 2.0 * (np.log(np.einsum("kii->ki", factor)) + np.log(extent)).sum(axis=1)
    return np.linalg.inv(factor) / extent[:, None, :], log_determinant


def to_sklearn(mixture: Mixture) -> "GaussianMixture":
    """A scikit-learn model with the same parameters, ready to predict; by its public attributes alone.

    Examples
    --------
    >>> mixture = Mixture(Candidate(2, "diag"), np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), np.ones((2, 1)))
    >>> to_sklearn(mixture).predict([[-3.0], [2.0]]).tolist()
    [0, 1]
    """
    from sklearn.mixture import GaussianMixture  # seconds to import; the client can do without

    K, d = mixture.means.shape
    kind = mixture.candidate.covariance_type
    model = GaussianMixture(K, covariance_type=kind)
    model.weights_, model.means_, model.covariances_ = mixture.weights, mixture.means, mixture.covariances
    if kind in ("full", "tied"):
        covariances = mixture.covariances if kind == "full" else mixture.covariances[None]
        factors = np.swapaxes(_inverse_factors(covariances)[0], 1, 2)
        precisions = factors @ np.swapaxes(factors, 1, 2)
        model.precisions_cholesky_ = factors if kind == "full" else factors[0]
        model.precisions_ = precisions if kind == "full" else precisions[0]
    else:
        model.precisions_ = 1.0 / mixture.covariances
        model.precisions_cholesky_ = np.sqrt(model.precisions_)
    model.n_features_in_ = d
    model.converged_ = True
    return model
