"""Stability across replicates: the whole pipeline again on halves of the subsamples, and on a null without clusters."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.assignment import assign_rows
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.candidate_fit import fit_candidate
from distcluster.numerics.mixture.start import Starts
from distcluster.numerics.mixture.trust import FAIR
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.prepared_rows import distinct_rows, prepare
from distcluster.numerics.projection import project
from distcluster.numerics.repulsion import repulsion_field
from distcluster.numerics.sampling import replicate_sizes
from distcluster.numerics.umap_fit import Optimizer, curve_parameters, fit_anchors

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int16]


def half_of(sample: Float32, mixture: Float32, number: int, seed: int) -> tuple[Float32, Float32, Float32]:
    """A replicate's rows: for UMAP, for mixtures, and those that all replicates label; (n, D) each.

    Replicates 0 and 1 have one half each of both subsamples, drawn at random, 2 and 3 the halves of another draw, and
    so on: the two of a pair have no row in common but those that they label.

    Parameters
    ----------
    sample, mixture : (S, D), (M, D) float32
        The run's subsamples; the mixture's in random order.
    number, seed : int
        Of the replicate, and of the run.

    Examples
    --------
    >>> rows = np.arange(20, dtype=np.float32)[:, None]
    >>> halves = [half_of(rows[:10], rows[10:], number, seed=0) for number in (0, 1)]
    >>> [[len(part) for part in half] for half in halves]
    [[5, 4, 2], [5, 4, 2]]
    >>> sorted(int(row) for half in halves for row in half[0][:, 0])
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    common, n = replicate_sizes(len(mixture))
    pair, side = divmod(number, 2)
    random = np.random.default_rng((seed, pair))
    of_sample = np.sort(random.permutation(len(sample))[side::2])
    of_mixture = np.sort(common + random.permutation(len(mixture) - common)[side::2][:n])
    return sample[of_sample], mixture[of_mixture], mixture[:common]


def null_half(
    like: Float32, mixture_rows: int, number: int, metric: str, seed: int
) -> tuple[Float32, Float32, Float32]:
    """The same of rows without clusters: of one Gaussian with the mean and the covariance of other rows.

    Parameters
    ----------
    like : (S, D) float32
        The UMAP subsample.
    mixture_rows : int
        M, as the run has it.
    number : int
    metric : str
        Under cosine the rows get unit length, as the data's have.
    seed : int
    """
    x = like.astype(np.float64)
    mean, (values, vectors) = x.mean(axis=0), np.linalg.eigh(np.cov(x, rowvar=False))
    axes = (vectors * np.sqrt(np.maximum(values, 0.0))).T

    def rows(n: int, *of: int) -> Float32:
        noise = np.random.default_rng((seed, *of)).normal(size=(n, x.shape[1]))
        return prepare(np.ascontiguousarray(mean + noise @ axes, np.float32), metric)

    common, n = replicate_sizes(mixture_rows)
    return rows(len(like) // 2, 1 + number, 0), rows(n, 1 + number, 1), rows(common, 0)


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
    are_merged: bool | None = None,
) -> Labels:
    """Labels of the common rows under every candidate, fitted on a replicate's own rows; (C, n) int16.

    -1 throughout where a candidate cannot be fitted. Fits start as the run's do, where ``are_merged`` says how.
    """
    labels = np.full((len(candidates), len(common)), -1, np.int16)
    starts = Starts(points, 1, seed, are_merged)
    start_of = {k: starts.labels(k) for k in {each.n_components for each in candidates}}
    for i, each in enumerate(candidates):
        start = start_of[each.n_components]
        mixture = fit_candidate(points, start, each, tol=tol, reg_covar=reg_covar, max_iter=max_iter).mixture
        if mixture is not None:
            labels[i] = assign_rows(common, mixture, top=1).label
    return labels


