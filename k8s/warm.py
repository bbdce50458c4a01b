"""Run small jobs, so that numba's cache holds every kernel that a job needs; the image is built with it."""

import tempfile
from pathlib import Path

import numpy as np
import zarr

from distcluster.cli import ProgressReporter, _console
from distcluster.job import parse_job
from distcluster.pipeline import run_job


def main() -> None:
    """One job a metric, on random rows."""
    rows = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    with tempfile.TemporaryDirectory() as directory:
        source = str(Path(directory, "input.zarr"))
        zarr.create_array(source, data=rows, chunks=(1000, 16))
        for metric in ("cosine", "euclidean"):
            tables = {
                "input": {"url": source},
                "output": {"url": str(Path(directory, metric))},
                "projection": {"metric": metric, "n_epochs": 20},
                "mixture": {"n_components": [2, 4, 8, 16]},
                "assign": {"block_rows": 512, "partition_rows": 512},
                "deploy": {"n_workers": 1, "dashboard_address": "127.0.0.1:0"},
            }
            with ProgressReporter(_console()) as reporter:
                run_job(parse_job(tables), reporter)


if __name__ == "__main__":
    main()
