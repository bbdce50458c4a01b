"""A mixture as a scikit-learn estimator, on NumPy and Dask arrays."""

import warnings
from typing import Any, Self

import dask.array as da
import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from distcluster.estimators.dask_em import maximise_partitions, one_blas_thread, partitions, refuse_frame, whole_rows
from distcluster.numerics.mixture.assignment import responsibilities
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, Candidate
from distcluster.numerics.mixture.em import CentredRows, Maximum, centre_rows, from_labels, maximise
from distcluster.numerics.mixture.parameters import Mixture, to_sklearn

Float64 = npt.NDArray[np.float64]

_START_ROWS = 100_000  # of a Dask array, on which the start is made


class FittedMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """What a fitted mixture can say about rows: NumPy arrays give NumPy arrays, Dask arrays lazy Dask arrays."""

    _estimator_type = "DensityEstimator"

    def fit(self, X: Any, y: None = None) -> Self:
        """Fit to rows."""
        raise NotImplementedError

    def _fitted(self) -> Mixture:
        check_is_fitted(self, "weights_")
        return Mixture(
            Candidate(len(self.weights_), self._covariance_type()), self.weights_, self.means_, self.covariances_
        )

    def _covariance_type(self) -> Any:
        raise NotImplementedError

    def _set_fitted(self, mixture: Mixture) -> None:
        self.weights_, self.means_, self.covariances_ = mixture.weights, mixture.means, mixture.covariances
        model = to_sklearn(mixture)
        self.precisions_, self.precisions_cholesky_ = model.precisions_, model.precisions_cholesky_

    def _answer(self, X: Any, which: int) -> Any:
        """Responsibilities (0) or log densities (1) of rows."""
        mixture = self._fitted()
        refuse_frame(X)
        if isinstance(X, da.Array):
            X = whole_rows(X)
            shape = {"chunks": (X.chunks[0], len(mixture.weights))} if which == 0 else {"drop_axis": 1}
            return X.map_blocks(_of_block, mixture, which, dtype=np.float64, meta=np.empty((0,) * (2 - which)), **shape)
        return _of_block(validate_data(self, X, dtype=[np.float64, np.float32], reset=False), mixture, which)

    def fit_predict(self, X: Any, y: None = None) -> Any:  # noqa: ARG002  scikit-learn's signature
        """Fit, and label the same rows."""
        return self.fit(X).predict(X)

    def predict_proba(self, X: Any) -> Any:
        """Responsibilities, (n, K) float64; they sum to 1 in a row."""
        return self._answer(X, 0)

    def predict(self, X: Any) -> Any:
        """The component with the largest responsibility, (n,) int; the lower one of a tie."""
        return self.predict_proba(X).argmax(axis=1)

    def score_samples(self, X: Any) -> Any:
        """The log density of every row, (n,) float64, nats."""
        return self._answer(X, 1)

    def score(self, X: Any, y: None = None) -> float:  # noqa: ARG002  scikit-learn's signature
        """The mean over rows of log p(row), nats."""
        return float(self.score_samples(X).mean())

    def bic(self, X: Any) -> float:
        """-2 log L + p ln n (Schwarz 1978); lower is better."""
        return -2.0 * self.score(X) * len(X) + self._fitted().n_parameters * float(np.log(len(X)))

    def aic(self, X: Any) -> float:
        """-2 log L + 2 p (Akaike 1974); lower is better."""
        return -2.0 * self.score(X) * len(X) + 2.0 * self._fitted().n_parameters

    def icl(self, X: Any) -> float:
        """BIC + 2 soft entropy of the responsibilities (Biernacki, Celeux & Govaert 2000); lower is better."""
        shares = self.predict_proba(X)
        entropy = -(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum()
        return self.bic(X) + 2.0 * float(entropy)

    def sample(self, n_samples: int = 1) -> tuple[Float64, npt.NDArray[np.int64]]:
        """Random rows of the mixture, (n, d), and their components (n,), in the order of components."""
        model = self.to_sklearn()
        model.random_state = self.random_state
        rows, components = model.sample(n_samples)
        return rows, components

    def to_sklearn(self) -> SklearnGaussianMixture:
        """A ``sklearn.mixture.GaussianMixture`` with the same parameters, whose predictions are equal."""
        return to_sklearn(self._fitted())


class GaussianMixture(FittedMixture):
    """A Gaussian mixture fitted by EM; parameters and attributes are ``sklearn.mixture.GaussianMixture``'s.

    A Dask array is never gathered: every iteration is one pass over its partitions, on whatever scheduler is there. Its
    start is made on 100,000 of its rows.

    Parameters
    ----------
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    tol : float
        EM stops when the mean log-likelihood of a row changes by less, nats.
    reg_covar : float
        Added to the diagonal of every covariance.
    max_iter : int
    n_init : int
        Starts, of which the one with the highest likelihood is kept.
    init_params : {"kmeans", "k-means++", "random_from_data", "random"}
        Where the start's labels come from: k-means, the nearest of k-means++'s or of random rows, or chance.
    means_init : (K, d) array-like, optional
        Replaces the means of the start.
    random_state : int, RandomState or None
    warm_start : bool
        Go on from the last fit's parameters.

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_
        As scikit-learn's.
    converged_ : bool
    n_iter_ : int
    lower_bound_, lower_bounds_ : float, list of float
        Mean log-likelihood of a row before the last, and every, M-step; nats.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal([[-5.0]] * 500 + [[5.0]] * 500)
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> sorted(model.means_.round(1).ravel().tolist()), model.converged_
    ([-5.0, 4.9], True)
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        means_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.means_init = means_init
        self.random_state = random_state
        self.warm_start = warm_start

    def _covariance_type(self) -> Any:
        return self.covariance_type

    def fit(self, X: Any, y: None = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Fit to rows (n, d), a NumPy or a Dask array.

        Raises
        ------
        ValueError
            When a parameter is wrong, or there are fewer rows than components.
        """
        self._check_parameters()
        refuse_frame(X)
        is_dask = isinstance(X, da.Array)
        if is_dask:
            self.n_features_in_ = X.shape[1]
        else:
            X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if X.shape[0] < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {X.shape[0]}"
            )
        random = check_random_state(self.random_state)
        found = self._fit_dask(X, random) if is_dask else self._fit_rows(X, random)
        self._set_fitted(found.mixture)
        self.converged_, self.n_iter_ = found.converged, len(found.log_likelihoods)
        self.lower_bounds_ = list(found.log_likelihoods)
        self.lower_bound_ = found.log_likelihoods[-1]
        if not found.converged:
            warnings.warn(
                f"EM did not converge in {self.max_iter} iterations: raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def from_mixture(self, mixture: Mixture) -> Self:
        """Take the parameters of a mixture that was fitted elsewhere."""
        self._set_fitted(mixture)
        self.n_features_in_ = mixture.means.shape[1]
        return self

    def _check_parameters(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)!r}: must be one of {', '.join(allowed)}"
            for name, allowed in (("covariance_type", COVARIANCE_TYPES), ("init_params", tuple(_STARTS)))
            if getattr(self, name) not in allowed
        ]
        wrong += [
            f"{name} = {getattr(self, name)!r}: must be an integer of at least 1"
            for name in ("n_components", "max_iter", "n_init")
            if not (isinstance(getattr(self, name), (int, np.integer)) and getattr(self, name) >= 1)
        ]
        wrong += [
            f"{name} = {getattr(self, name)!r}: must not be negative"
            for name in ("tol", "reg_covar")
            if not getattr(self, name) >= 0.0
        ]
        if wrong:
            raise ValueError("; ".join(wrong))

    def _goes_on(self) -> bool:
        return self.warm_start and hasattr(self, "converged_")

    def _fit_rows(self, X: Any, random: np.random.RandomState) -> Maximum:
        with one_blas_thread:
            return self._fit_prepared(X, random)

    def _fit_prepared(self, X: Any, random: np.random.RandomState) -> Maximum:
        rows = centre_rows(X)
        stop: dict[str, Any] = {"tol": self.tol, "reg_covar": self.reg_covar, "max_iter": self.max_iter}
        if self._goes_on():
            found = [maximise(rows, self._fitted().moved(-rows.centre), **stop)]
        else:
            found = [maximise(rows, self._start(X, rows, random), **stop) for _ in range(self.n_init)]
        best = max(found, key=lambda each: each.log_likelihoods[-1])
        return Maximum(best.mixture.moved(rows.centre), best.log_likelihoods, best.converged)

    def _start(self, X: Any, rows: CentredRows, random: np.random.RandomState) -> Mixture:
        """A mixture relative to the rows' centre."""
        labels = _STARTS[self.init_params](np.asarray(X, np.float64), self.n_components, random)
        start = from_labels(
            rows, labels.astype(np.int32), Candidate(self.n_components, self._covariance_type()), self.reg_covar
        )
        if self.means_init is None:
            return start
        means = check_array(self.means_init, dtype=np.float64)
        if means.shape != start.means.shape:
            raise ValueError(f"means_init has shape {means.shape}, the mixture's means have {start.means.shape}")
        return Mixture(start.candidate, start.weights, means - rows.centre, start.covariances)

    def _fit_dask(self, X: Any, random: np.random.RandomState) -> Maximum:
        parts = partitions(X)
        if self._goes_on():
            start = self._fitted()
            return maximise_partitions(parts, start, tol=self.tol, reg_covar=self.reg_covar, max_iter=self.max_iter)
        some = X
        if X.shape[0] > _START_ROWS:
            some = X[np.sort(random.choice(X.shape[0], _START_ROWS, replace=False))]
        points = check_array(some.compute(), dtype=[np.float64, np.float32])
        rows = centre_rows(points)
        starts = [self._start(points, rows, random).moved(rows.centre) for _ in range(self.n_init)]
        found = [
            maximise_partitions(parts, start, tol=self.tol, reg_covar=self.reg_covar, max_iter=self.max_iter)
            for start in starts
        ]
        return max(found, key=lambda each: each.log_likelihoods[-1])


