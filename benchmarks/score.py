"""Score 32 candidates on many rows with 1 and 2 workers: rows a second, and a worker's memory at two sizes.

    python -m benchmarks.score RUN [--rows 1000000] [--json FILE]

RUN is any finished run. Its candidates are scored, on its stored projection repeated as often as needed, by the two
passes of the stages `score` and `silhouette`. Wall time, because the question is what a second worker brings: the
machine should have nothing else to do.
"""

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from distributed import Client, LocalCluster

from benchmarks.mixture import show, stored_projection
from distcluster.environment import pin_to_one_thread
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.parameters import Mixture, NaturalParameters, natural_parameters
from distcluster.numerics.mixture.scores import score_rows
from distcluster.numerics.mixture.silhouettes import silhouette_rows
from distcluster.numerics.partition import tree_sum
from distcluster.storage.run import Run

BLOCK_ROWS = 16_384
PARTITION_ROWS = 2 * BLOCK_ROWS
N_CANDIDATES = 32


@functools.cache
def candidates(url: str) -> tuple[np.ndarray, list[NaturalParameters]]:
    """The largest candidates of a run, and their centre."""
    run = Run(url)
    table = zip(run.array("selection/n_components")[:], run.array("selection/covariance_type")[:], strict=True)
    largest = sorted(table, key=lambda each: (-each[0], str(each[1])))[:N_CANDIDATES]
    names = ("weights", "means", "covariances")
    mixtures = [
        Mixture(Candidate(int(k), kind), *(run.array(f"selection/fit/{kind}-{k}/{name}")[:] for name in names))
        for k, kind in largest
    ]
    centre = mixtures[0].weights @ mixtures[0].means
    return centre, [natural_parameters(each, centre) for each in mixtures]


def blocks(path: str, first: int) -> list[np.ndarray]:
    """A partition's blocks."""
    rows = np.asarray(zarr.open_array(path)[first : first + PARTITION_ROWS])
    return [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]


def first_pass(path: str, first: int, url: str) -> np.ndarray:
    """On a worker: the sums of the clusters of a partition."""
    pin_to_one_thread()
    centre, grid = candidates(url)
    return tree_sum([score_rows(rows, np.ones(len(rows), bool), centre, grid)[1] for rows in blocks(path, first)])


def second_pass(path: str, first: int, url: str, clusters: np.ndarray) -> np.ndarray:
    """On a worker: the sums of the silhouettes of a partition."""
    pin_to_one_thread()
    centre, grid = candidates(url)
    return tree_sum([silhouette_rows(rows, centre, grid, clusters) for rows in blocks(path, first)])


def memory() -> int:
    """Bytes that this process has taken at most."""
    return int(psutil.Process().memory_info().rss)


def measure(path: str, n_rows: int, url: str, n_workers: int) -> dict[str, float]:
    """Seconds of the two passes, and the largest worker's memory after them."""
    starts = range(0, n_rows, PARTITION_ROWS)
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(first_pass, path, 0, url)  # import and compile before the clock starts
        started = time.perf_counter()
        clusters = tree_sum(client.gather(client.map(first_pass, [path] * len(starts), starts, url=url, pure=False)))
        sums = client.map(second_pass, [path] * len(starts), starts, url=url, clusters=clusters, pure=False)
        silhouettes = tree_sum(client.gather(sums))
        seconds = time.perf_counter() - started
        assert np.isfinite(silhouettes).all()
        return {
            "seconds": seconds,
            "rows_per_second": n_rows / seconds,
            "mib": max(client.run(memory).values()) / 2**20,
        }


def main() -> None:
    """Run the measurements and report them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write every figure")
    arguments = parser.parse_args()
    points = stored_projection(arguments.run, arguments.rows)
    url = str(Path(arguments.run).resolve())
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/projection.zarr"
        many = np.resize(points, (arguments.rows, points.shape[1]))
        zarr.create_array(path, data=many, chunks=(BLOCK_ROWS, points.shape[1]))
        found: dict[str, list[dict[str, float]]] = {
            "1 worker, a quarter of the rows": [],
            "1 worker": [],
            "2 workers": [],
        }
        for _ in range(arguments.repeats):
            found["1 worker, a quarter of the rows"].append(measure(path, arguments.rows // 4, url, 1))
            found["1 worker"].append(measure(path, arguments.rows, url, 1))
            found["2 workers"].append(measure(path, arguments.rows, url, 2))
    results = {name: {key: float(np.median([each[key] for each in of])) for key in of[0]} for name, of in found.items()}
    show(results)
    one, two = (results[name]["seconds"] for name in ("1 worker", "2 workers"))
    figures: dict[str, Any] = {
        "rows": arguments.rows, "candidates": N_CANDIDATES, "speed_up": one / two, "median_of": results, "every": found
    }  # fmt: skip
    print(f"2 workers are {one / two:.2f} times as fast as 1")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
