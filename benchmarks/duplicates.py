"""Near duplicates: all pairs, beside faiss's exact range search; what other ways miss; a whole command.

    python -m benchmarks.duplicates --data FILE.npy --labels FILE.npy [--pairs 30000] [--rows 1000000]
                                    [--distance 0.01 0.05] [--json FILE]

Pairs: the first rows of the data, and near duplicates of every thirtieth, one thread on each side, CPU seconds.
"cells" compares rows of one k-means cell only, as SemDeDup does, with a cell for each thousand rows and for each
hundred; "graph" takes the 16 nearest of a faiss HNSW graph; "hashes" are 16 tables of 16 random hyperplanes. Their
recall is over all pairs within the distance, which the flat search gives.

Command: `distcluster duplicates` on a run over rows between neighbours of real ones, of which a thousand are copies of
others, scaled and with noise; wall and processor seconds with start and end, seconds of
tasks by stage, the largest process.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import psutil
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from benchmarks.end_to_end import write_rows
from benchmarks.rows import interpolated
from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.near_pairs import code_rows, fit_sketch, join_near
from distcluster.numerics.prepared_rows import normalise
from distcluster.report.near_duplicates import duplicates
from distcluster.stages.flow import DEDUPLICATES
from distcluster.storage.run import Run

Float32 = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]

PLANTED, WARM_ROWS, NEAREST, TABLES, BITS = 1_000, 2_000, 16, 16, 16


@dataclass
class Search:
    """All pairs among some rows, at one distance; recalls and seconds by way."""

    distance: float
    rows: int
    pairs: int
    axes: int
    seconds: float
    flat_seconds: float
    same_groups: bool
    other_seconds: dict[str, float] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)


@dataclass
class Command:
    """One search by the command."""

    distance: float
    rows: int
    seconds: float
    cpu_seconds: float
    stages: dict[str, float]
    groups: int
    grouped: int
    planted_found: int
    peak_bytes: int


@dataclass
class Result:
    """Everything."""

    features: int
    searches: list[Search] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=environment)


def copies_of(rows: Float32, distance: float, seed: int) -> Float32:
    """Scaled copies of rows, each at most so far away from its own."""
    chance = np.random.default_rng(seed)
    noise = chance.normal(size=rows.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    noise *= np.linalg.norm(rows, axis=1, keepdims=True) * np.sqrt(2 * distance)
    near = rows + noise * chance.uniform(0.2, 0.95, (len(rows), 1))
    return (near * chance.uniform(0.5, 2.0, (len(rows), 1))).astype(np.float32)


def cpu_seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the processor time of this process."""
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def groups_of(n: int, pairs: Pairs) -> npt.NDArray[np.int32]:
    """The group of every row."""
    matrix = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (n, n))
    return np.asarray(connected_components(matrix, directed=False)[1])


def search(rows: Float32, distance: float) -> Search:
    """Ours beside the others."""

    def ours() -> tuple[Pairs, int]:
        sketch = fit_sketch(rows[np.random.default_rng(0).permutation(len(rows))], distance)
        coded = code_rows(np.arange(len(rows)), rows, sketch)
        return join_near(coded, coded, sketch, distance), sketch.axes.shape[1]

    (joined, axes), seconds = cpu_seconds(ours)
    unit = normalise(rows)
    flat, flat_seconds = cpu_seconds(lambda: by_flat_search(unit, distance))
    a, b = groups_of(len(rows), joined), groups_of(len(rows), flat)
    same = len(np.unique(np.stack([a, b]), axis=1).T) == a.max() + 1 == b.max() + 1
    result = Search(distance, len(rows), len(flat), axes, seconds, flat_seconds, bool(same))
    for name, way in (
        ("cells of 1,000 rows", lambda: by_cells(unit, 1_000)(flat)),
        ("cells of 100 rows", lambda: by_cells(unit, 100)(flat)),
        ("graph", lambda: by_graph(unit)(flat)),
        ("hashes", lambda: by_hashes(unit)(flat)),
    ):
        found, result.other_seconds[name] = cpu_seconds(way)
        result.recall[name] = float(found.mean()) if len(found) else float("nan")
    return result


def by_flat_search(unit: Float32, distance: float) -> Pairs:
    """All pairs, each once."""
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    stops, _, found = index.range_search(unit, float(np.nextafter(np.float32(1.0 - distance), np.float32(0.0))))
    first = np.repeat(np.arange(len(unit)), np.diff(stops.astype(np.int64)))
    return np.stack([first, found], axis=1)[first < found]


Finds = Callable[[Pairs], npt.NDArray[np.bool_]]


