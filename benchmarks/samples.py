"""What a larger UMAP subsample brings: two disjoint ones, a fit for each, and the same rows labelled by both.

    python -m benchmarks.samples --data FILE.npy [--labels FILE.npy] [--metric cosine] [--rows 10000 25000 50000]
                                 [--components 10 40] [--pairs 5] [--optimizers batch umap-learn] [--json FILE]

For every size: seconds of both projections together (search, fit and common rows), the adjusted Rand index between
the two labellings of the common rows, that of each with the labels, and the share of common rows that lie beyond the
subsample's support. Mixtures are full, fitted on 20,000 projected rows from four k-means starts; means are shown.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import adjusted_rand_score

from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.prepared_rows import distinct_rows, prepare
from distcluster.numerics.stability import cluster_again, project_through
from distcluster.numerics.support import local_scale, support, support_limit

K, DIMENSIONS, MIN_DIST, STARTS, COMMON, FITTED = 15, 5, 0.0, 4, 10_000, 20_000

Array = npt.NDArray[Any]


@dataclass
class Pair:
    """Two disjoint subsamples of one size under one optimizer; stability and the index with labels by components."""

    rows: int
    optimizer: str
    cpu_seconds: float
    beyond_support: float
    stability: dict[int, float] = field(default_factory=dict)
    ari: dict[int, float] = field(default_factory=dict)


def beyond(sample: Array, rows: Array, metric: str) -> float:
    """The share of rows whose support exceeds what one in a thousand of the sample's own does."""
    sample = sample[distinct_rows(sample)]
    index = open_index(*build_index(sample, rows, K, metric), sample)
    own = nearest(index, sample, K, metric)
    scale = local_scale(own[1])
    return float((support(*nearest(index, rows, K, metric), scale) > support_limit(*own, scale)).mean())


def measure(rows: Array, truth: Array | None, n: int, optimizer: str, number: int, arguments: Any) -> Pair:
    """One pair: the rows are in an order of its own, the common ones first, then both subsamples."""
    order = np.random.default_rng(number).permutation(len(rows))
    common = order[:COMMON]
    halves = order[COMMON : COMMON + n], order[COMMON + n : COMMON + 2 * n]
    began, projected = time.process_time(), []
    for seed, half in enumerate(halves):
        wanted = np.concatenate([common, half[:FITTED]])
        projected.append(
            project_through(
                rows[half], rows[wanted], n_components=DIMENSIONS, n_neighbors=K, metric=arguments.metric,
                min_dist=MIN_DIST, n_epochs=None, seed=seed, optimizer=optimizer,  # type: ignore[arg-type]
            )
        )  # fmt: skip
    seconds = time.process_time() - began
    pair = Pair(n, optimizer, seconds, beyond(rows[halves[0]], rows[common], arguments.metric))
    options: dict[str, Any] = {"tol": 1e-3, "reg_covar": 1e-6, "max_iter": 100}
    for k in arguments.components:
        labels = [
            [
                cluster_again(each[COMMON:], each[:COMMON], [Candidate(k, "full")], **options, seed=start)[0]
                for start in range(STARTS)
            ]
            for each in projected
        ]
        pair.stability[k] = fmean(adjusted_rand_score(a, b) for a, b in product(*labels))
        if truth is not None:
            pair.ari[k] = fmean(adjusted_rand_score(truth[common], each) for half in labels for each in half)
    return pair


def main() -> None:
    """Measure, print means and spreads, keep everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--metric", default="cosine")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 25_000, 50_000])
    parser.add_argument("--components", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--optimizers", nargs="+", default=["batch"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pin_to_one_thread()
    rows = prepare(np.ascontiguousarray(np.load(arguments.data), np.float32), arguments.metric)
    truth = np.load(arguments.labels) if arguments.labels else None
    if COMMON + 2 * max(arguments.rows) > len(rows):
        parser.error(f"--rows: {arguments.data} has {len(rows):,} rows, and {COMMON:,} are common to both subsamples.")
    found = []
    for n, optimizer in product(arguments.rows, arguments.optimizers):
        pairs = [measure(rows, truth, n, optimizer, number, arguments) for number in range(arguments.pairs)]
        found += pairs
        seconds, away = (fmean(getattr(each, name) for each in pairs) for name in ("cpu_seconds", "beyond_support"))
        print(f"{n:7,} rows, {optimizer}: {seconds:.1f} s, {away:.2%} beyond support", flush=True)
        for k, name in product(arguments.components, ("stability", "ari")):
            values = [getattr(each, name)[k] for each in pairs if k in getattr(each, name)]
            if values:
                print(f"    {k} components, {name}: {fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    if arguments.json:
        content = {"data": arguments.data.parent.name, "pairs": [asdict(each) for each in found]}
        arguments.json.write_text(json.dumps(content | {"environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
