"""The report of many rows: what it costs to make, and its map in Chromium, for a growing number of rows and of points.

    python -m benchmarks.report RUN ITEMS LABELS RESULTS.json [ROWS ...]

Of the rows of a finished run on this machine's disk, of which ITEMS and LABELS are the text files, ROWS are drawn, some
often, each a little off its place, and labelled again; models and curves stay as they are. They are drawn at random:
rows that come round in order would be compressed as no other rows are. Each report is made by the command line in a
process of its own, so that seconds and memory are those of a user: with `report.points` as it is by default, with none,
and with all rows.

The page is opened in headless Chromium, which draws WebGL on the processor where there is no graphics card, and the map
is zoomed in and moved by the arrow keys, once a frame. A frame is the time between two of the browser's calls to draw;
while it moves a part of the points is drawn, and all of them `all_points_ms` after the last move.
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
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from distcluster.environment import environment
from distcluster.stages.flow import row_arrays
from distcluster.stages.labelling import LABEL_ROWS, SUMMARISE_CLUSTERS, label_rows, summarise_clusters
from distcluster.stages.stage import Output
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE, RowArray

ROWS = (250_000, 500_000, 1_000_000)
BLOCK_ROWS = 16_384
PROJECTED = ("projection", "view_2d", "view_3d", "support")
MOVES = 120  # frames in which the map is moved
SHIFT = 0.05  # of the standard deviation of a coordinate
WAIT = 300_000  # milliseconds
MOVE = """async (moves) => {
    const stage = document.getElementById("stage"), frames = [];
    const press = (key) => stage.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    press("+"); press("+");
    for (let i = 0; i < moves; i++) {
        await new Promise((done) => requestAnimationFrame(done));
        frames.push(performance.now());
        press(["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"][Math.floor(i / 4) % 4]);
    }
    return {frames};
}"""
LIST = """() => {
    const started = performance.now();
    document.getElementById("list-in-view").click();
    return performance.now() - started;
}"""
RENDERER = """() => {
    const gl = document.createElement("canvas").getContext("webgl2");
    const named = gl && gl.getExtension("WEBGL_debug_renderer_info");
    return named ? gl.getParameter(named.UNMASKED_RENDERER_WEBGL) : "none";
}"""


def main(run: str, items: str, labels: str, results: str, *rows: str) -> None:
    """Write one record a report."""
    found = []
    for n_rows in [int(each) for each in rows] or ROWS:
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory)
            enlarge(Run(run), target / "run", n_rows)
            texts = [draw_lines(Path(source), target / source.rpartition("/")[2], n_rows) for source in (items, labels)]
            for points in ("0", "auto", str(n_rows)):
                cost = report(target / "run", points, *texts)
                page = target / "run" / "report" / "index.html"
                size = round(page.stat().st_size / 1e6, 2)
                record = {"rows": n_rows, "points": points, **cost, "page_mb": size, **shown(page)}
                print(json.dumps(record))
                found.append(record)
    Path(results).write_text(json.dumps({"reports": found, "environment": environment()}, indent=2) + "\n")


def enlarge(source: Run, target: Path, n_rows: int) -> None:
    """A run of ``n_rows`` rows at ``target``, finished as far as the report can tell."""
    omitted = {*PROJECTED, *(array.path for array in LABEL_ROWS.writes if isinstance(array, RowArray)), "neighbours"}
    root = Path(source.url)
    ignored = {*omitted, "level", "input", "report"}
    shutil.copytree(root, target, ignore=lambda at, names: ignored & set(names) if Path(at) == root else ())
    for stage in ("label_rows", "project_rows", "report"):
        shutil.rmtree(target / "commit" / stage, ignore_errors=True)
    settings = json.loads((target / "zarr.json").read_text())
    partition_rows = BLOCK_ROWS  # no more partitions than have been scanned: those are checked
    while n_rows > partition_rows * len(source.partitioning):
        partition_rows *= 2
    partitioning = {"n_rows": n_rows, "block_rows": BLOCK_ROWS, "partition_rows": partition_rows}
    settings["attributes"]["distcluster"]["partitioning"] = partitioning
    (target / "zarr.json").write_text(json.dumps(settings))
    run = Run(str(target))
    with run.writing(20):
        run.make_arrays(row_arrays(run))
        arrays = {name: source.array(name)[:] for name in PROJECTED}
        of_path = {array.path: array for array in layout.arrays()}
        random = np.random.default_rng(0)
        for index in range(len(run.partitioning)):
            partition = run.partitioning[index]
            rows = {name: values[drawn(len(values), n_rows)[partition.rows]] for name, values in arrays.items()}
            for name in ("projection", "view_2d", "view_3d"):
                shift = SHIFT * arrays[name].std(axis=0) * random.normal(size=rows[name].shape)
                rows[name] = (rows[name] + shift).astype(np.float32)
            facts = {"n_outside_support": 0}
            run.commit("project_rows", str(index), facts, rows={of_path[name]: rows[name] for name in PROJECTED})
            commit(run, LABEL_ROWS.name, str(index), label_rows(run, index))
        commit(run, SUMMARISE_CLUSTERS.name, ONE, summarise_clusters(run))


def commit(run: Run, stage: str, item: str, output: Output[Any]) -> None:
    """Commit what a task gives, as the runner does."""
    run.commit(stage, item, asdict(output.facts), rows=output.rows, arrays=output.arrays)


def shown(page: Path) -> dict[str, Any]:
    """How the page behaves in headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1280, "height": 1200})
        started = time.perf_counter()
        view.goto(page.as_uri())
        loaded = time.perf_counter() - started
        view.locator("#stage").evaluate("(each) => each.scrollIntoView({behavior: 'instant', block: 'center'})")
        view.wait_for_selector("#stage[data-drawn]", timeout=WAIT)
        ready = time.perf_counter() - started
        view.locator("#stage").focus()
        moved = view.evaluate(MOVE, MOVES)
        view.wait_for_selector("#stage[data-complete]", timeout=WAIT)
        frames = np.diff(moved["frames"])
        found = {
            "drawn": int(view.get_attribute("#stage", "data-drawn") or 0),
            "loaded_seconds": round(loaded, 2), "points_seconds": round(ready, 2),
            "frame_ms": {str(q): round(float(np.percentile(frames, q)), 1) for q in (50, 95, 100)},
            "all_points_ms": round(view.evaluate("performance.now()") - moved["frames"][-1]),
            "lasso_ms": round(view.evaluate(LIST)), "renderer": view.evaluate(RENDERER),
        }  # fmt: skip
        browser.close()
    return found


def drawn(n_source: int, n_rows: int) -> np.ndarray:
    """Which row of the source each row is."""
    return np.random.default_rng(1).integers(n_source, size=n_rows)


def draw_lines(source: Path, target: Path, n_rows: int) -> Path:
    """A text file's lines, as the rows."""
    lines = source.read_text().splitlines(keepends=True)
    with target.open("w") as file:
        file.writelines(lines[row] for row in drawn(len(lines), n_rows))
    return target


def report(run: Path, points: str, items: Path, labels: Path) -> dict[str, float]:
    """What ``distcluster report`` takes."""
    command = [sys.executable, "-m", "distcluster", "report", str(run), "--items", str(items), "--labels", str(labels)]
    command += ["--points", points]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
