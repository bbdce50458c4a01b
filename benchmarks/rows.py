"""Rows with labels, as many as are asked for: between neighbours of real ones, or on a curved manifold."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.planted import planted_mixture, sample_rows
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.prepared_rows import prepare

Float32 = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Blocks = Iterator[tuple[Float32, Labels]]

BLOCK = 16_384
_NEIGHBOURS = 15
_LATENT, _PLANTED, _BAYES_ERROR, _HIDDEN, _NOISE = 8, 30, 0.03, 256, 0.02


def interpolated(data: Path, labels: Path, n: int, seed: int) -> Blocks:
    """Rows at most half the way from a real one, whose label they have, to one of its 15 neighbours, cosine."""
    real = prepare(np.ascontiguousarray(np.load(data), np.float32), "cosine")
    truth = np.load(labels)
    index, _ = nearest(open_index(*build_index(real, real, _NEIGHBOURS, "cosine"), real), real, _NEIGHBOURS, "cosine")
    chance = np.random.default_rng((seed, n))
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        row = chance.integers(len(real), size=size)
        other = index[row, chance.integers(_NEIGHBOURS, size=size)]
        share = chance.uniform(0.0, 0.5, (size, 1)).astype(np.float32)
        yield real[row] + share * (real[other] - real[row]), truth[row]


def curved(n_features: int, n: int, seed: int) -> Blocks:
    """A mixture of 30 full components in 8 dimensions, 3 % Bayes error, bent into the features by random sines."""
    mixture = planted_mixture(_PLANTED, "full", _BAYES_ERROR, _LATENT, seed)
    chance = np.random.default_rng((seed, n_features))
    bend = random_bend(_LATENT, n_features, sample_rows(mixture, BLOCK, seed)[0].std(), chance)
    for number, start in enumerate(range(0, n, BLOCK)):
        latent, label = sample_rows(mixture, min(BLOCK, n - start), seed * 1_000_003 + number)
        yield bend(latent), label


def random_bend(
    d: int, n_features: int, extent: float, chance: np.random.Generator
) -> Callable[[npt.NDArray[np.float64]], Float32]:
    """A smooth map of (n, d) points with a standard deviation of ``extent`` into (n, n_features), with a little noise.

    Sums of 256 sines of random directions, whose arguments have a standard deviation of half the root of d.
    """
    inner = chance.normal(scale=0.5 / extent, size=(d, _HIDDEN))
    phase, outer = chance.uniform(0.0, 2 * np.pi, _HIDDEN), chance.normal(size=(_HIDDEN, n_features))

    def bend(points: npt.NDArray[np.float64]) -> Float32:
        rows = np.sin(points @ inner + phase) @ (outer / np.sqrt(_HIDDEN))
        rows += chance.normal(scale=_NOISE, size=rows.shape)
        return np.asarray(rows, np.float32)

    return bend
