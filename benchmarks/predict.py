"""A frozen model in memory: seconds to load it, rows a second in one thread, milliseconds for a single row.

    python -m benchmarks.predict RUN ROWS.npy [--rows 20000] [--repeats 5] [--json FILE]

Medians; kernels are compiled before.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from distcluster import load_model
from distcluster.environment import environment

SINGLE = 200


def seconds(function: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, keep as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, model = np.load(arguments.data, mmap_mode="r")[-arguments.rows :], load_model(arguments.run)
    model.assign(rows[:100])
    repeats = range(arguments.repeats)
    found = {
        "features": model.n_features,
        "clusters": model.n_clusters,
        "load_seconds": median(seconds(lambda: load_model(arguments.run)) for _ in repeats),
        "rows_a_second": median(len(rows) / seconds(lambda: model.assign(rows)) for _ in repeats),
        "single_row_ms": 1e3 * median(seconds(lambda: model.assign(rows[:1])) for _ in range(SINGLE)),
    }
    print(
        f"{found['load_seconds']:.2f} s to load, {found['rows_a_second']:,.0f} rows a second, "
        f"{found['single_row_ms']:.1f} ms for a single row ({model!r})"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found | {"environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
