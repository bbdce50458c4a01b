"""The columns of the selection table: type and meaning of each."""

SELECTION_COLUMNS = {
    "n_components": ("int64", "k"),
    "covariance_type": ("string", "spherical, diag, tied or full"),
    "log_likelihood": ("float64", "sum over the held-out rows, nats"),
    "bic": ("float64", "of the held-out rows; lower is better"),
    "icl": ("float64", "of the held-out rows; lower is better"),
    "silhouette": ("float64", "mean over all rows, squared Euclidean distance; NaN for k = 1"),
    "n_iter": ("int64", "iterations of EM"),
    "converged": ("bool", "whether EM converged"),
    "error": ("string", "why the candidate could not be fitted; empty where it was"),
    "aic": ("float64", "of the held-out rows; lower is better"),
    "log_likelihood_all": ("float64", "sum over all rows, nats: descriptive"),
    "bic_all": ("float64", "of all rows: descriptive"),
    "silhouette_euclidean": ("float64", "estimated from the mixture subsample"),
    "silhouette_euclidean_error": ("float64", "its standard error"),
    "note": ("string", "what happened to single components"),
    "stability": ("float64", "mean adjusted Rand index of two replicates on other halves; NaN without replicates"),
    "stability_error": ("float64", "its standard error over pairs of replicates; NaN for one pair"),
    "stability_null": ("float64", "the same on one Gaussian of the same extent"),
    "row_stability": ("float64", "mean over rows of their cluster's best Jaccard index in a replicate"),
    "n_returning": ("int64", "clusters for which that index is at least 0.5"),
}
"""By name, in the order of ``numerics.mixture.criteria.Criteria``."""