# --- starts -----------------------------------------------------------------------------------------------------


def _from_kmeans(x: Float64, k: int, random: np.random.RandomState) -> npt.NDArray[Any]:
    return np.asarray(KMeans(k, n_init=1, random_state=random).fit_predict(x))


def _from_seeds(x: Float64, k: int, random: np.random.RandomState) -> npt.NDArray[Any]:
    return np.asarray(pairwise_distances_argmin(x, kmeans_plusplus(x, k, random_state=random)[0]))


def _from_random_rows(x: Float64, k: int, random: np.random.RandomState) -> npt.NDArray[Any]:
    return np.asarray(pairwise_distances_argmin(x, x[random.choice(len(x), k, replace=False)]))


def _by_chance(x: Float64, k: int, random: np.random.RandomState) -> npt.NDArray[Any]:
    return np.asarray(random.permutation(np.arange(len(x)) % k))


_STARTS = {
    "kmeans": _from_kmeans,
    "k-means++": _from_seeds,
    "random_from_data": _from_random_rows,
    "random": _by_chance,
}


def _of_block(rows: npt.NDArray[Any], mixture: Mixture, which: int) -> Float64:
    """Responsibilities (0) or log densities (1) of a chunk's rows."""
    with one_blas_thread:
        return responsibilities(np.ascontiguousarray(rows), mixture)[which]
