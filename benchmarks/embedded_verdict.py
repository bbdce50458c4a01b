"""What whole runs say of planted mixtures that a smooth map bends into an embedding space, and of rows without groups.

    python -m benchmarks.embedded_verdict [--seeds 20] [--first-seed 100] [--rows 10000] [--minutes 35] [--json FILE]

The points of ``benchmarks.planted`` in eight dimensions become rows of 64, 128 or 384 features, and a job with its
defaults decides. A second run on other rows of the same source, with the candidate that the first chose, says whether
clusters return: with a Jaccard index of at least 0.5 on rows that neither has. How far the components can be told apart
in the embedding says the error of a vote of the 15 nearest rows. A seed has every number of components with every Bayes
error, under a covariance type that goes round from seed to seed, and three sources without groups.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.planted import planted_mixture, sample_rows, structureless
from benchmarks.rows import random_bend
from benchmarks.trust import RETURNS
from benchmarks.verdict import ERRORS, KS, share
from distcluster import Run, cluster
from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES
from distcluster.numerics.mixture.trust import FAIR, STRONG
from distcluster.numerics.stability import cluster_agreement

STRUCTURELESS = ("bent gaussian", "bent uniform", "isotropic gaussian")
FEATURES = (64, 128, 384)
LATENT, COMMON, NEIGHBOURS = 8, 4_000, 15

Draw = Callable[[int, int], tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]


@dataclass(frozen=True)
class Source:
    """Where rows come from; k = 0 is a source without groups."""

    n_components: int
    kind: str
    bayes_error: float
    n_features: int
    seed: int


@dataclass
class Case:
    """What a run said of its rows; of each cluster its stability, and its best Jaccard index in the other run."""

    source: Source
    seconds: float
    chosen_k: int
    chosen_type: str
    finding: str
    trust: str
    stability: float
    stability_null: float
    adjusted_rand_index: float
    neighbours_err: float
    clusters: list[tuple[float, float]] = field(default_factory=list)

    @property
    def right_k(self) -> bool:
        """Whether k is within 10 %."""
        return abs(self.chosen_k - self.source.n_components) <= 0.1 * self.source.n_components

    @property
    def flagged(self) -> bool:
        """Whether the verdict doubts that there are groups."""
        return self.finding in ("no elbow", "no cluster structure")


def sources(seed: int) -> Iterator[Source]:
    """The fifteen of a seed."""
    n_features = FEATURES[seed % len(FEATURES)]
    for i, (k, error) in enumerate(itertools.product(KS, ERRORS)):
        yield Source(k, COVARIANCE_TYPES[(i + seed) % len(COVARIANCE_TYPES)], error, n_features, seed)
    for kind in STRUCTURELESS:
        yield Source(0, kind, 0.0, n_features, seed)


def drawn_from(source: Source) -> Draw:
    """A function of a number of rows and a seed: rows, and their components."""
    if source.kind == "isotropic gaussian":
        return lambda n, seed: (_normal(n, source.n_features, seed), np.zeros(n, np.int64))
    if source.n_components:
        mixture = planted_mixture(source.n_components, source.kind, source.bayes_error, LATENT, source.seed)  # type: ignore[arg-type]
        points = partial(sample_rows, mixture)
    else:
        points = partial(_without_groups, source.kind.removeprefix("bent "), source.seed)
    extent = points(COMMON, source.seed)[0].std()

    def draw(n: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        bend = random_bend(LATENT, source.n_features, extent, np.random.default_rng((source.seed, source.n_features)))
        latent, component = points(n, seed)
        return bend(latent), component

    return draw


def _normal(n: int, n_features: int, seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng((seed, n)).normal(size=(n, n_features)).astype(np.float32)


def _without_groups(what: str, of: int, n: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Points of one Gaussian, whose axes are a matter of the source, or of a cube."""
    if what == "uniform":
        return structureless(what, n, LATENT, seed), np.zeros(n, np.int64)
    axes = np.random.default_rng(of).normal(size=(LATENT, LATENT))
    return np.random.default_rng((seed, n)).normal(size=(n, LATENT)) @ axes, np.zeros(n, np.int64)


