"""Run small jobs, so that numba's cache holds every kernel that a job needs; the image is built with it."""

import tempfile
from pathlib import Path

import numpy as np
import zarr

from distcluster.api import run_job
from distcluster.cli.progress_bars import ProgressReporter
from distcluster.cli.terminal import open_console
from distcluster.job import ReportTable
from distcluster.job_file import parse_job
from distcluster.report.page import write_report


def main() -> None:
    """One job a metric, on four groups of random rows, and its report."""
    random = np.random.default_rng(0)
    group = random.integers(4, size=3000)
    rows = (random.normal(scale=8.0, size=(4, 16))[group] + random.normal(size=(3000, 16))).astype(np.float32)
    with tempfile.TemporaryDirectory() as directory:
        source, labels = (str(Path(directory, name)) for name in ("input.zarr", "labels.txt"))
        zarr.create_array(source, data=rows, chunks=(1000, 16))
        Path(labels).write_text("".join(f"{each}\n" for each in group))
        for metric in ("cosine", "euclidean"):
            tables = {
                "input": {"url": source},
                "output": {"url": str(Path(directory, metric))},
                "projection": {"metric": metric, "n_epochs": 20},
                "mixture": {"n_components": [2, 4, 8, 16]},
                "assign": {"block_rows": 512, "partition_rows": 512},
                "deploy": {"n_workers": 1, "dashboard_address": "127.0.0.1:0"},
            }
            with ProgressReporter(open_console()) as reporter:
                run = run_job(parse_job(tables), reporter)
            write_report(run, ReportTable(labels=(labels,)))


if __name__ == "__main__":
    main()
