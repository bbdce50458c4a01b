"""The peak memory of one worker over a whole job, beside what ``plan`` says, for two numbers of rows.

    python -m benchmarks.memory [--rows 50000 200000] [--features 384] [--json FILE]

The rows are Gaussian balls; the subsamples have the same size for every number of rows, so a peak that grows is a leak.
The peak is the largest resident size that Linux recorded for the worker's process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from rich.console import Console
from rich.table import Table

from distcluster.job import Job
from distcluster.job_file import parse_job
from distcluster.plan import make_plan

SAMPLE_ROWS, MIXTURE_ROWS, BALLS = 12_000, 12_000, 20


def write_balls(path: Path, n_rows: int, n_features: int) -> None:
    """Gaussian balls of unit spread, in chunks, so that this process stays small."""
    random = np.random.default_rng(0)
    centres = random.normal(scale=3.0, size=(BALLS, n_features)).astype(np.float32)
    array = zarr.create_array(
        str(path), name="embeddings", shape=(n_rows, n_features), chunks=(4096, n_features), dtype="f4"
    )
    for start in range(0, n_rows, 4096):
        ball = random.integers(BALLS, size=min(4096, n_rows - start))
        array[start : start + len(ball)] = centres[ball] + random.standard_normal((len(ball), n_features), np.float32)


def job_on(source: Path, output: Path) -> Job:
    """Default settings but a small grid and subsamples of a fixed size."""
    return parse_job(
        {
            "input": {"url": str(source)},
            "output": {"url": str(output)},
            "sample": {"rows": SAMPLE_ROWS, "mixture_rows": MIXTURE_ROWS},
            "mixture": {"n_components": [BALLS]},
            "selection": {"replicates": 0},
        }
    )


def peak_bytes(job: Job, directory: Path) -> int:
    """Run the job on one worker process, and read its peak from Linux."""
    here = ["--scheduler-file", str(directory / "scheduler.json")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0", *here], **quiet
    )
    worker = subprocess.Popen([*dask, "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", *here], **quiet)
    path = directory / "job.toml"
    lines = [f"{table}.{key} = {json.dumps(value)}" for table, keys in job.model_dump(mode="json").items()
             for key, value in keys.items() if value is not None and table not in ("deploy", "report")]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    try:
        found = directory / "scheduler.json"
        while not (found.exists() and found.stat().st_size):
            time.sleep(0.1)
        address = json.loads(found.read_text())["address"]
        command = [sys.executable, "-m", "distcluster", "run", str(path), "--scheduler", address]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        status = Path(f"/proc/{worker.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait()


def main() -> None:
    """Measure, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    for n_rows in arguments.rows:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            write_balls(directory / "input.zarr", n_rows, arguments.features)
            job = job_on(directory / "input.zarr", directory / "output")
            planned = make_plan(job, (n_rows, arguments.features), 4).memory_bytes
            results.append({"rows": n_rows, "planned_bytes": planned, "peak_bytes": peak_bytes(job, directory)})
    table = Table("rows", "plan, MiB", "peak, MiB", box=None)
    for each in results:
        table.add_row(f"{each['rows']:,}", f"{each['planned_bytes'] / 2**20:.0f}", f"{each['peak_bytes'] / 2**20:.0f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