def pairs(labels: Sequence[Labels]) -> Iterator[tuple[Labels, Labels]]:
    """Replicates whose rows are disjoint: 0 and 1, 2 and 3, and so on."""
    return zip(labels[::2], labels[1::2], strict=True)


def agreement(labels: Sequence[Labels]) -> tuple[Float64, Float64]:
    """Adjusted Rand index (Hubert & Arabie 1985) of the two replicates of a pair, for every candidate; (C,) float64.

    Parameters
    ----------
    labels : sequence of (C, n) int16
        Of every replicate.

    Returns
    -------
    mean : (C,) float64
        Over pairs; NaN where a candidate could not be fitted in every replicate, and for a single cluster, which always
        agrees.
    error : (C,) float64
        The mean's standard error over pairs; NaN for one pair.

    Examples
    --------
    One candidate in two pairs. The first two agree, for the numbers of the clusters do not matter:

    >>> labels = [np.array([row], np.int16) for row in ([0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1])]
    >>> [each.round(2).tolist() for each in agreement(labels)]
    [[0.33], [0.67]]
    """
    from sklearn.metrics import adjusted_rand_score  # as in em.py

    found = np.full((len(labels) // 2, len(labels[0])), np.nan)
    for place, of_replicates in enumerate(zip(*labels, strict=True)):
        if all(each.min() >= 0 for each in of_replicates) and any(each.max() > 0 for each in of_replicates):
            found[:, place] = [adjusted_rand_score(a, b) for a, b in pairs(of_replicates)]
    mean, n = found.mean(axis=0), len(found)
    return mean, found.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full_like(mean, np.nan)


def cluster_agreement(chosen: npt.NDArray[np.int32], labels: Sequence[Labels], n_components: int) -> Float64:
    """The stability of each chosen cluster: its best Jaccard index in a replicate, averaged (Hennig 2007).

    A replicate has half of the run's rows, which raises the index, and only half, which lowers it: about as much
    (decision 27), so that this is what an independent run may be expected to have.

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
    found = [_jaccard(chosen, each, n_components).max(axis=1) for each in labels]
    return np.where(np.bincount(chosen, minlength=n_components) > 0, np.mean(found, axis=0), np.nan)


def held_shares(chosen: npt.NDArray[np.int32], labels: Sequence[Labels], n_components: int) -> npt.NDArray[np.float32]:
    """The share of the replicates in which each row is in its cluster: the one with the best Jaccard index.

    Parameters
    ----------
    chosen, labels, n_components
        As ``cluster_agreement``'s.

    Returns
    -------
    (n,) float32

    Examples
    --------
    >>> chosen = np.array([0, 0, 1, 1], np.int32)
    >>> labels = [np.array([1, 1, 0, 0], np.int16), np.array([0, 0, 0, 1], np.int16)]
    >>> held_shares(chosen, labels, n_components=2).tolist()
    [1.0, 1.0, 0.5, 1.0]
    """
    held = [each == _jaccard(chosen, each, n_components).argmax(axis=1)[chosen] for each in labels]
    return np.asarray(np.mean(held, axis=0), np.float32)


def row_stability(stability: Float64, chosen: npt.NDArray[np.int32]) -> tuple[float, int]:
    """Mean over rows of the stability of their cluster, and the number of clusters that are not weak.

    Parameters
    ----------
    stability : (K,) float64
        ``cluster_agreement`` of these labels.
    chosen : (n,) int32

    Examples
    --------
    >>> row_stability(np.array([0.9, 0.4]), np.array([0, 0, 0, 1], np.int32))
    (0.775, 1)
    """
    return float(stability[chosen].mean()), int((stability >= FAIR).sum())


def _jaccard(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer], n: int) -> Float64:
    """Of every cluster of a, n of them, with every one of b."""
    met = np.zeros((n, int(b.max()) + 1))
    np.add.at(met, (a, b), 1.0)
    union = met.sum(axis=1)[:, None] + met.sum(axis=0)[None, :] - met
    return np.asarray(met / np.maximum(union, 1.0))
