"""distcluster's fit beside other packages' embeddings, from the same neighbours: seconds, and what is kept.

    python -m benchmarks.embeddings --data FILE.npy [--labels FILE.npy] [--metric cosine] [--rows 30000] [--seeds 3]
                                    [--dimensions 5 2] [--components 32] [--json FILE]

Whole fits in one thread (graph, start, layout), compilation and the search for neighbours left out, by turns. Besides
umap-learn it shows what is installed of umappp (in scranpy), openTSNE, PaCMAP and EVoC, each with its defaults but for
the number of neighbours, and names what is not. openTSNE is shown in the plane only: its fast method has one or two
dimensions. UMAP's fits have 15 neighbours of a row (umap-learn counts the row itself), PaCMAP and EVoC the same,
openTSNE the 90 of its perplexity of 30. Figures are those of ``benchmarks.fit``; the loss is UMAP's, others have none.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.fit import MIN_DIST, K, worth
from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.fuzzy_graph import fuzzy_graph
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.prepared_rows import distinct_rows, prepare
from distcluster.numerics.umap_fit import curve_parameters, fit_anchors

WIDE, FEW = 90, 900
FIGURES = ("cpu_seconds", "wall_seconds", "loss", "neighbours_kept", "trustworthiness", "ari")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Known:
    """What every fit begins with: prepared rows (N, D), and the nearest 90 of each, itself left out (N, 90)."""

    rows: Array
    index: Array
    distance: Array
    metric: str


@dataclass
class Embedding:
    """One fit, and what it is worth."""

    side: str
    dimensions: int
    seed: int
    cpu_seconds: float
    wall_seconds: float
    loss: float | None
    neighbours_kept: float
    trustworthiness: float
    ari: float | None


def by_distcluster(known: Known, d: int, seed: int) -> Array:
    """The fit of ``projection.optimizer = "batch"``."""
    return fit_anchors(known.rows, *first(known), **umap_options(known, d, seed), optimizer="batch")


def by_umap_learn(known: Known, d: int, seed: int) -> Array:
    """umap-learn's seeded fit."""
    return fit_anchors(known.rows, *first(known), **umap_options(known, d, seed), optimizer="umap-learn")


def first(known: Known) -> tuple[Array, Array]:
    """The nearest 15."""
    return np.ascontiguousarray(known.index[:, :K]), np.ascontiguousarray(known.distance[:, :K])


def umap_options(known: Known, d: int, seed: int) -> dict[str, Any]:
    """The same on both sides."""
    return {"n_components": d, "metric": known.metric, "min_dist": MIN_DIST, "n_epochs": None, "seed": seed}


def by_umappp(known: Known, d: int, seed: int) -> Array:
    """Umappp, UMAP in C++; it does not count the row among its neighbours, as umap-learn does."""
    from knncolle import FindKnnResults
    from scranpy import run_umap

    a, b = curve_parameters(MIN_DIST)
    index, distance = (each[:, : K - 1] for each in first(known))
    found = FindKnnResults(index.astype(np.uint32), distance.astype(np.float64))
    return np.asarray(run_umap(found, num_dim=d, a=a, b=b, initialize_seed=seed, optimize_seed=seed))


def by_opentsne(known: Known, d: int, seed: int) -> Array:
    """t-SNE from principal components."""
    from openTSNE import TSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.initialization import pca
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    neighbours = PrecomputedNeighbors(known.index.astype(np.int64), known.distance.astype(np.float64))
    affinities = PerplexityBasedNN(knn_index=neighbours, perplexity=30)
    start = pca(known.rows, n_components=d, random_state=seed)
    return np.asarray(TSNE(d, n_jobs=1, random_state=seed).fit(affinities=affinities, initialization=start))


def by_pacmap(known: Known, d: int, seed: int) -> Array:
    """PaCMAP; its own choice of neighbours by scaled distances is left out. Rows have unit length under cosine."""
    from pacmap import PaCMAP

    pairs = np.column_stack([np.repeat(np.arange(len(known.rows)), K), known.index[:, :K].ravel()]).astype(np.int32)
    return np.asarray(PaCMAP(d, n_neighbors=K, pair_neighbors=pairs, random_state=seed).fit_transform(known.rows))


