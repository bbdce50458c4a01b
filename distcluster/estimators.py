"""The engine as scikit-learn estimators: one mixture, and the grid with its verdict; on NumPy and Dask arrays."""

import warnings
from dataclasses import replace
from threading import Lock
from typing import Any, Self

import dask
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
from threadpoolctl import threadpool_limits

from distcluster.criteria import Criteria, judged, of_fitted_rows
from distcluster.job import COVARIANCE_TYPES, MixtureTable
from distcluster.mixture import (
    Candidate,
    CandidateFit,
    Maximum,
    Mixture,
    NaturalParameters,
    PreparedRows,
    expect_rows,
    fit_candidate,
    from_labels,
    initial_labels,
    m_step,
    maximise,
    moments,
    natural_parameters,
    packed,
    prepare_rows,
    responsibilities,
    scatter_rows,
    score_rows,
    silhouette_rows,
    to_sklearn,
    unpacked,
)
from distcluster.partition import tree_sum
from distcluster.selection import grid, largest_k, missing_ks, select

Float64 = npt.NDArray[np.float64]

_BLOCK_ROWS = 16_384  # of a partial sum
_PARTITION_ROWS = 4 * _BLOCK_ROWS  # of a task: a Dask array's own chunks do not matter to the result
_START_ROWS = 100_000  # of a Dask array, on which the start is made


class _OneBlasThread:
    """While any thread is inside, BLAS has one thread: products of a tile are too small for more.

    Counted, because Dask runs several tasks in one process, and the first that leaves must not lift the limit under
    the others; the user's own setting comes back when the last has left.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._limits: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limits = threadpool_limits(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.restore_original_limits()


_one_blas_thread = _OneBlasThread()


class _FittedMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """What a fitted mixture can say about rows: NumPy arrays give NumPy arrays, Dask arrays lazy Dask arrays."""

    _estimator_type = "DensityEstimator"

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
        if isinstance(X, da.Array):
            X = _whole_rows(X)
            shape = {"chunks": (X.chunks[0], len(mixture.weights))} if which == 0 else {"drop_axis": 1}
            return X.map_blocks(_of_block, mixture, which, dtype=np.float64, meta=np.empty((0,) * (2 - which)), **shape)
        return _of_block(validate_data(self, X, dtype=[np.float64, np.float32], reset=False), mixture, which)

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


class GaussianMixture(_FittedMixture):
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

    def fit_predict(self, X: Any, y: None = None) -> Any:  # noqa: ARG002  scikit-learn's signature
        """Fit, and label the same rows."""
        return self.fit(X).predict(X)

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
        with _one_blas_thread:
            return self._fit_prepared(X, random)

    def _fit_prepared(self, X: Any, random: np.random.RandomState) -> Maximum:
        rows = prepare_rows(X)
        stop: dict[str, Any] = {"tol": self.tol, "reg_covar": self.reg_covar, "max_iter": self.max_iter}
        if self._goes_on():
            found = [maximise(rows, self._fitted().moved(-rows.centre), **stop)]
        else:
            found = [maximise(rows, self._start(X, rows, random), **stop) for _ in range(self.n_init)]
        best = max(found, key=lambda each: each.log_likelihoods[-1])
        return Maximum(best.mixture.moved(rows.centre), best.log_likelihoods, best.converged)

    def _start(self, X: Any, rows: PreparedRows, random: np.random.RandomState) -> Mixture:
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
        parts = _partitions(X)
        if self._goes_on():
            start = self._fitted()
            return _maximise_dask(parts, start, tol=self.tol, reg_covar=self.reg_covar, max_iter=self.max_iter)
        some = X
        if X.shape[0] > _START_ROWS:
            some = X[np.sort(random.choice(X.shape[0], _START_ROWS, replace=False))]
        points = check_array(some.compute(), dtype=[np.float64, np.float32])
        rows = prepare_rows(points)
        starts = [self._start(points, rows, random).moved(rows.centre) for _ in range(self.n_init)]
        found = [
            _maximise_dask(parts, start, tol=self.tol, reg_covar=self.reg_covar, max_iter=self.max_iter)
            for start in starts
        ]
        return max(found, key=lambda each: each.log_likelihoods[-1])


class GaussianMixtureSearch(_FittedMixture):
    """The grid of mixtures, and the one that the verdict chooses.

    Parameters
    ----------
    n_components : "auto", int or sequence of int
        The ks to try; 1 is always added.
    covariance_type : str or sequence of str
    rule : {"elbow", "bic", "icl", "silhouette"}
        See ``docs/method.md``.
    n_init : int
        k-means starts per k.
    tol, reg_covar, max_iter
        As ``GaussianMixture``'s.
    max_fit_rows : int
        Candidates are fitted on so many random rows. Where at least as many others remain, those judge; else all rows
        are fitted and judge.
    refine : bool
        Go on with the chosen mixture by EM over all rows.
    random_state : int, RandomState or None

    Attributes
    ----------
    table_ : list of distcluster.selection.Criteria
    verdict_ : distcluster.selection.Verdict
    n_components_, covariance_type_
        Of the chosen candidate.
    weights_, means_, covariances_, precisions_, precisions_cholesky_
        As ``GaussianMixture``'s.
    """

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        covariance_type: Any = COVARIANCE_TYPES,
        rule: str = "elbow",
        n_init: int = 5,
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        max_fit_rows: int = 100_000,
        refine: bool = True,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.rule = rule
        self.n_init = n_init
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.max_fit_rows = max_fit_rows
        self.refine = refine
        self.random_state = random_state

    def _covariance_type(self) -> Any:
        return self.covariance_type_

    def fit(self, X: Any, y: None = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Fit the grid to rows (n, d), a NumPy or a Dask array, and choose.

        Raises
        ------
        ValueError
            When a parameter is wrong, or no candidate could be fitted.
        """
        if self.rule not in ("elbow", "bic", "icl", "silhouette"):
            raise ValueError(f"rule = {self.rule!r}: must be one of elbow, bic, icl, silhouette")
        ks: Any = self.n_components if isinstance(self.n_components, str) else np.atleast_1d(self.n_components).tolist()
        kinds: Any = np.atleast_1d(self.covariance_type).tolist()
        table = MixtureTable(
            n_components=ks, covariance_type=kinds, n_init=self.n_init, max_iter=self.max_iter,
            tol=self.tol, reg_covar=self.reg_covar,
        )  # fmt: skip
        if isinstance(X, da.Array):
            self.n_features_in_ = X.shape[1]
        else:
            X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        random = check_random_state(self.random_state)
        judges = np.ones(X.shape[0], np.bool_)
        points = X
        if X.shape[0] >= 2 * self.max_fit_rows:
            drawn = np.sort(random.choice(X.shape[0], self.max_fit_rows, replace=False))
            judges[drawn] = False
            points = X[drawn]
        points = check_array(dask.compute(points)[0], dtype=[np.float64, np.float32])
        seed = int(random.randint(2**31 - 1))
        mixtures, rows = _fit_grid(points, table, seed)
        self.table_ = _judge(X, judges, mixtures, rows)
        self.verdict_ = select(self.table_, self.rule, int(judges.sum()))  # type: ignore[arg-type]
        chosen = mixtures[self.verdict_.candidate]
        self.n_components_, self.covariance_type_ = chosen.candidate.n_components, chosen.candidate.covariance_type
        if self.refine:
            stop: dict[str, Any] = {"tol": self.tol, "reg_covar": self.reg_covar, "max_iter": self.max_iter}
            chosen = _maximise_dask(_partitions(_as_dask(X)), chosen, **stop).mixture
        self._set_fitted(chosen)
        return self


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


