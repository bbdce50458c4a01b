"""Mixtures with a known number of components, covariance type and Bayes error; data without any structure."""

import numpy as np

from distcluster.numerics.mixture.assignment import responsibilities
from distcluster.numerics.mixture.candidate import Candidate, CovarianceType
from distcluster.numerics.mixture.parameters import Mixture

_HELD_OUT = 20_000  # rows that a Bayes error is measured on


def planted_mixture(k: int, kind: CovarianceType, bayes_error: float, d: int, seed: int) -> Mixture:
    """A random mixture whose best possible classifier errs on the given share of rows.

    Means are normal; they are moved apart until the error is met. Weights lie between 0.5 and 1.5 of 1 / k. Extents
    differ by a factor of 2 or so, between components (spherical) or between axes too (the others).
    """
    random = np.random.default_rng(seed)
    weights = random.uniform(0.5, 1.5, k)
    means = random.normal(size=(k, d))
    covariances = _covariances(k, kind, d, random)
    low, high = 0.0, 200.0
    for _ in range(30):
        apart = (low + high) / 2
        mixture = Mixture(Candidate(k, kind), weights / weights.sum(), means * apart, covariances)
        rows, _ = sample_rows(mixture, _HELD_OUT, seed)
        error = 1.0 - responsibilities(rows, mixture)[0].max(axis=1).mean()
        low, high = (apart, high) if error > bayes_error else (low, apart)
    return mixture


def _covariances(k: int, kind: CovarianceType, d: int, random: np.random.Generator) -> np.ndarray:
    extents = np.exp(random.normal(scale=0.5, size=(k, d)))
    if kind == "spherical":
        return extents[:, 0] ** 2
    if kind == "diag":
        return extents**2
    turned = np.linalg.qr(random.normal(size=(k, d, d)))[0]
    matrices = (turned * extents[:, None, :] ** 2) @ np.swapaxes(turned, 1, 2)
    return matrices[0] if kind == "tied" else matrices


def sample_rows(mixture: Mixture, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, d) float64 of a mixture, and their components."""
    random = np.random.default_rng((seed, n))
    K, d = mixture.means.shape
    component = random.choice(K, n, p=mixture.weights)
    factors = np.linalg.cholesky(mixture.full_covariances())
    noise = random.normal(size=(n, d))
    return mixture.means[component] + np.einsum("nij,nj->ni", factors[component], noise), component


def structureless(what: str, n: int, d: int, seed: int) -> np.ndarray:
    """Rows without clusters: "gaussian", "uniform" in a cube, or "t" with five degrees of freedom."""
    random = np.random.default_rng(seed)
    if what == "uniform":
        return random.uniform(size=(n, d))
    rows = random.normal(size=(n, d)) @ random.normal(size=(d, d))
    return rows / np.sqrt(random.chisquare(5, size=(n, 1)) / 5) if what == "t" else rows
