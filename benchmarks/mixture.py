"""The same grid from the same starts by scikit-learn and by distcluster, one thread each, in one run.

    python -m benchmarks.mixture RUN [--rows 60000] [--million] [--json FILE]

RUN is any finished run: its stored projection is the data. Times are CPU seconds of the one thread that works, so that
a shared machine does not decide them. k-means, which both sides start from, is in neither time.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, LocalCluster
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from distcluster.environment import environment, pin_to_one_thread
from distcluster.job import MixtureTable
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, Candidate, CovarianceType
from distcluster.numerics.mixture.em import centre_rows, from_labels, maximise
from distcluster.numerics.mixture.kernels import exponentials
from distcluster.numerics.mixture.parameters import Mixture, to_sklearn
from distcluster.numerics.mixture.start import Starts
from distcluster.numerics.mixture.tiles import TILE_ROWS, n_features
from distcluster.storage.run import Run

KS = (5, 10, 20, 30, 40, 50, 60, 80)
TABLE = MixtureTable()
ITERATIONS = 20  # of each candidate on 1,000,000 rows


@dataclass(frozen=True)
class Comparison:
    """One candidate by both sides; times in CPU seconds, likelihoods in nats per row."""

    n_components: int
    covariance_type: CovarianceType
    n_iter: int
    sklearn_n_iter: int
    seconds: float
    sklearn_seconds: float
    floor_seconds: float
    loglik_gap_per_row: float


def stored_projection(url: str, n_rows: int) -> np.ndarray:
    """The first valid rows of a run's projection, (n, d) float32."""
    rows = np.asarray(Run(url).array("projection")[:])
    rows = rows[~np.isnan(rows).any(axis=1)]
    if len(rows) < n_rows:
        print(f"{url} holds only {len(rows):,} rows")
    return rows[:n_rows]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and the result."""
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def fit_ours(points: np.ndarray, labels: np.ndarray, candidate: Candidate) -> tuple[float, int, Mixture]:
    """Seconds, iterations and the mixture; preparing the rows and the start from labels are in the time."""

    def fit() -> tuple[int, Mixture]:
        rows = centre_rows(points)
        start = from_labels(rows, labels, candidate, TABLE.reg_covar)
        found = maximise(rows, start, tol=TABLE.tol, reg_covar=TABLE.reg_covar, max_iter=TABLE.max_iter)
        return len(found.log_likelihoods), found.mixture.moved(rows.centre)

    seconds, (n_iter, mixture) = timed(fit)
    return seconds, n_iter, mixture


def sklearn_model(candidate: Candidate, start: Mixture, max_iter: int) -> GaussianMixture:
    """scikit-learn's model, to start from the given parameters."""
    is_matrix = candidate.covariance_type in ("full", "tied")
    return GaussianMixture(
        candidate.n_components,
        covariance_type=candidate.covariance_type,
        tol=TABLE.tol,
        reg_covar=TABLE.reg_covar,
        max_iter=max_iter,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=np.linalg.inv(start.covariances) if is_matrix else 1.0 / start.covariances,
    )


