"""The grid of mixtures and its verdict as a scikit-learn estimator, on NumPy and Dask arrays."""

from dataclasses import asdict, replace
from typing import Any, Self

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import validate_data

from distcluster.estimators.dask_em import (
    PARTITION_ROWS,
    as_dask,
    blocks,
    maximise_partitions,
    mean,
    one_blas_thread,
    partitions,
    refuse_frame,
)
from distcluster.estimators.gaussian_mixture import FittedMixture, GaussianMixture
from distcluster.job import MixtureTable
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, Candidate
from distcluster.numerics.mixture.candidate_fit import CandidateFit, fit_candidate
from distcluster.numerics.mixture.candidate_grid import grid, largest_k, missing_ks
from distcluster.numerics.mixture.criteria import Criteria, add_criteria, add_fitted_criteria
from distcluster.numerics.mixture.parameters import Mixture, NaturalParameters, natural_parameters
from distcluster.numerics.mixture.scores import score_rows
from distcluster.numerics.mixture.selection import select
from distcluster.numerics.mixture.silhouettes import silhouette_rows
from distcluster.numerics.mixture.start import Starts
from distcluster.numerics.partition import BLOCK_ROWS, tree_sum

Float64 = npt.NDArray[np.float64]


class GaussianMixtureSearch(FittedMixture):
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
        Candidates are fitted on so many random rows. Where at least as many others remain, those are held out and
        compare the candidates; else all rows are fitted and compare them.
    refine : bool
        Go on with the chosen mixture by EM over all rows.
    random_state : int, RandomState or None

    Attributes
    ----------
    table_ : pandas.DataFrame
        A row a candidate: the fields of ``distcluster.numerics.mixture.criteria.Criteria``.
    best_estimator_ : GaussianMixture
        The chosen mixture.
    verdict_ : distcluster.numerics.mixture.selection.Verdict
    n_components_, covariance_type_
        Of the chosen candidate.
    weights_, means_, covariances_, precisions_, precisions_cholesky_
        As ``GaussianMixture``'s.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal([[-9.0, 0.0]] * 300 + [[0.0, 9.0]] * 300 + [[9.0, 0.0]] * 300)
    >>> search = GaussianMixtureSearch((2, 3, 4, 6, 8, 11), covariance_type="spherical", random_state=0).fit(X)
    >>> print(search.verdict_.candidate, search.verdict_.finding, sep=", ")
    spherical-3, elbow
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
            raise ValueError(
                f"rule = {self.rule!r}: must be one of elbow, bic, icl, silhouette; stability takes the whole "
                f"pipeline from the embeddings on, which `distcluster run` has"
            )
        ks: Any = self.n_components if isinstance(self.n_components, str) else np.atleast_1d(self.n_components).tolist()
        kinds: Any = np.atleast_1d(self.covariance_type).tolist()
        settings = MixtureTable(
            n_components=ks, covariance_type=kinds, n_init=self.n_init, max_iter=self.max_iter,
            tol=self.tol, reg_covar=self.reg_covar,
        )  # fmt: skip
        refuse_frame(X)
        if isinstance(X, da.Array):
            self.n_features_in_ = X.shape[1]
        else:
            X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        random = check_random_state(self.random_state)
        held_out = np.ones(X.shape[0], np.bool_)
        points = X
        if X.shape[0] >= 2 * self.max_fit_rows:
            fitted_rows = np.sort(random.choice(X.shape[0], self.max_fit_rows, replace=False))
            held_out[fitted_rows] = False
            points = X[fitted_rows]
        points = check_array(dask.compute(points)[0], dtype=[np.float64, np.float32])
        seed = int(random.randint(2**31 - 1))
        mixtures, rows = _fit_grid(points, settings, seed)
        table = _score_grid(X, held_out, mixtures, rows)
        self.verdict_ = select(table, self.rule, int(held_out.sum()))  # type: ignore[arg-type]
        self.table_ = pd.DataFrame([asdict(row) for row in table])
        chosen = mixtures[self.verdict_.candidate]
        self.n_components_, self.covariance_type_ = chosen.candidate.n_components, chosen.candidate.covariance_type
        if self.refine:
            stop: dict[str, Any] = {"tol": self.tol, "reg_covar": self.reg_covar, "max_iter": self.max_iter}
            chosen = maximise_partitions(partitions(as_dask(X)), chosen, **stop).mixture
        self._set_fitted(chosen)
        self.best_estimator_ = self._best(chosen)
        return self

    def _best(self, chosen: Mixture) -> GaussianMixture:
        best = GaussianMixture(
            chosen.candidate.n_components, covariance_type=chosen.candidate.covariance_type, tol=self.tol,
            reg_covar=self.reg_covar, max_iter=self.max_iter, random_state=self.random_state,
        )  # fmt: skip
        return best.from_mixture(chosen)


