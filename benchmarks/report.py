"""The report of many rows: seconds, peak memory and size, for a growing number of rows.

    python -m benchmarks.report RUN ITEMS LABELS [ROWS ...]

The rows of a finished run on this machine's disk, of which ITEMS and LABELS are the text files, are repeated until
there are ROWS of them, each a little off its place; models and curves stay as they are. Each report is made by the
command line in a process of its own, so that seconds and memory are those of a user.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from distcluster.stages.flow import row_arrays
from distcluster.stages.labelling import SUMMARISE_CLUSTERS
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE

ROWS = (250_000, 500_000, 1_000_000)
BLOCK_ROWS, PARTITION_ROWS = 16_384, 65_536
PROJECTED = ("projection", "view_2d", "view_3d", "support")
ASSIGNED = ("label", "probability", "top_label", "top_probability", "log_density")
SHIFT = 0.05  # of the standard deviation of a coordinate


def main(run: str, items: str, labels: str, *rows: str) -> None:
    """Print one line a number of rows."""
    for n_rows in [int(each) for each in rows] or ROWS:
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory)
            enlarge(Run(run), target / "run", n_rows)
            texts = [
                repeat_lines(Path(source), target / source.rpartition("/")[2], n_rows) for source in (items, labels)
            ]
            seconds, peak = report(target / "run", *texts)
            size = (target / "run" / "report" / "index.html").stat().st_size
            print(f"{n_rows:>10,} rows  {seconds:6.1f} s  {peak / 2**20:7.0f} MiB  {size / 1e6:5.2f} MB")


def enlarge(source: Run, target: Path, n_rows: int) -> None:
    """A run of ``n_rows`` rows at ``target``, finished as far as the report can tell."""
    omitted = {*PROJECTED, *ASSIGNED, "neighbours", "input", "report"}
    root = Path(source.url)
    shutil.copytree(root, target, ignore=lambda at, names: omitted & set(names) if Path(at) == root else ())
    for stage in ("label_rows", "project_rows", "report"):
        shutil.rmtree(target / "commit" / stage, ignore_errors=True)
    settings = json.loads((target / "zarr.json").read_text())
    partitioning = {"n_rows": n_rows, "block_rows": BLOCK_ROWS, "partition_rows": PARTITION_ROWS}
    settings["attributes"]["distcluster"]["partitioning"] = partitioning
    (target / "zarr.json").write_text(json.dumps(settings))
    run = Run(str(target))
    with run.writing(20):
        run.make_arrays(row_arrays(run))
        arrays = {name: source.array(name)[:] for name in (*PROJECTED, *ASSIGNED)}
        random = np.random.default_rng(0)
        size = np.zeros(source.array("cluster/size").shape[0], np.int64)
        for index in range(len(run.partitioning)):
            partition = run.partitioning[index]
            taken = np.arange(partition.start, partition.stop)
            rows = {name: values[taken % len(values)] for name, values in arrays.items()}
            for name in ("projection", "view_2d", "view_3d"):
                shift = SHIFT * arrays[name].std(axis=0) * random.normal(size=rows[name].shape)
                rows[name] = (rows[name] + shift).astype(np.float32)
            size += np.bincount(rows["label"], minlength=len(size))
            of_path = {array.path: array for array in layout.arrays()}
            for stage, names in (("project_rows", PROJECTED), ("label_rows", ASSIGNED)):
                facts = {"n_outside_support": 0} if stage == "project_rows" else {}
                run.commit(stage, str(index), facts, rows={of_path[name]: rows[name] for name in names})
        stage = SUMMARISE_CLUSTERS
        arrays = {array: source.read(array) for array in stage.writes} | {layout.CLUSTER_SIZE: size}
        run.commit(stage.name, ONE, asdict(stage.facts_of(source)), arrays=arrays)


def repeat_lines(source: Path, target: Path, n_rows: int) -> Path:
    """A text file's lines, again and again."""
    lines = source.read_text().splitlines(keepends=True)
    with target.open("w") as file:
        for start in range(0, n_rows, len(lines)):
            file.writelines(lines[: n_rows - start])
    return target


def report(run: Path, items: Path, labels: Path) -> tuple[float, int]:
    """Seconds and peak bytes of ``distcluster report``."""
    command = [sys.executable, "-m", "distcluster", "report", str(run), "--items", str(items), "--labels", str(labels)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