def floor_seconds(candidate: Candidate, n_rows: int, d: int, n_iter: int) -> float:
    """The two matrix products and the exponentials alone: the least of three passes over the rows, times iterations."""
    K, F = candidate.n_components, n_features(candidate.covariance_type, d)
    random = np.random.default_rng(0)
    theta, phi = random.normal(size=(K, F)), random.normal(size=(F, TILE_ROWS))
    density, sums = np.empty((K, TILE_ROWS)), np.empty((K, F))
    highest, total = np.full(TILE_ROWS, 100.0), np.empty(TILE_ROWS)

    def one_pass() -> None:
        for _ in range(-(-n_rows // TILE_ROWS)):
            np.matmul(theta, phi, out=density)
            exponentials(density, highest, total)
            np.matmul(density, phi.T, out=sums)

    return n_iter * min(timed(one_pass)[0] for _ in range(3))


def exponential_costs() -> dict[str, float]:
    """Nanoseconds a value: exponentials with their sums in one loop of ours, and np.exp alone."""
    values = -np.abs(np.random.default_rng(0).normal(size=(64, TILE_ROWS))) * 10.0
    result, total = values.copy(), np.empty(TILE_ROWS)
    highest = np.ones(TILE_ROWS)  # what comes out of one call goes into the next, and is at most 1

    def least(function: Callable[[], Any]) -> float:
        return min(timed(lambda: [function() for _ in range(20)])[0] for _ in range(20)) / 20 / values.size * 1e9

    return {
        "ours_ns": least(lambda: exponentials(result, highest, total)),
        "numpy_ns": least(lambda: np.exp(values, out=result)),
    }


def compare(points: np.ndarray, labels: np.ndarray, candidate: Candidate) -> Comparison:
    """Fit one candidate by both sides from one start."""
    x = points.astype(np.float64)
    rows = centre_rows(points)
    start = from_labels(rows, labels, candidate, TABLE.reg_covar).moved(rows.centre)
    seconds, n_iter, ours = fit_ours(points, labels, candidate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        sklearn_seconds, theirs = timed(lambda: sklearn_model(candidate, start, TABLE.max_iter).fit(x))
    return Comparison(
        candidate.n_components,
        candidate.covariance_type,
        n_iter,
        int(theirs.n_iter_),
        seconds,
        sklearn_seconds,
        floor_seconds(candidate, len(points), points.shape[1], n_iter),
        float(to_sklearn(ours).score(x) - theirs.score(x)),
    )


def summary(found: list[Comparison], n_rows: int) -> dict[str, float]:
    """Totals of some comparisons."""
    seconds, theirs, floor = (
        sum(getattr(each, name) for each in found) for name in ("seconds", "sklearn_seconds", "floor_seconds")
    )
    work = n_rows * sum(each.n_components * each.n_iter for each in found)
    their_work = n_rows * sum(each.n_components * each.sklearn_n_iter for each in found)
    return {
        "seconds": seconds,
        "sklearn_seconds": theirs,
        "ratio": theirs / seconds,
        "ns_per_row_component": seconds / work * 1e9,
        "sklearn_ns_per_row_component": theirs / their_work * 1e9,
        "floor_seconds": floor,
        "distance_from_floor": seconds / floor,
        "worst_loglik_gap_per_row": min(each.loglik_gap_per_row for each in found),
    }


def fixed_iterations(points: np.ndarray, labels: np.ndarray, candidate: Candidate) -> float:
    """On a worker: wall seconds of some iterations of one candidate."""
    pin_to_one_thread()
    started = time.perf_counter()
    rows = centre_rows(points)
    start = from_labels(rows, labels, candidate, TABLE.reg_covar)
    maximise(rows, start, tol=0.0, reg_covar=TABLE.reg_covar, max_iter=ITERATIONS)
    return time.perf_counter() - started


def million(points: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Twenty iterations of eight candidates on 1,000,000 rows, by 1 and by 2 workers: wall seconds, rates and speed-up.

    The rows are the given ones again and again, moved by a thousandth of their spread.
    """
    random = np.random.default_rng(seed)
    many = points[random.integers(len(points), size=1_000_000)]
    many = many + random.normal(size=many.shape).astype(np.float32) * many.std(axis=0) / 1000
    grid = [Candidate(k, kind) for kind in COVARIANCE_TYPES[::-1] for k in (40, 20)]
    labels = {k: random.integers(k, size=len(many)).astype(np.int32) for k in (20, 40)}
    result: dict[str, float] = {}
    for n_workers in (1, 2):
        with (
            LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            data = client.scatter(many, broadcast=True)
            starts = {k: client.scatter(each, broadcast=True) for k, each in labels.items()}
            client.gather([client.submit(fixed_iterations, data, starts[20], grid[-1], pure=False)] * n_workers)
            started = time.perf_counter()
            client.gather(
                [client.submit(fixed_iterations, data, starts[each.n_components], each, pure=False) for each in grid]
            )
            result[f"seconds_{n_workers}_workers"] = time.perf_counter() - started
    work = len(many) * ITERATIONS * sum(each.n_components for each in grid)
    result["ns_per_row_component_1_worker"] = result["seconds_1_workers"] / work * 1e9
    result["speed_up"] = result["seconds_1_workers"] / result["seconds_2_workers"]
    return result


def show(results: dict[str, dict[str, float]]) -> None:
    """Print one row a covariance type, and the total."""
    columns = list(next(iter(results.values())))
    table = Table("", *columns)
    for name, values in results.items():
        table.add_row(name, *(f"{values[column]:.4g}" for column in columns))
    Console(width=200).print(table)


def main() -> None:
    """Run the comparison and report it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run, whose projection is the data")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--ks", type=int, nargs="+", default=KS)
    parser.add_argument("--million", action="store_true", help="also 1,000,000 rows with 1 and 2 workers")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    arguments = parser.parse_args()
    pin_to_one_thread()
    points = stored_projection(arguments.run, arguments.rows)
    for kind in COVARIANCE_TYPES:  # compile before the clock starts
        fit_ours(points[:TILE_ROWS], np.arange(TILE_ROWS, dtype=np.int32) % 2, Candidate(2, kind))
    found = []
    for k in arguments.ks:
        labels = Starts(points, 1, 0).labels(k)
        for kind in COVARIANCE_TYPES:
            found.append(compare(points, labels, Candidate(k, kind)))
            last = found[-1]
            print(
                f"{kind}-{k}: {last.seconds:.2f} s against {last.sklearn_seconds:.2f} s, "
                f"{last.n_iter} and {last.sklearn_n_iter} iterations, gap {last.loglik_gap_per_row:.1e} nats",
                flush=True,
            )
    by_type = {
        kind: summary([each for each in found if each.covariance_type == kind], len(points))
        for kind in COVARIANCE_TYPES
    }
    results = by_type | {"all": summary(found, len(points))}
    show(results)
    figures: dict[str, Any] = {
        "rows": len(points), "dimensions": points.shape[1], **results["all"], "by_covariance_type": by_type,
        "candidates": [asdict(each) for each in found], "environment": environment(),
    }  # fmt: skip
    figures["exponentials"] = exponential_costs()
    show({"exponentials": figures["exponentials"]})
    if arguments.million:
        figures["million"] = million(points)
        show({"1,000,000 rows": figures["million"]})
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