def by_evoc(known: Known, d: int, seed: int) -> Array:
    """The embedding that EVoC clusters, made as in its ``evoc_clusters``; it takes -log2(cos) for a distance."""
    from evoc.graph_construction import neighbor_graph_matrix
    from evoc.label_propagation import label_propagation_init
    from evoc.node_embedding import node_embedding

    chance, itself = np.random.RandomState(seed), np.arange(len(known.rows), dtype=np.int32)[:, None]
    index, distance = first(known)
    if known.metric == "cosine":
        distance = np.maximum(-np.log2(np.maximum(1.0 - distance, 1e-30)), 0.0)
    distance = np.hstack([np.zeros((len(itself), 1)), distance[:, :-1]]).astype(np.float32)
    graph = neighbor_graph_matrix(float(K), np.hstack([itself, index[:, :-1]]), distance, True)
    n_parts = int(np.clip(int(8 * np.sqrt(len(itself))), 256, 16384))
    start = label_propagation_init(
        graph, n_components=d, approx_n_parts=n_parts, random_scale=0.1, scaling=0.5, noise_level=0.5,
        random_state=chance, data=known.rows, n_label_prop_iter=20,
    )  # fmt: skip
    return np.asarray(
        node_embedding(
            graph, n_components=d, n_epochs=50, initial_embedding=start, negative_sample_rate=1.0, noise_level=0.5,
            random_state=chance, reproducible_flag=True, initial_alpha=0.1,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Side:
    """How a package embeds, the module and the distribution that it is found by, whether UMAP's loss is its own."""

    embed: Callable[[Known, int, int], Array]
    module: str
    distribution: str
    of_umap: bool = False
    most_dimensions: int = 100


SIDES = {
    "distcluster": Side(by_distcluster, "distcluster", "distcluster", of_umap=True),
    "umap-learn": Side(by_umap_learn, "umap", "umap-learn", of_umap=True),
    "umappp": Side(by_umappp, "scranpy", "scranpy", of_umap=True),
    "openTSNE": Side(by_opentsne, "openTSNE", "openTSNE", most_dimensions=2),
    "PaCMAP": Side(by_pacmap, "pacmap", "pacmap"),
    "EVoC": Side(by_evoc, "evoc", "evoc"),
}


def neighbours_of(rows: Array, metric: str) -> Known:
    """The rows with their nearest."""
    return Known(rows, *nearest(open_index(*build_index(rows, rows, WIDE, metric), rows), rows, WIDE, metric), metric)


def measure(
    known: Known, truth: Array | None, sides: dict[str, Side], arguments: argparse.Namespace
) -> list[Embedding]:
    """All fits by turns."""
    graph, few = fuzzy_graph(*first(known)), neighbours_of(known.rows[:FEW], known.metric)
    cases = [(d, name, each) for d, (name, each) in product(arguments.dimensions, sides.items())]
    cases = [(d, name, side) for d, name, side in cases if d <= side.most_dimensions]
    for d, _, side in cases:
        side.embed(few, d, 0)  # compiles
    pin_to_one_thread()  # again: some libraries were loaded just now
    found = []
    for seed, (d, name, side) in product(range(arguments.seeds), cases):
        cpu, wall = time.process_time(), time.perf_counter()
        places = np.ascontiguousarray(side.embed(known, d, seed), np.float32)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        values = worth(known.rows, places, known.index[:, :K], graph, truth, arguments.components)
        if not side.of_umap:
            values["loss"] = None
        found.append(Embedding(name, d, seed, cpu, wall, **values))
        print(f"d = {d}, seed {seed}, {name}: {cpu:.1f} s", flush=True)
    return found


def show(found: list[Embedding]) -> None:
    """Medians and ranges."""
    for d, name in dict.fromkeys((each.dimensions, each.side) for each in found):
        print(f"d = {d}, {name}:")
        for figure in FIGURES:
            values = [getattr(each, figure) for each in found if (each.dimensions, each.side) == (d, name)]
            if None not in values:
                print(f"    {figure:16} {median(values):.4f} ({min(values):.4f} to {max(values):.4f})")


def main() -> None:
    """Measure, show, keep everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--metric", default="cosine")
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[5, 2])
    parser.add_argument("--components", type=int, default=32)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pin_to_one_thread()
    sides = {name: side for name, side in SIDES.items() if find_spec(side.module)}
    left_out = [name for name in SIDES if name not in sides]
    if left_out:
        print(f"not installed, left out: {', '.join(left_out)}")
    stored = np.load(arguments.data, mmap_mode="r")
    chosen = np.random.default_rng(0).permutation(len(stored))[: arguments.rows]
    rows = prepare(np.ascontiguousarray(stored[chosen], np.float32), arguments.metric)
    distinct = distinct_rows(rows)
    truth = np.load(arguments.labels)[chosen][distinct] if arguments.labels else None
    known = neighbours_of(rows[distinct], arguments.metric)
    found = measure(known, truth, sides, arguments)
    show(found)
    if arguments.json:
        content = {"data": arguments.data.parent.name, "rows": len(known.rows), "features": known.rows.shape[1],
                   "metric": arguments.metric, "components": arguments.components, "left_out": left_out,
                   "embeddings": [asdict(each) for each in found], "environment": environment(),
                   "versions": {name: version(side.distribution) for name, side in sides.items()}}  # fmt: skip
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
