"""Processor seconds and memory of UMAP's fit by the number of rows, each fit in a process of its own.

    python -m benchmarks.fit_size [--rows 50000 100000 ... 1000000] [--json FILE]

Rows lie on the curved manifold of ``benchmarks.rows``; their neighbours are those in its eight dimensions, exact, found
before the clock starts.
"""

import argparse
import json
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.planted import planted_mixture, sample_rows
from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.umap_fit import fit_anchors

K, DIMENSIONS, FEATURES = 15, 5, 64


@dataclass
class Size:
    """One fit: its time, and the process's largest resident size before and after."""

    rows: int
    cpu_seconds: float
    bytes_before: int
    bytes_after: int


def measure(n: int) -> Size:
    """Fit n rows, after a small fit that compiles."""
    pin_to_one_thread()
    latent, _ = sample_rows(planted_mixture(30, "full", 0.03, 8, seed=0), n, seed=0)
    distance, index = cKDTree(latent).query(latent, K + 1)
    index, distance = index[:, 1:].astype(np.int32), distance[:, 1:].astype(np.float32)
    bend = np.random.default_rng(0).normal(scale=0.5 / latent.std(), size=(8, FEATURES))
    rows = np.sin(latent @ bend).astype(np.float32)
    options = {"n_components": DIMENSIONS, "metric": "euclidean", "min_dist": 0.0, "n_epochs": None, "seed": 0}
    fit_anchors(rows[:900], index[:900] % 900, distance[:900], **options)
    before, began = resident(), time.process_time()
    places = fit_anchors(rows, index, distance, **options)
    seconds = time.process_time() - began
    assert np.isfinite(places).all()
    return Size(n, seconds, before, resident())


def resident() -> int:
    """Peak resident bytes of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000, 200_000, 500_000, 1_000_000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = []
    for n in arguments.rows:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            sizes.append(pool.submit(measure, n).result())
        each = sizes[-1]
        print(f"{n:9,} rows: {each.cpu_seconds:6.1f} s, {1e6 * each.cpu_seconds / n:.0f} us a row; at most "
              f"{each.bytes_after / 2**20:,.0f} MiB, {each.bytes_before / 2**20:,.0f} before", flush=True)  # fmt: skip
    if arguments.json:
        found = {"sizes": [asdict(each) for each in sizes], "environment": environment()}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
