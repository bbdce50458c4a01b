"""Killed, damaged, interrupted: running the same command again gives the same bytes, and does no work twice."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command, unequal

from benchmarks.servers import dask_cluster
from distcluster.stages.flow import STAGES
from distcluster.storage.run import Run

KILLS = (
    ("scan", 1), ("scan", 16), ("subsample", 1), ("build_index", 1), ("find_neighbours", 1), ("fit_umap", 1),
    ("fit_views", 1), ("project_subsample", 1), ("project_rows", 1), ("start_kmeans", 9), ("fit_candidates", 1),
    ("fit_candidates", 36), ("score_candidates", 1), ("sum_components", 1), ("sum_silhouettes", 5),
    ("select_candidate", 1), ("measure_projection", 1), ("label_rows", 1), ("label_rows", 16),
)  # fmt: skip
"""Kill the client as soon as this many items of a stage are committed: in the middle, and between two stages."""


def committed(command: Command) -> dict[str, str]:
    """The id of every record of a run, by stage/item."""
    root = command.output / "commit"
    paths = [path for path in root.rglob("*.json") if path.name != "zarr.json"]
    names = [path.relative_to(root).with_suffix("") for path in paths]
    records, stages = Run(str(command.output)).records, {stage.name for stage in STAGES}
    found = {
        str(name): records.read(name.parts[0], "/".join(name.parts[1:])) for name in names if name.parts[0] in stages
    }
    return {name: record.id for name, record in found.items() if record}


def kill_at(command: Command, stage: str, items: int) -> bool:
    """Start the command and kill its client at that moment; whether it was still running."""
    process = command.start()
    command.wait_for(process, stage, items)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    wait_until_gone(process.pid)
    return alive


def wait_until_gone(session: int) -> None:
    """Workers must not outlive their client: two runs would write to one output."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if subprocess.run(["pgrep", "--session", str(session)], stdout=subprocess.DEVNULL, check=False).returncode:
            return
        time.sleep(0.05)
    pytest.fail("workers of a killed client are still there after 30 s")


@pytest.mark.timeout(1800)  # two dozen starts of a client and its workers
def test_a_run_killed_at_every_stage_resumes_to_the_same_bytes(
    reference: Run, new_command: Callable[..., Command]
) -> None:
    command = new_command(deploy__n_workers=2)
    killed_in: list[str] = []
    seen: dict[str, str] = {}
    for stage, items in KILLS:
        if command.n_committed(stage) >= items:  # the last kill came too late to stop this one
            continue
        if kill_at(command, stage, items):
            killed_in.append(stage)
        now = committed(command)
        assert {name: now.get(name) for name in seen} == seen, "committed work was done again"
        seen = now
    # Stages overlap, so a kill in one can come too late for the next; most must have been cut, or nothing is shown.
    assert len(set(killed_in)) >= 8, killed_in
    run = command.run_to_the_end()
    final = committed(command)
    assert {name: final.get(name) for name in seen} == seen, "committed work was done again"
    assert unequal(reference, run) == []


@pytest.mark.parametrize(("stage", "items"), [("refine_expect/3", 1), ("refine_maximise", 5)])
def test_a_run_killed_in_the_middle_of_refinement_resumes_to_the_same_bytes(
    stage: str, items: int, refined: Run, long_refinement: Callable[..., Command]
) -> None:
    command = long_refinement()
    assert kill_at(command, stage, items)
    assert unequal(refined, command.run_to_the_end()) == []


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


Damage = tuple[Callable[[Path], None], str, str]
DAMAGES: dict[str, list[Damage]] = {
    "score_candidates": [
        (truncate, "projection/c/3/0", "project_rows/3"),
        (flip_bit, "projection/c/5/0", "project_rows/5"),
        (Path.unlink, "projection/c/7/0", "project_rows/7"),
    ],
    "project_subsample": [
        (flip_bit, "model/anchors/c/0/0", "fit_umap/all"),
        (flip_bit, "model/index/graph/c/0", "build_index/all"),
        (truncate, "commit/find_neighbours/0.json", "find_neighbours/0"),  # others may not be there yet
    ],
}
"""By the stage in which the client is killed: what happens to which object, and what has to be done again."""


@pytest.mark.parametrize("stage", DAMAGES)
def test_damage_in_a_half_done_run_is_found_and_mended(
    reference: Run, new_command: Callable[..., Command], stage: str
) -> None:
    command = new_command(deploy__n_workers=2)
    assert kill_at(command, stage, 1)
    before = committed(command)
    for damage, name, _ in DAMAGES[stage]:
        damage(command.output / name)
    run = command.run_to_the_end()
    after = committed(command)
    assert unequal(reference, run) == []
    changed = {name for name in before if after[name] != before[name]}
    redone = {name for *_, name in DAMAGES[stage]}
    # What was dropped after its last use has to be made again, for that partition alone.
    assert redone <= changed | (set(after) - set(before))
    assert changed <= redone | {f"find_neighbours/{each.partition('/')[2]}" for each in redone}


def test_damage_in_a_finished_run_is_mended(reference: Run, finished: Command) -> None:
    before = committed(finished)
    truncate(finished.output / "label/c/2")
    (finished.output / "projection/c/6/0").unlink()
    assert unequal(reference, finished.run_to_the_end()) == []
    flip_bit(finished.output / "probability/c/9")
    assert "nothing was left to do" in finished.run().stdout  # sizes are right: only --verify reads
    assert unequal(reference, finished.run_to_the_end("--verify")) == []
    after = committed(finished)
    assert {name for name in before if after[name] != before[name]} == {
        "label_rows/2", "project_rows/6", "find_neighbours/6", "label_rows/9"
    }  # fmt: skip


def test_ctrl_c_stops_cleanly_and_says_how_to_resume(reference: Run, new_command: Callable[..., Command]) -> None:
    command = new_command(deploy__n_workers=2)
    process = command.start()
    assert command.wait_for(process, "find_neighbours")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines() == [
        "distcluster: Interrupted. What was committed stays: run the same command again to resume."
    ]
    wait_until_gone(process.pid)
    assert unequal(reference, command.run_to_the_end()) == []


def test_a_killed_worker_changes_nothing(reference: Run, new_command: Callable[..., Command], tmp_path: Path) -> None:
    command = new_command(deploy__n_workers=2)
    with dask_cluster(tmp_path, n_workers=3) as (address, workers):
        process = command.start("--scheduler", address)
        for stage, worker in zip(("find_neighbours", "fit_candidates"), workers, strict=False):
            while command.n_committed(stage) < 2 and process.poll() is None:
                time.sleep(0.002)
            for nanny_child in children(worker.pid):
                os.kill(nanny_child, signal.SIGKILL)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert unequal(reference, Run(str(command.output))) == []


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "--parent", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def test_a_lost_scheduler_is_exit_75_and_the_run_resumes(
    reference: Run, new_command: Callable[..., Command], tmp_path: Path
) -> None:
    command = new_command(deploy__n_workers=2)
    with dask_cluster(tmp_path, n_workers=2) as (address, _):
        process = command.start("--scheduler", address)
        command.wait_for(process, "find_neighbours")
        pid = subprocess.run(
            ["pgrep", "-f", str(tmp_path / "scheduler.json")], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        os.kill(int(pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "run again to resume" in errors
    assert unequal(reference, command.run_to_the_end()) == []
