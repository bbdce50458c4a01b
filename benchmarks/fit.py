"""UMAP's fit by umap-learn and by distcluster, from the same neighbours, in one run: seconds, loss, what is kept.

    python -m benchmarks.fit --data FILE.npy [--labels FILE.npy] [--metric cosine] [--rows 50000] [--seeds 5]
                             [--components 32] [--json FILE]

Whole fits (graph, start, layout), compilation left out, seeded, by turns; CPU seconds are of one thread on each side.
The loss is what the sampled steps go down on (Damrich, Hamprecht 2021), an edge. The adjusted Rand index is that of
full components, fitted from eight k-means starts, with the labels: its mean.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score

from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.fuzzy_graph import fuzzy_graph
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.prepared_rows import distinct_rows, prepare
from distcluster.numerics.stability import cluster_again
from distcluster.numerics.umap_fit import Optimizer, curve_parameters, fit_anchors

K, DIMENSIONS, MIN_DIST, STARTS, PROBES = 15, 5, 0.0, 8, 5_000
FIGURES = ("cpu_seconds", "loss", "neighbours_kept", "trustworthiness", "ari")

Array = npt.NDArray[Any]


@dataclass
class Fit:
    """One fit, and what it is worth."""

    cpu_seconds: float
    loss: float
    neighbours_kept: float
    trustworthiness: float
    ari: float | None


@dataclass
class Result:
    """All fits of both sides."""

    data: str
    rows: int
    features: int
    metric: str
    fits: dict[str, list[Fit]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=environment)


@numba.njit(cache=True)
def attraction(places: Array, starts: Array, tails: Array, weight: Array, a: float, b: float) -> float:
    """The mean over edges, by their weights, of log(1 + a x^b)."""
    total = 0.0
    for i in range(len(places)):
        for edge in range(starts[i], starts[i + 1]):
            square = 0.0
            for c in range(places.shape[1]):
                square += (places[i, c] - places[tails[edge], c]) ** 2
            total += weight[edge] * np.log1p(a * square**b)
    return total / weight.sum()


def loss(places: Array, graph: csr_matrix, a: float, b: float) -> float:
    """The loss an edge; the repulsion from 2,000 rows to 4,000 others."""
    chance = np.random.default_rng(0).permutation(len(places))
    some, others = places[chance[:2000]].astype(np.float64), places[chance[2000:6000]].astype(np.float64)
    degree = np.asarray(graph.sum(axis=1)).ravel()[chance[:2000]]
    push = np.array([-np.log((p + 1e-4) / (1 + p)).mean() for p in (a * squares(each, others) ** b for each in some)])
    pulled = attraction(places.astype(np.float64), graph.indptr, graph.indices, graph.data.astype(np.float64), a, b)
    return float(pulled + 2.5 * (degree * push).sum() / degree.sum())


def squares(place: Array, others: Array) -> Array:
    """Squared distances from one place."""
    return np.square(others - place).sum(axis=1)


def kept(places: Array, index: Array) -> float:
    """The share of a row's neighbours that are among as many nearest in the projection, over 5,000 rows."""
    probes = np.random.default_rng(1).permutation(len(places))[:PROBES]
    points = places.astype(np.float64)
    shares = []
    for row in probes:
        away = squares(points[row], points)
        away[row] = np.inf
        shares.append(len(set(index[row]) & set(np.argpartition(away, K)[:K])) / K)
    return float(np.mean(shares))


def worth(rows: Array, places: Array, index: Array, graph: csr_matrix, truth: Array | None, k: int) -> dict[str, Any]:
    """All figures of a fit but its time."""
    probes = np.random.default_rng(2).permutation(len(rows))[:PROBES]
    found = None
    if truth is not None:
        labels = [
            cluster_again(places, places, [Candidate(k, "full")], tol=1e-3, reg_covar=1e-6, max_iter=100, seed=seed)[0]
            for seed in range(STARTS)
        ]
        found = float(np.mean([adjusted_rand_score(truth, each) for each in labels]))
    return {
        "loss": loss(places, graph, *curve_parameters(MIN_DIST)),
        "neighbours_kept": kept(places, index),
        "trustworthiness": float(trustworthiness(rows[probes], places[probes], n_neighbors=K)),
        "ari": found,
    }


def neighbours(rows: Array, metric: str) -> tuple[Array, Array]:
    """Of each row among the others."""
    return nearest(open_index(*build_index(rows, rows, K, metric), rows), rows, K, metric)


def chosen_rows(data: Path, n: int, metric: str) -> tuple[Array, Array]:
    """Distinct rows of so many, prepared, and where they are in the file."""
    stored = np.load(data, mmap_mode="r")
    chosen = np.random.default_rng(0).permutation(len(stored))[:n]
    rows = prepare(np.ascontiguousarray(stored[chosen], np.float32), metric)
    distinct = distinct_rows(rows)
    return rows[distinct], chosen[distinct]


def measure(arguments: argparse.Namespace) -> Result:
    """Fit by turns."""
    rows, chosen = chosen_rows(arguments.data, arguments.rows, arguments.metric)
    truth = np.load(arguments.labels)[chosen] if arguments.labels else None
    index, distance = neighbours(rows, arguments.metric)
    graph, result = fuzzy_graph(index, distance), Result(arguments.data.parent.name, *rows.shape, arguments.metric)
    options: dict[str, Any] = {"n_components": DIMENSIONS, "metric": arguments.metric, "min_dist": MIN_DIST}
    few = neighbours(rows[:900], arguments.metric)
    for optimizer in get_args(Optimizer):
        fit_anchors(rows[:900], *few, **options, n_epochs=2, seed=0, optimizer=optimizer)  # compiles
    for seed in range(arguments.seeds):
        for optimizer in get_args(Optimizer):
            began = time.process_time()
            places = fit_anchors(rows, index, distance, **options, n_epochs=None, seed=seed, optimizer=optimizer)
            seconds = time.process_time() - began
            values = worth(rows, places, index, graph, truth, arguments.components)
            result.fits.setdefault(optimizer, []).append(Fit(seconds, **values))
    return result


def main() -> None:
    """Measure, print the medians and the spread, and keep everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--metric", default="cosine")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--components", type=int, default=32)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pin_to_one_thread()
    result = measure(arguments)
    for name in FIGURES:
        columns = {side: [getattr(fit, name) for fit in fits] for side, fits in result.fits.items()}
        if None not in columns["batch"]:
            print(
                f"{name:18}",
                *(f"{side} {np.median(v):.4f} ({min(v):.4f} to {max(v):.4f})" for side, v in columns.items()),
            )
    ratio = np.median([b.cpu_seconds / a.cpu_seconds for a, b in zip(*result.fits.values(), strict=True)])
    print(f"{ratio:.1f} times as fast")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2))


if __name__ == "__main__":
    main()
