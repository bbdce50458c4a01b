"""A whole job beside the notebook way on the same rows, in one run: seconds and memory by stage, agreement with labels.

    python -m benchmarks.end_to_end [--rows 1000000] [--features 384] [--data FILE.npy --labels FILE.npy]
                                    [--seeds 1] [--workers 2] [--k 32 --type full] [--plain] [--ours-only] [--json FILE]

Rows are interpolated between neighbours of real ones, or lie on a curved manifold (``benchmarks.rows``). Ours is the
command with its defaults: replicates, two views and the report, which the notebook way has none of; with ``--plain`` it
runs once more without them. Both have the same subsample sizes and the same grid, one candidate with ``--k`` and
``--type``; of the automatic grid the notebook fits the start.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from sklearn.metrics import adjusted_rand_score

from benchmarks.rows import BLOCK, Blocks, curved, interpolated
from distcluster.environment import environment
from distcluster.job_file import parse_job
from distcluster.numerics.mixture.candidate_grid import grid
from distcluster.numerics.sampling import resolve_sizes
from distcluster.report.timings import stage_times
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.storage.run import Run

_LOOK_SECONDS = 0.2  # between two looks at the memory of what runs


@dataclass
class Side:
    """One side of one seed; peak memory is that of its largest process."""

    seconds: float
    stages: dict[str, float]
    chosen: str
    adjusted_rand_index: float
    peak_bytes: int


@dataclass
class Result:
    """Both sides, a seed each."""

    rows: int
    features: int
    data: str
    workers: int
    job: dict[str, Any]
    ours: list[Side] = field(default_factory=list)
    plain: list[Side] = field(default_factory=list)
    notebook: list[Side] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=environment)


def write_rows(path: Path, blocks: Blocks, shape: tuple[int, int]) -> np.ndarray:
    """Fill a Zarr array, a new one; gives the labels."""
    array = zarr.create_array(str(path), shape=shape, chunks=(BLOCK, shape[1]), dtype="float32", overwrite=True)
    labels, start = [], 0
    for rows, label in blocks:
        array[start : start + len(rows)] = rows
        labels.append(label)
        start += len(rows)
    return np.concatenate(labels)


def ours(tables: dict[str, dict[str, Any]], truth: np.ndarray, directory: Path) -> Side:
    """The command, and what its records say."""
    job = directory / "job.toml"
    job.write_text("\n".join(f"{table}.{key} = {json.dumps(value)}" for table, keys in tables.items()
                             for key, value in keys.items()))  # fmt: skip
    seconds, peak = timed([sys.executable, "-m", "distcluster", "run", str(job)])
    run = Run(tables["output"]["url"])
    stages = {each.name: each.task_seconds for each in stage_times(run)}
    chosen = SELECT_CANDIDATE.facts_of(run).candidate
    return Side(seconds, stages, str(chosen), adjusted_rand_score(truth, run.array("label")[:]), peak)


def notebook(tables: dict[str, dict[str, Any]], truth: np.ndarray, directory: Path) -> Side:
    """The same by umap-learn and scikit-learn."""
    job = parse_job(tables)
    sizes = resolve_sizes(job.sample.rows, job.sample.mixture_rows, len(truth), job.projection.n_neighbors)
    candidates = grid(job.mixture.n_components, job.mixture.covariance_type, sizes.mixture)
    out = directory / "notebook.npz"
    options = {
        "--sample": [sizes.sample], "--mixture": [sizes.mixture], "--seed": [job.sample.seed],
        "--ks": dict.fromkeys(each.n_components for each in candidates), "--types": job.mixture.covariance_type,
    }  # fmt: skip
    script = [sys.executable, "-m", "benchmarks.notebook_way"]
    seconds, peak = timed([*script, str(job.input.url), str(out), *flat(options)])
    found = np.load(out)
    stages = dict(zip(found["stages"].tolist(), found["seconds"].tolist(), strict=True))
    ari = adjusted_rand_score(truth, found["label"])
    return Side(seconds, stages, str(found["chosen"]), ari, peak)


def flat(options: dict[str, Iterable[Any]]) -> list[str]:
    """As a command line."""
    return [str(each) for name, values in options.items() for each in (name, *values)]


def timed(command: list[str]) -> tuple[float, int]:
    """Wall seconds of a command that succeeds, and peak resident bytes of the largest of it and all below it.

    They are looked at while it runs: workers are children of a fork server, for which the command does not wait, so
    that the system counts them to nobody.
    """
    began, peak = time.perf_counter(), 0
    with psutil.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                peak = max(peak, *(peak_bytes(each.pid) for each in (process, *process.children(recursive=True))))
            with suppress(psutil.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
    assert process.returncode == 0, command
    return time.perf_counter() - began, peak


def peak_bytes(pid: int) -> int:
    """The largest resident size that Linux has recorded for a process; 0 where it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def measure(arguments: argparse.Namespace, directory: Path) -> Result:
    """A seed after the other."""
    tables: dict[str, dict[str, Any]] = {"deploy": {"n_workers": arguments.workers}, "selection": {}}
    if arguments.k:
        tables["mixture"] = {"n_components": [arguments.k], "covariance_type": [arguments.type]}
        tables["selection"]["rule"] = "bic"  # which takes that one, and not k = 1
    source = arguments.data.parent.name if arguments.data else "curved"
    result = Result(arguments.rows, arguments.features, source, arguments.workers, tables)
    for seed in range(arguments.seeds):
        place = directory / f"rows-{seed}.zarr"
        if arguments.data:
            blocks = interpolated(arguments.data, arguments.labels, arguments.rows, seed)
        else:
            blocks = curved(arguments.features, arguments.rows, seed)
        truth = write_rows(place, blocks, (arguments.rows, arguments.features))
        own = {**tables, "input": {"url": str(place)}, "output": {"url": str(directory / f"run-{seed}")},
               "sample": {"seed": seed} | ({"rows": arguments.sample} if arguments.sample else {})}  # fmt: skip
        result.ours.append(ours(own, truth, directory))
        show("ours", result.ours[-1])
        if arguments.plain:
            result.plain.append(ours(without_extras(own), truth, directory))
            show("plain", result.plain[-1])
        if not arguments.ours_only:
            result.notebook.append(notebook(own, truth, directory))
            show("notebook", result.notebook[-1])
    return result