# --- Dask arrays ------------------------------------------------------------------------------------------------


def _whole_rows(X: Any) -> Any:
    return X.rechunk({1: -1})


def _as_dask(X: Any) -> Any:
    return X if isinstance(X, da.Array) else da.from_array(X, chunks=(_PARTITION_ROWS, -1))


def _partitions(X: Any) -> list[Any]:
    """Delayed (n, d) arrays of 65,536 rows, whatever the array's own chunks; held by the cluster, if there is one."""
    return list(dask.persist(*X.rechunk({0: _PARTITION_ROWS, 1: -1}).to_delayed().ravel()))


def _blocks(rows: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return [np.ascontiguousarray(rows[start : start + _BLOCK_ROWS]) for start in range(0, len(rows), _BLOCK_ROWS)]


def _of_block(rows: npt.NDArray[Any], mixture: Mixture, which: int) -> Float64:
    """Responsibilities (0) or log densities (1) of a chunk's rows."""
    with _one_blas_thread:
        return responsibilities(np.ascontiguousarray(rows), mixture)[which]


def _mean(parts: list[Any]) -> Float64:
    sums = dask.compute(*(dask.delayed(lambda rows: rows.sum(axis=0, dtype=np.float64))(part) for part in parts))
    counts = dask.compute(*(dask.delayed(len)(part) for part in parts))
    return np.asarray(tree_sum(sums) / sum(counts))


def _scatter(rows: npt.NDArray[Any], centre: Float64) -> Float64:
    with _one_blas_thread:
        return tree_sum(scatter_rows(block, centre) for block in _blocks(rows))


def _expect(rows: npt.NDArray[Any], centre: Float64, mixture: Mixture) -> Float64:
    with _one_blas_thread:
        return tree_sum(packed(expect_rows(block, centre, mixture)) for block in _blocks(rows))


def _maximise_dask(parts: list[Any], start: Mixture, *, tol: float, reg_covar: float, max_iter: int) -> Maximum:
    """EM over partitions; the same sums, in the same order, whatever the number of workers."""
    centre = _mean(parts)
    of_rows = moments(tree_sum(dask.compute(*(dask.delayed(_scatter)(part, centre) for part in parts))))
    mixture, history = start.moved(-centre), [-np.inf]
    converged = False
    while len(history) <= max_iter and not converged:
        sums = dask.compute(*(dask.delayed(_expect)(part, centre, mixture) for part in parts))
        expected = unpacked(tree_sum(sums))
        mixture = m_step(expected, of_rows, mixture, reg_covar)
        history.append(expected.log_likelihood / of_rows.n_rows)
        converged = bool(abs(history[-1] - history[-2]) < tol)
    return Maximum(mixture.moved(centre), tuple(history[1:]), converged)


# --- the grid ---------------------------------------------------------------------------------------------------


def _fit_grid(
    points: npt.NDArray[Any], table: MixtureTable, seed: int
) -> tuple[dict[Candidate, Mixture], list[Criteria]]:
    """The mixtures that could be fitted, and the table with the criteria of the fitted rows; the grid may grow."""
    fits = _fit_candidates(points, grid(table, len(points)), table, seed)
    limit = largest_k(len(points), len(points))
    has_between = False
    while table.n_components == "auto":
        rows = [_row(each, len(points)) for each in fits]
        added = missing_ks(rows, len(points), limit, has_between=has_between)
        if not added.ks:
            break
        has_between = added.why == "between"
        fits += _fit_candidates(
            points, [Candidate(k, kind) for k in added.ks for kind in table.covariance_type], table, seed
        )
    fits.sort(key=lambda each: each.candidate.n_components)
    return {each.candidate: each.mixture for each in fits if each.mixture}, [_row(each, len(points)) for each in fits]


def _fit_candidates(
    points: npt.NDArray[Any], candidates: list[Candidate], table: MixtureTable, seed: int
) -> list[CandidateFit]:
    data = dask.delayed(points)
    ks = sorted({each.n_components for each in candidates})
    labels = {k: dask.delayed(initial_labels)(data, k, table.n_init, seed) for k in ks}
    return list(
        dask.compute(*(dask.delayed(_fit)(data, labels[each.n_components], each, table) for each in candidates))
    )


def _row(fit: CandidateFit, n_rows: int) -> Criteria:
    nan = float("nan")
    row = Criteria(fit.candidate.n_components, fit.candidate.covariance_type, nan, nan, nan, nan, fit.n_iter,
                   fit.converged, fit.error, note=fit.note)  # fmt: skip
    if fit.mixture is None:
        return row
    return of_fitted_rows(row, fit.mixture.n_parameters, fit.mean_log_likelihood, n_rows)


def _score(
    rows: npt.NDArray[Any], judges: npt.NDArray[np.bool_], centre: Float64, fitted: list[NaturalParameters]
) -> tuple[Float64, Float64]:
    """``score_rows`` of a partition."""
    starts = range(0, len(rows), _BLOCK_ROWS)
    with _one_blas_thread:
        sums = [
            score_rows(block, judges[start : start + _BLOCK_ROWS], centre, fitted)
            for start, block in zip(starts, _blocks(rows), strict=True)
        ]
    return tree_sum(criteria for criteria, _ in sums), tree_sum(clusters for _, clusters in sums)


def _silhouettes(
    rows: npt.NDArray[Any], centre: Float64, fitted: list[NaturalParameters], clusters: Float64
) -> Float64:
    """``silhouette_rows`` of a partition."""
    with _one_blas_thread:
        return tree_sum(silhouette_rows(block, centre, fitted, clusters) for block in _blocks(rows))


def _fit(
    points: npt.NDArray[Any], labels: npt.NDArray[np.int32], wanted: Candidate, table: MixtureTable
) -> CandidateFit:
    with _one_blas_thread:
        return fit_candidate(points, labels, wanted, table)


def _judge(
    X: Any, judges: npt.NDArray[np.bool_], mixtures: dict[Candidate, Mixture], rows: list[Criteria]
) -> list[Criteria]:
    """The table with its criteria, from two passes over all rows."""
    parts = _partitions(_as_dask(X))
    if not mixtures:
        return rows
    centre = _mean(parts)
    fitted = [natural_parameters(each, centre) for each in mixtures.values()]
    n_rows, n_judging = len(judges), int(judges.sum())
    sums = dask.compute(
        *(
            dask.delayed(_score)(part, judges[i * _PARTITION_ROWS : (i + 1) * _PARTITION_ROWS], centre, fitted)
            for i, part in enumerate(parts)
        )
    )
    clusters = tree_sum(of_components for _, of_components in sums)
    silhouettes = tree_sum(
        dask.compute(*(dask.delayed(_silhouettes)(part, centre, fitted, clusters) for part in parts))
    )
    of_candidate = dict(
        zip(mixtures, zip(tree_sum(criteria for criteria, _ in sums), silhouettes / n_rows, strict=True), strict=True)
    )
    table = []
    for row in rows:
        if not row.error:
            criteria, silhouette = of_candidate[row.candidate]
            row = judged(row, mixtures[row.candidate].n_parameters, criteria, n_judging, n_rows)
            row = replace(row, silhouette=float("nan") if row.n_components == 1 else float(silhouette))
        table.append(row)
    return table
