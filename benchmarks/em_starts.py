"""Mixtures from k-means' labels and from merged small clusters, at the same k: what they are worth on other rows.

    python -m benchmarks.em_starts [--seeds 3] [--first-seed 300] [--json FILE]
    python -m benchmarks.em_starts --data FILE.npy --labels FILE.npy --k 12 32 [--metric cosine] [--json FILE]

Rows are those of ``benchmarks.embedded_verdict`` that can be told apart, or a sample of a file's. UMAP is fitted to
half of them and places the others, as in a run; mixtures are fitted to half of those, at the true k or those asked for.
Of the last quarter are the mean log density and the adjusted Rand index with the truth, each a mean over the four
covariance types.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from benchmarks.embedded_verdict import drawn_from, sources
from benchmarks.fit import chosen_rows
from distcluster import UMAPProjection
from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.mixture.assignment import assign_rows
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, Candidate
from distcluster.numerics.mixture.candidate_fit import fit_candidate
from distcluster.numerics.mixture.start import Starts

Array = npt.NDArray[Any]
MOST_ERROR = 0.05  # of a planted mixture
FIGURES = "seconds", "log_density", "adjusted_rand_index"


STARTS = {"k-means": {"n_init": 5, "are_merged": False}, "merged": {"n_init": 1, "are_merged": True}}


@dataclass
class Pair:
    """Both starts on the same places; processor seconds of the start, means of the rest."""

    data: str
    k: int
    seed: int
    found: dict[str, dict[str, float]] = field(default_factory=dict)


def places(rows: Array, metric: str, seed: int) -> Array:
    """Of every second row, by UMAP fitted to the others."""
    return UMAPProjection(metric=metric, random_state=seed).fit(rows[::2]).transform(rows[1::2])


def planted(arguments: argparse.Namespace) -> Iterator[tuple[str, Array, Array, list[int], int]]:
    """Name, places, truth, ks and seed of every source."""
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for source in sources(seed):
            if source.n_components and source.bayes_error < MOST_ERROR:
                rows, truth = drawn_from(source)(arguments.rows, seed)
                name = f"planted, error {source.bayes_error:.1%}"
                yield name, places(rows, "cosine", seed), truth[1::2], [source.n_components], seed


def real(arguments: argparse.Namespace) -> Iterator[tuple[str, Array, Array, list[int], int]]:
    """The same of a file, a sample for each seed."""
    rows, chosen = chosen_rows(arguments.data, arguments.rows * arguments.seeds, arguments.metric)
    truth = np.load(arguments.labels)[chosen]
    for seed in range(arguments.seeds):
        own = slice(seed * len(rows) // arguments.seeds, (seed + 1) * len(rows) // arguments.seeds)
        yield arguments.data.parent.name, places(rows[own], arguments.metric, seed), truth[own][1::2], arguments.k, seed


def compare(points: Array, truth: Array, k: int, seed: int) -> dict[str, dict[str, float]]:
    """Both starts, all covariance types."""
    fitted, others, found = points[::2], points[1::2], {}
    for name, options in STARTS.items():
        began = time.process_time()
        labels = Starts(fitted, seed=seed, **options).labels(k)
        seconds, values = time.process_time() - began, []
        for kind in COVARIANCE_TYPES:
            fit = fit_candidate(fitted, labels, Candidate(k, kind), tol=1e-3, reg_covar=1e-6, max_iter=100)
            assert fit.mixture is not None, fit.error
            of = assign_rows(others, fit.mixture, top=1)
            values.append((of.log_density.mean(dtype=np.float64), adjusted_rand_score(truth[1::2], of.label)))
        found[name] = dict(zip(FIGURES, (seconds, *np.mean(values, axis=0).tolist()), strict=True))
    return found


def show(pairs: list[Pair]) -> None:
    """Means by data and k; in how many pairs merging has the better value."""
    table = Table("data", "k", "pairs", *(f"{figure}: {name}" for figure in FIGURES for name in STARTS), "better")
    for (data, k), group in itertools.groupby(sorted(pairs, key=lambda each: (each.data, each.k)),
                                              key=lambda each: (each.data, each.k)):  # fmt: skip
        own = list(group)
        of = {(figure, name): [each.found[name][figure] for each in own] for figure in FIGURES for name in STARTS}
        better = [sum(b > a for a, b in zip(of[figure, "k-means"], of[figure, "merged"], strict=True))
                  for figure in FIGURES[1:]]  # fmt: skip
        table.add_row(data, str(k), str(len(own)), *(f"{np.mean(each):.3f}" for each in of.values()), str(better))
    Console(width=200).print(table)


def main() -> None:
    """Compare, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--metric", default="cosine")
    parser.add_argument("--k", type=int, nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pin_to_one_thread()
    pairs = []
    for name, points, truth, ks, seed in (real if arguments.data else planted)(arguments):
        for k in ks:
            pairs.append(Pair(name, k, seed, compare(points, truth, k, seed)))
            print(pairs[-1], flush=True)
    show(pairs)
    if arguments.json:
        content = {"pairs": [asdict(each) for each in pairs], "environment": environment()}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