# --- the grid ---------------------------------------------------------------------------------------------------


def _fit_grid(
    points: npt.NDArray[Any], table: MixtureTable, seed: int
) -> tuple[dict[Candidate, Mixture], list[Criteria]]:
    """The mixtures that could be fitted, and the table with the criteria of the fitted rows; the grid may grow."""
    starts = dask.delayed(Starts)(points, table.n_init, seed).persist()
    fits = _fit_candidates(points, grid(table.n_components, table.covariance_type, len(points)), table, starts)
    limit = largest_k(len(points), len(points))
    has_between = False
    while table.n_components == "auto":
        rows = [_row(each, len(points)) for each in fits]
        added = missing_ks(rows, len(points), limit, has_between=has_between)
        if not added.ks:
            break
        has_between = added.why == "between"
        fits += _fit_candidates(
            points, [Candidate(k, kind) for k in added.ks for kind in table.covariance_type], table, starts
        )
    fits.sort(key=lambda each: each.candidate.n_components)
    return {each.candidate: each.mixture for each in fits if each.mixture}, [_row(each, len(points)) for each in fits]


def _fit_candidates(
    points: npt.NDArray[Any], candidates: list[Candidate], table: MixtureTable, starts: Any
) -> list[CandidateFit]:
    data = dask.delayed(points)
    labels = {k: starts.labels(k) for k in sorted({each.n_components for each in candidates})}
    return list(
        dask.compute(*(dask.delayed(_fit)(data, labels[each.n_components], each, table) for each in candidates))
    )


def _row(fit: CandidateFit, n_rows: int) -> Criteria:
    nan = float("nan")
    row = Criteria(fit.candidate.n_components, fit.candidate.covariance_type, nan, nan, nan, nan, fit.n_iter,
                   fit.converged, fit.error, note=fit.note)  # fmt: skip
    if fit.mixture is None:
        return row
    return add_fitted_criteria(row, fit.mixture.n_parameters, fit.mean_log_likelihood, n_rows)


def _score(
    rows: npt.NDArray[Any], held_out: npt.NDArray[np.bool_], centre: Float64, fitted: list[NaturalParameters]
) -> tuple[Float64, Float64]:
    """``score_rows`` of a partition."""
    starts = range(0, len(rows), BLOCK_ROWS)
    with one_blas_thread:
        sums = [
            score_rows(block, held_out[start : start + BLOCK_ROWS], centre, fitted)
            for start, block in zip(starts, blocks(rows), strict=True)
        ]
    return tree_sum(criteria for criteria, _ in sums), tree_sum(clusters for _, clusters in sums)


def _silhouettes(
    rows: npt.NDArray[Any], centre: Float64, fitted: list[NaturalParameters], clusters: Float64
) -> Float64:
    """``silhouette_rows`` of a partition."""
    with one_blas_thread:
        return tree_sum(silhouette_rows(block, centre, fitted, clusters) for block in blocks(rows))


def _fit(
    points: npt.NDArray[Any], labels: npt.NDArray[np.int32], wanted: Candidate, table: MixtureTable
) -> CandidateFit:
    with one_blas_thread:
        return fit_candidate(points, labels, wanted, tol=table.tol, reg_covar=table.reg_covar, max_iter=table.max_iter)


def _score_grid(
    X: Any, held_out: npt.NDArray[np.bool_], mixtures: dict[Candidate, Mixture], rows: list[Criteria]
) -> list[Criteria]:
    """The table with its criteria, from two passes over all rows."""
    parts = partitions(as_dask(X))
    if not mixtures:
        return rows
    centre = mean(parts)
    fitted = [natural_parameters(each, centre) for each in mixtures.values()]
    n_rows, n_held_out = len(held_out), int(held_out.sum())
    sums = dask.compute(
        *(
            dask.delayed(_score)(part, held_out[i * PARTITION_ROWS : (i + 1) * PARTITION_ROWS], centre, fitted)
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
            row = add_criteria(row, mixtures[row.candidate].n_parameters, criteria, n_held_out, n_rows)
            row = replace(row, silhouette=float("nan") if row.n_components == 1 else float(silhouette))
        table.append(row)
    return table