def without_extras(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The job, into another run, without what the notebook way has none of."""
    others: dict[str, dict[str, Any]] = {
        "output": {"url": tables["output"]["url"] + "-plain"}, "projection": {"views": []},
        "selection": {"replicates": 0}, "report": {"write": "never"},
    }  # fmt: skip
    return {name: tables.get(name, {}) | others.get(name, {}) for name in tables | others}


def show(name: str, side: Side) -> None:
    """One side, as it is done."""
    print(f"{name}: {side.seconds:.0f} s, {side.chosen}, adjusted Rand index {side.adjusted_rand_index:.3f}, "
          f"largest process {side.peak_bytes / 2**20:,.0f} MiB", flush=True)  # fmt: skip
    print("   ", ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in side.stages.items()), flush=True)


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--k", type=int, default=0)
    parser.add_argument("--type", default="full")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = measure(arguments, Path(directory))
    if result.notebook:
        for name, sides in (("ours", result.ours), ("plain", result.plain), ("notebook", result.notebook)):
            if sides:
                found = sorted(side.adjusted_rand_index for side in sides)
                ratios = [b.seconds / a.seconds for a, b in zip(sides, result.notebook, strict=True)]
                print(f"{name}: adjusted Rand index {np.median(found):.3f} ({found[0]:.3f} to {found[-1]:.3f}), "
                      f"{np.median(ratios):.1f} times as fast as the notebook way")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
