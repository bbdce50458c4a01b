"""Our UMAP fit with one thread and with two, beside what the machine gives two processes that share nothing.

    python -m benchmarks.fit_threads --data FILE.npy [--metric cosine] [--rows 50000] [--turns 15] [--json FILE]

Wall seconds of whole fits, by turns: one thread; two; one thread in each of two processes at once. Where processors are
shared, two of these do less than twice the work of one, and two threads cannot do more.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.fit import DIMENSIONS, MIN_DIST, Array, chosen_rows, neighbours
from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.umap_fit import fit_anchors


@dataclass
class Result:
    """Seconds by turn, and the medians over turns of how many times the work of one thread is done."""

    data: str
    rows: int
    one_thread: list[float] = field(default_factory=list)
    two_threads: list[float] = field(default_factory=list)
    two_processes: list[float] = field(default_factory=list)
    times_by_threads: float = 0.0
    times_by_processes: float = 0.0
    same_bytes: bool = True
    environment: dict[str, str] = field(default_factory=environment)


def in_two_processes(work: Callable[[], object]) -> None:
    """The same work in both."""
    both = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
        assert each.exitcode == 0


def timed(work: Callable[[], object], seconds: list[float]) -> object:
    """What it gives; its wall seconds are kept."""
    began = time.perf_counter()
    found = work()
    seconds.append(time.perf_counter() - began)
    return found


def measure(arguments: argparse.Namespace) -> Result:
    """Fit by turns."""
    rows, _ = chosen_rows(arguments.data, arguments.rows, arguments.metric)
    index, distance = neighbours(rows, arguments.metric)

    def fit(threads: int = 1) -> Array:
        return fit_anchors(
            rows, index, distance, n_components=DIMENSIONS, metric=arguments.metric, min_dist=MIN_DIST, n_epochs=None,
            seed=0, threads=threads,
        )  # fmt: skip

    fit()  # compiles
    result = Result(arguments.data.parent.name, len(rows))
    for _ in range(arguments.turns):
        one = timed(fit, result.one_thread)
        two = timed(lambda: fit(threads=2), result.two_threads)
        timed(lambda: in_two_processes(fit), result.two_processes)
        result.same_bytes &= np.array_equal(one, two)
    one = np.array(result.one_thread)
    result.times_by_threads = float(np.median(one / result.two_threads))
    result.times_by_processes = float(np.median(2.0 * one / result.two_processes))
    return result


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--metric", default="cosine")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pin_to_one_thread()
    result = measure(arguments)
    print(f"two threads {result.times_by_threads:.2f} times one, two processes {result.times_by_processes:.2f}; "
          f"same bytes: {result.same_bytes}")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
