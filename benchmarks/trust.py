"""Whether clusters that are called strong, fair or weak return in an independent run on other rows.

    python -m benchmarks.trust --data FILE.npy [--metric cosine] [--rows 25000] [--mixture-rows 12000] [--trials 2]
                               [--components 6 11 23 45] [--types full tied] [--json FILE]

A trial draws two disjoint sets of rows and runs projection and mixtures on each, with replicates on halves of the
first. Common rows are labelled by both: a cluster of the first returns if its best Jaccard index in the second is 0.5
or more.
"""

import argparse
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.trust import FAIR, STRONG
from distcluster.numerics.prepared_rows import prepare
from distcluster.numerics.sampling import REPLICATE_ROWS, replicate_sizes
from distcluster.numerics.stability import cluster_again, cluster_agreement, half_of, project_through

REPLICATES = 4
RETURNS = 0.5  # of a Jaccard index: two clusters have more in common than not, and no other cluster as much


@dataclass
class Cluster:
    """Its stability by the replicates of its run, and its best Jaccard index in an independent one."""

    trial: int
    candidate: str
    stability: float
    returned: float


def trial(rows: np.ndarray, candidates: list[Candidate], number: int, arguments: Any) -> list[Cluster]:
    """All clusters of one run, under every candidate."""
    S, M = arguments.rows, arguments.mixture_rows
    order = np.random.default_rng(number).permutation(len(rows))
    common, rest = rows[order[:REPLICATE_ROWS]], order[REPLICATE_ROWS:]
    first, second = rest[: S + M], rest[S + M : 2 * (S + M)]

    def labels(sample: np.ndarray, fitted: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
        points = project_through(
            sample, np.concatenate([fitted, others]), n_components=5, n_neighbors=15, metric=arguments.metric,
            min_dist=0.0, n_epochs=None, seed=seed, optimizer="batch",
        )  # fmt: skip
        n = len(fitted)
        return cluster_again(
            points[:n], points[n:], candidates, tol=1e-3, reg_covar=1e-6, max_iter=100, seed=seed
        )  # fmt: skip

    sample, fitted = rows[first[:S]], rows[first[S:]]
    n_judged, _ = replicate_sizes(M)
    own = labels(sample, fitted, np.concatenate([common, fitted[:n_judged]]), 0)
    other = labels(rows[second[:S]], rows[second[S:]], common, 1)
    replicates = [labels(*half_of(sample, fitted, i, number), i + 2) for i in range(REPLICATES)]
    found = []
    for i, candidate in enumerate(candidates):
        chosen, k = own[i].astype(np.int32), candidate.n_components
        stability = cluster_agreement(chosen[len(common) :], [each[i] for each in replicates], k)
        returned = cluster_agreement(chosen[: len(common)], [other[i]], k)
        found += [Cluster(number, str(candidate), *map(float, each)) for each in zip(stability, returned, strict=True)]
    return found


def show(found: list[Cluster]) -> None:
    """A line for every word."""
    figures = np.array([(each.stability, each.returned) for each in found])
    stability, returned = figures[np.isfinite(figures).all(axis=1)].T  # the others have no common row
    for word, low, high in (("strong", STRONG, 1.01), ("fair", FAIR, STRONG), ("weak", -1.0, FAIR)):
        of_word = returned[(stability >= low) & (stability < high)]
        share = f"{(of_word >= RETURNS).mean():.0%} return, mean index {of_word.mean():.2f}" if len(of_word) else "none"
        print(f"{word}: {len(of_word)} clusters, {share}")


def main() -> None:
    """Measure, print, keep every cluster as JSON: its trial, candidate, stability and best index in the other run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--metric", default="cosine")
    parser.add_argument("--rows", type=int, default=25_000, help="the UMAP subsample of each run")
    parser.add_argument("--mixture-rows", type=int, default=12_000)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--components", type=int, nargs="+", default=[6, 11, 23, 45])
    parser.add_argument("--types", nargs="+", default=["full", "tied"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pin_to_one_thread()
    rows = prepare(np.ascontiguousarray(np.load(arguments.data), np.float32), arguments.metric)
    if REPLICATE_ROWS + 2 * (arguments.rows + arguments.mixture_rows) > len(rows):
        parser.error(f"{arguments.data} has {len(rows):,} rows: two disjoint sets and the common rows are too many.")
    candidates = [Candidate(*each) for each in product(arguments.components, arguments.types)]
    found = [each for number in range(arguments.trials) for each in trial(rows, candidates, number, arguments)]
    show(found)
    if arguments.json:
        what = {"data": arguments.data.parent.name, "rows": arguments.rows, "mixture_rows": arguments.mixture_rows}
        clusters = [[each.trial, each.candidate, round(each.stability, 3), round(each.returned, 3)] for each in found]
        content = what | {"clusters": clusters, "environment": environment()}
        arguments.json.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
