"""The selection table: criteria of every candidate, from sums over rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import Candidate, CovarianceType

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Criteria:
    """One row of the selection table. NaN where there is an error.

    All candidates are compared on the same J held-out rows of the same projection: rows that no model was fitted on.
    Silhouettes and what ends in ``_all`` are of all N valid rows.

    Attributes
    ----------
    n_components, covariance_type
        The candidate.
    log_likelihood : float
        Sum over the J held-out rows of log p(row), nats.
    bic : float
        -2 log_likelihood + n_parameters ln J (Schwarz 1978); lower is better.
    icl : float
        bic + 2 entropy of the responsibilities (soft; Biernacki, Celeux, Govaert 2000); lower is better.
    silhouette : float
        Mean silhouette (Rousseeuw 1987) of all valid rows in squared Euclidean distance, exact; higher is better; NaN
        for k = 1.
    n_iter, converged
        Of EM.
    error : str
        Why the candidate could not be fitted.
    aic : float
        -2 log_likelihood + 2 n_parameters (Akaike 1974); lower is better.
    log_likelihood_all, bic_all : float
        The same over all valid rows: descriptive, because rows of the subsamples flatter the models fitted on them.
    silhouette_euclidean, silhouette_euclidean_error : float
        In Euclidean distance, estimated from rows of the mixture subsample, and the estimate's standard error.
    note : str
        What happened to single components.
    stability, stability_error, stability_null : float
        Adjusted Rand index, on common rows, of two replicates of the whole pipeline on other halves of the subsamples,
        mean over pairs of them and its standard error; the same for the null, rows of one Gaussian with the mean and
        the covariance of the UMAP subsample. NaN without replicates and for k = 1; the error for one pair.
    row_stability : float
        Mean over common rows of the stability of their cluster, its best Jaccard index in a replicate, averaged; NaN
        without replicates and for k = 1.
    n_returning : int
        Clusters whose stability is at least 0.5.
    """

    n_components: int
    covariance_type: CovarianceType
    log_likelihood: float
    bic: float
    icl: float
    silhouette: float
    n_iter: int
    converged: bool
    error: str = ""
    aic: float = float("nan")
    log_likelihood_all: float = float("nan")
    bic_all: float = float("nan")
    silhouette_euclidean: float = float("nan")
    silhouette_euclidean_error: float = float("nan")
    note: str = ""
    stability: float = float("nan")
    stability_error: float = float("nan")
    stability_null: float = float("nan")
    row_stability: float = float("nan")
    n_returning: int = 0

    @property
    def excess_over_null(self) -> float:
        """The stability beyond that of the null."""
        return self.stability - self.stability_null

    @property
    def candidate(self) -> Candidate:
        """The point of the grid."""
        return Candidate(self.n_components, self.covariance_type)


def information_criteria(log_likelihood: float, entropy: float, n_parameters: int, n_rows: int) -> tuple[float, float]:
    """BIC and ICL from sums over the held-out rows; see ``Criteria``.

    Examples
    --------
    >>> bic, icl = information_criteria(log_likelihood=-1500.0, entropy=20.0, n_parameters=5, n_rows=1000)
    >>> round(bic, 1), round(icl, 1)
    (3034.5, 3074.5)
    """
    bic = -2.0 * log_likelihood + n_parameters * np.log(n_rows)
    return float(bic), float(bic + 2.0 * entropy)


def add_criteria(row: Criteria, n_parameters: int, sums: Float64, n_held_out: int, n_valid: int) -> Criteria:
    """A row of the table with its criteria.

    Parameters
    ----------
    row : Criteria
    n_parameters : int
    sums : (4,) float64
        Log-likelihood and entropy over the held-out rows, then over all valid ones (``scores.score_rows``).
    n_held_out, n_valid : int
        J and the number of valid rows.
    """
    log_likelihood, entropy, log_likelihood_all = float(sums[0]), float(sums[1]), float(sums[2])
    bic, icl = information_criteria(log_likelihood, entropy, n_parameters, n_held_out)
    return replace(
        row,
        log_likelihood=log_likelihood,
        bic=bic,
        icl=icl,
        aic=-2.0 * log_likelihood + 2.0 * n_parameters,
        log_likelihood_all=log_likelihood_all,
        bic_all=-2.0 * log_likelihood_all + n_parameters * float(np.log(n_valid)),
    )


def add_fitted_criteria(row: Criteria, n_parameters: int, mean_log_likelihood: float, n_rows: int) -> Criteria:
    """A row of the table with log-likelihood and BIC of the rows that were fitted: they steer the grid."""
    log_likelihood = mean_log_likelihood * n_rows
    bic, _ = information_criteria(log_likelihood, 0.0, n_parameters, n_rows)
    return replace(row, log_likelihood=log_likelihood, bic=bic)


def table_columns(table: Sequence[Criteria]) -> dict[str, npt.NDArray[np.generic]]:
    """The selection table as one array a column, in the order of the grid."""
    columns = {field.name: np.array([getattr(row, field.name) for row in table]) for field in fields(Criteria)}
    # Fixed-length strings have no place in the Zarr v3 specification.
    return {name: c.astype(np.dtypes.StringDType()) if c.dtype.kind == "U" else c for name, c in columns.items()}


def table_rows(columns: Mapping[str, npt.NDArray[np.generic]]) -> list[Criteria]:
    """The selection table of ``table_columns``."""
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [Criteria(**dict(zip(columns, row, strict=True))) for row in rows]