def by_cells(unit: Float32, rows: int) -> Finds:
    """Pairs of one k-means cell."""
    means = faiss.Kmeans(unit.shape[1], len(unit) // rows, niter=20, seed=0, spherical=True)
    means.train(unit)
    cell = means.index.search(unit, 1)[1][:, 0]
    return lambda pairs: cell[pairs[:, 0]] == cell[pairs[:, 1]]


def by_graph(unit: Float32) -> Finds:
    """Pairs of which one is among the other's nearest that the graph finds."""
    index = faiss.IndexHNSWFlat(unit.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.add(unit)
    nearest = index.search(unit, NEAREST + 1)[1]
    return lambda pairs: np.array([b in nearest[a] or a in nearest[b] for a, b in pairs], bool)


def by_hashes(unit: Float32) -> Finds:
    """Pairs that lie on the same side of all hyperplanes of a table."""
    planes = np.random.default_rng(0).normal(size=(unit.shape[1], TABLES * BITS)).astype(np.float32)
    bits = np.packbits((unit @ planes > 0).reshape(-1, TABLES, BITS), axis=2)
    return lambda pairs: (bits[pairs[:, 0]] == bits[pairs[:, 1]]).all(axis=2).any(axis=1)


def run_commands(arguments: argparse.Namespace, directory: Path) -> list[Command]:
    """A run, and the command on it at each distance."""
    source, out = directory / "rows.zarr", directory / "run"
    place = np.random.default_rng(1).permutation(arguments.rows)[: 2 * PLANTED].reshape(2, -1)
    blocks = list(interpolated(arguments.data, arguments.labels, arguments.rows, 0))
    rows = np.concatenate([block for block, _ in blocks])
    rows[place[1]] = copies_of(rows[place[0]], min(arguments.distance), 2)
    label = np.zeros(arguments.rows)
    write_rows(source, iter([(rows, label)]), rows.shape)
    job = directory / "job.toml"
    job.write_text(
        f'input.url = "{source}"\noutput.url = "{out}"\nprojection.views = []\nselection.replicates = 0\n'
        'mixture.n_components = [32]\nmixture.covariance_type = ["diag"]\nreport.write = "never"\n'
    )
    subprocess.run([sys.executable, "-m", "distcluster", "run", str(job), "-q"], check=True, stdout=subprocess.DEVNULL)
    return [by_command(out, distance, *place) for distance in arguments.distance]


def by_command(out: Path, distance: float, originals: Pairs, copies: Pairs) -> Command:
    """One command, and what its records say."""
    command = [sys.executable, "-m", "distcluster", "duplicates", str(out), "--distance", str(distance), "-q"]
    seconds, cpu, peak = watched(command)
    run = Run(str(out))
    of_stage = {stage.name: run.records.of_stage(stage.name) for stage in DEDUPLICATES}
    stages = {name: sum(each.seconds for each in records.values()) for name, records in of_stage.items()}
    table = duplicates(run, distance)
    first = dict(zip(table.row, table.representative, strict=True))
    both = [(first.get(a), first.get(b)) for a, b in zip(originals.tolist(), copies.tolist(), strict=True)]
    found = sum(a is not None and a == b for a, b in both)
    n = run.partitioning.n_rows
    return Command(distance, n, seconds, cpu, stages, table.group.nunique(), len(table), found, peak)


def watched(command: list[str]) -> tuple[float, float, int]:
    """Wall seconds of a command; processor seconds and peak bytes of its processes, looked at twice a second."""
    began, cpu, peak = time.perf_counter(), dict[int, float](), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(each.pid) == process.pid:
                    cpu[each.pid] = sum(each.cpu_times()[:2])
                    peak = max(peak, each.memory_info().rss)
        time.sleep(0.5)
    assert process.returncode == 0
    return time.perf_counter() - began, sum(cpu.values()), peak


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--distance", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = np.load(arguments.data, mmap_mode="r")
    result = Result(data.shape[1])
    if arguments.rows:  # before threads are pinned, for its own processes have all cores
        with tempfile.TemporaryDirectory() as directory:
            result.commands = run_commands(arguments, Path(directory))
        for command in result.commands:
            print(command, flush=True)
    pin_to_one_thread()
    faiss.omp_set_num_threads(1)
    for distance in arguments.distance if arguments.pairs else ():
        rows = np.ascontiguousarray(data[: arguments.pairs], np.float32)
        rows = np.concatenate([rows, copies_of(rows[::30], distance, 0)])
        search(rows[:WARM_ROWS], distance)
        result.searches.append(search(rows, distance))
        print(result.searches[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
