"""Default jobs of several sizes: what ``plan`` says, what they took, and the memory of the largest process.

    python -m benchmarks.sizes [--jobs 100000x384x1 100000x384x2 100000x384x2x30 ...] [--json FILE]

A job is its rows, features, workers and, where its output is in an object store, the milliseconds that this store takes
to answer. Rows lie on a curved manifold with planted groups (``benchmarks.rows``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.end_to_end import timed, write_rows
from benchmarks.object_store import asked, object_store
from benchmarks.rows import curved
from distcluster.environment import environment
from distcluster.report.timings import stage_times
from distcluster.stages.flow import STAGES
from distcluster.storage.run import Run

JOBS = [
    "100000x384x1", "100000x384x2", "100000x384x2x30", "100000x768x2", "100000x1536x2", "1000000x384x1",
    "1000000x384x2", "1000000x384x2x30", "3000000x384x2",
]  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """One job; seconds and bytes, those of partitions by all workers together."""

    rows: int
    features: int
    workers: int
    latency: float | None
    planned_seconds: float
    seconds: float
    planned_bytes: int
    peak_bytes: int
    partition_seconds: dict[str, float]


@dataclass
class Result:
    """All jobs."""

    jobs: list[Taken] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=environment)


def take(rows: Path, n_workers: int, latency: float | None, shape: tuple[int, int], directory: Path) -> Taken:
    """Plan a job, run it, and read its records."""
    with ExitStack() as stack:
        output = str(directory / "run")
        if latency is not None:
            store = stack.enter_context(object_store(directory))
            stack.enter_context(patch.dict(os.environ, store))
            asked(store, latency=latency)
            output = "s3://bucket/run"
        job = directory / "job.toml"
        job.write_text(f"input.url = {json.dumps(str(rows))}\noutput.url = {json.dumps(output)}\n"
                       f"deploy.n_workers = {n_workers}\n")  # fmt: skip
        command = [sys.executable, "-m", "distcluster"]
        plan = json.loads(subprocess.check_output([*command, "plan", str(job), "--json"]))
        seconds, peak = timed([*command, "run", str(job)])
        by_rows = {stage.shown_as for stage in STAGES if stage.unit == "rows"}
        taken = {each.name: each.task_seconds for each in stage_times(Run(output)) if each.name in by_rows}
    return Taken(*shape, n_workers, latency, plan["seconds"], seconds, plan["memory_bytes"], peak, taken)


def show(result: Result) -> None:
    """A line a job."""
    columns = "rows", "features", "workers", "store", "plan, s", "took, s", "plan, MiB", "peak, MiB", "partitions, s"
    table = Table(*columns, box=None)
    for each in result.jobs:
        store = "files" if each.latency is None else f"{1000 * each.latency:.0f} ms"
        table.add_row(
            f"{each.rows:,}", f"{each.features:,}", str(each.workers), store, f"{each.planned_seconds:.0f}",
            f"{each.seconds:.0f}", f"{each.planned_bytes / 2**20:,.0f}", f"{each.peak_bytes / 2**20:,.0f}",
            f"{sum(each.partition_seconds.values()):.1f}",
        )  # fmt: skip
    Console().print(table)


def parsed(job: str) -> tuple[tuple[int, int], int, float | None]:
    """Shape, workers and the store's seconds."""
    rows, features, workers, *latency = (int(each) for each in job.split("x"))
    return (rows, features), workers, latency[0] / 1000 if latency else None


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", default=JOBS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result, written = Result(), None
    with tempfile.TemporaryDirectory() as name:
        rows = Path(name) / "rows.zarr"
        for shape, n_workers, latency in map(parsed, arguments.jobs):
            if shape != written:
                write_rows(rows, curved(shape[1], shape[0], seed=0), shape)
                written = shape
            with tempfile.TemporaryDirectory() as directory:
                result.jobs.append(take(rows, n_workers, latency, shape, Path(directory)))
            print(result.jobs[-1], flush=True)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
