"""Stability across replicates: the whole pipeline again on small subsamples, and on a null without clusters."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.assignment import assign_rows
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.candidate_fit import fit_candidate, initial_labels
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.prepared_rows import distinct_rows, prepare
from distcluster.numerics.projection import project, repulsion_field
from distcluster.numerics.sampling import replicate_rows
from distcluster.numerics.umap_fit import Optimizer, curve_parameters, fit_anchors

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int16]


def parts_of(rows: Float32, number: int, replicates: int) -> tuple[Float32, Float32, Float32]:
    """A replicate's UMAP subsample and mixture subsample, and the rows common to all; (n, D) each.

    Parameters
    ----------
    rows : (M, D) float32
        In random order: the mixture subsample, or the null.
    number : int
        Of the replicate.
    replicates : int

    Examples
    --------
    >>> rows = np.arange(10, dtype=np.float32)[:, None]
    >>> [part[:, 0].astype(int).tolist() for part in parts_of(rows, number=1, replicates=2)]
    [[4, 5], [6, 7], [8, 9]]
    """
    n = replicate_rows(len(rows), replicates)
    first = 2 * n * number
    common = rows[2 * n * replicates : (2 * replicates + 1) * n]
    return rows[first : first + n], rows[first + n : first + 2 * n], common


def null_rows(like: Float32, n: int, metric: str, seed: int) -> Float32:
    """Rows of one Gaussian with the mean and the covariance of other rows: no clusters, the same extent.

    Parameters
    ----------
    like : (S, D) float32
    n : int
    metric : str
        Under cosine the rows get unit length, as the data's have.
    seed : int

    Returns
    -------
    (n, D) float32
    """
    x = like.astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n, x.shape[1])) * np.sqrt(np.maximum(values, 0.0))
    return prepare(np.ascontiguousarray(x.mean(axis=0) + noise @ vectors.T, np.float32), metric)


def project_through(
    sample: Float32,
    rows: Float32,
    *,
    n_components: int,
    n_neighbors: int,
    metric: str,
    min_dist: float,
    n_epochs: int | None,
    seed: int,
    optimizer: Optimizer,
) -> Float32:
    """The projection of prepared rows (n, D) by a UMAP of its own, fitted on a prepared sample; (n, d) float32."""
    sample = sample[distinct_rows(sample)]
    k = n_neighbors
    index = open_index(*build_index(sample, rows, k, metric), sample)
    found, distance = nearest(index, sample, k, metric)
    anchors = fit_anchors(
        sample, found, distance, n_components=n_components, metric=metric, min_dist=min_dist,
        n_epochs=n_epochs, seed=seed, optimizer=optimizer,
    )  # fmt: skip
    a, b = curve_parameters(min_dist)
    mean_distance = float(distance.mean(dtype=np.float64))
    near = nearest(index, rows, k, metric)
    return project(*near, anchors, repulsion_field(anchors), a=a, b=b, mean_distance=mean_distance)


def cluster_again(
    points: Float32,
    common: Float32,
    candidates: Sequence[Candidate],
    *,
    tol: float,
    reg_covar: float,
    max_iter: int,
    seed: int,
) -> Labels:
    """Labels of the common rows under every candidate, fitted on a replicate's own rows; (C, n) int16.

    -1 throughout where a candidate cannot be fitted.
    """
    labels = np.full((len(candidates), len(common)), -1, np.int16)
    starts = {k: initial_labels(points, k, 1, seed) for k in {each.n_components for each in candidates}}
    for i, each in enumerate(candidates):
        mixture = fit_candidate(
            points, starts[each.n_components], each, tol=tol, reg_covar=reg_covar, max_iter=max_iter
        ).mixture
        if mixture is not None:
            labels[i] = assign_rows(common, mixture, top=1).label
    return labels


def agreement(labels: Sequence[Labels]) -> Float64:
    """Mean adjusted Rand index (Hubert & Arabie 1985) over pairs of replicates, for every candidate; (C,) float64.

    NaN where a candidate could not be fitted in every replicate, and for a single cluster, which always agrees.

    Examples
    --------
    One candidate in three replicates. The first two agree, for the numbers of the clusters do not matter:

    >>> labels = [np.array([row], np.int16) for row in ([0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1])]
    >>> agreement(labels).round(2).tolist()
    [0.33]
    """
    from sklearn.metrics import adjusted_rand_score  # as in em.py

    result = np.full(len(labels[0]), np.nan)
    for i, of_replicates in enumerate(zip(*labels, strict=True)):
        if all(each.min() >= 0 for each in of_replicates) and any(each.max() > 0 for each in of_replicates):
            result[i] = np.mean([adjusted_rand_score(a, b) for a, b in combinations(of_replicates, 2)])
    return result


def cluster_agreement(chosen: npt.NDArray[np.int32], labels: Sequence[Labels], n_components: int) -> Float64:
    """The stability of each chosen cluster: its best Jaccard index in a replicate, averaged (Hennig 2007).

    Parameters
    ----------
    chosen : (n,) int32
        Labels of the common rows by the chosen mixture.
    labels : sequence of (n,) int16
        Of the same candidate in every replicate.
    n_components : int

    Returns
    -------
    (n_components,) float64
        NaN for a cluster without common rows.

    Examples
    --------
    >>> chosen = np.array([0, 0, 1, 1], np.int32)
    >>> labels = [np.array([1, 1, 0, 0], np.int16), np.array([0, 0, 0, 1], np.int16)]
    >>> cluster_agreement(chosen, labels, n_components=2).round(2).tolist()
    [0.83, 0.75]
    """
    found = []
    for each in labels:
        met = np.zeros((n_components, int(each.max()) + 1))
        np.add.at(met, (chosen, each), 1.0)
        union = met.sum(axis=1)[:, None] + met.sum(axis=0)[None, :] - met
        found.append((met / np.maximum(union, 1.0)).max(axis=1))
    mean = np.mean(found, axis=0)
    return np.where(np.bincount(chosen, minlength=n_components) > 0, mean, np.nan)