def decide(source: Source, n: int, client: Client, directory: Path) -> Case:
    """A run, and another one on other rows."""
    draw, began = drawn_from(source), time.process_time()
    seeds = itertools.count(1_000 * source.seed)
    rows, truth = draw(n, next(seeds))
    job: dict[str, Any] = {"projection": {"views": []}, "report": {"write": "never"}, "progress": False}
    run = cluster(rows, directory / "run", client=client, sample={"seed": source.seed}, **job)
    seconds = time.process_time() - began
    chosen, table = run.verdict.candidate, run.selection
    row = table[(table.n_components == chosen.n_components) & (table.covariance_type == chosen.covariance_type)].iloc[0]
    case = Case(
        source, round(seconds, 1), chosen.n_components, chosen.covariance_type, run.verdict.finding, run.verdict.trust,
        round(float(row.stability), 3), round(float(row.stability_null), 3),
        round(adjusted_rand_score(truth, run.to_xarray()["label"]), 3), round(neighbours_err(rows, truth), 3),
    )  # fmt: skip
    if chosen.n_components > 1:
        other = cluster(
            draw(n, next(seeds))[0], directory / "other", client=client, sample={"seed": source.seed + 1}, **job,
            mixture={"n_components": [chosen.n_components], "covariance_type": [chosen.covariance_type]},
            selection={"rule": "silhouette", "replicates": 0},  # which one component has not
        )  # fmt: skip
        assert other.verdict.candidate == chosen
        case.clusters = returned(run, other, draw(COMMON, next(seeds))[0])
    return case


def neighbours_err(rows: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """The share of the last rows that the 15 nearest of all others take for another component's, by cosine."""
    voters = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(rows[:-COMMON], truth[:-COMMON])
    return float((voters.predict(rows[-COMMON:]) != truth[-COMMON:]).mean())


def returned(run: Run, other: Run, common: npt.NDArray[np.float32]) -> list[tuple[float, float]]:
    """Of every cluster of a run with common rows: its stability, and its best Jaccard index in the other one."""
    stability = run.clusters.stability.to_numpy()
    labels = [each.model().assign(common).label for each in (run, other)]
    index = cluster_agreement(labels[0], [labels[1].astype(np.int16)], run.model_size)
    return [
        (round(float(a), 3), round(float(b), 3)) for a, b in zip(stability, index, strict=True) if a == a and b == b
    ]


def show(found: Sequence[Case]) -> None:
    """Shares of right verdicts, and of clusters that return by their word."""
    planted = [each for each in found if each.source.n_components]
    for error in ERRORS:
        of = [each for each in planted if each.source.bayes_error == error]
        by_k = [f"{k}: {share([each.right_k for each in of if each.source.n_components == k])}" for k in KS]
        index = f"{np.median([each.adjusted_rand_index for each in of]):.2f}" if of else ""
        print(f"error {error:.1%}: k within 10 % {share([each.right_k for each in of])} ({', '.join(by_k)}); "
              f"type {share([each.chosen_type == each.source.kind for each in of])}; "
              f"no elbow {share([each.flagged for each in of])}; adjusted Rand index {index}")  # fmt: skip
    for kind in STRUCTURELESS:
        of = [each for each in found if each.source.kind == kind]
        words = {word: sum(each.trust == word for each in of) for word in ("strong", "fair", "weak", "none")}
        print(f"{kind}: flagged {share([each.flagged for each in of])}; {words}")
    for name, of in (
        ("planted", planted),
        ("without groups", [each for each in found if not each.source.n_components]),
    ):
        pairs = np.array([pair for each in of for pair in each.clusters]).reshape(-1, 2)
        for word, low, high in (("strong", STRONG, 1.01), ("fair", FAIR, STRONG), ("weak", -1.0, FAIR)):
            here = pairs[(pairs[:, 0] >= low) & (pairs[:, 0] < high), 1]
            print(f"clusters of {name}, {word}: {share(list(here >= RETURNS))} return")


def known(place: Path | None) -> list[Case]:
    """The cases that a file holds."""
    if place is None or not place.exists():
        return []
    cases = json.loads(place.read_text())["cases"]
    return [Case(**(each | {"source": Source(**each["source"])})) for each in cases]


def main() -> None:
    """Run the cases until the time is over, keep each as it is done, report them; go on with what the file holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no case begins later")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pin_to_one_thread()
    began, found = time.monotonic(), known(arguments.json)
    done = {each.source for each in found}
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for source in sources(seed):
                if source in done or time.monotonic() - began > 60 * arguments.minutes:
                    continue
                with tempfile.TemporaryDirectory() as directory:
                    found.append(decide(source, arguments.rows, client, Path(directory)))
                print(found[-1], flush=True)
                if arguments.json:
                    content = {"rows": arguments.rows, "cases": [asdict(each) for each in found]}
                    arguments.json.write_text(json.dumps(content | {"environment": environment()}) + "\n")
    show(found)


if __name__ == "__main__":
    main()
