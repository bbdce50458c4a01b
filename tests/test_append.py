"""Rows at the end of an input that has grown: predict's bytes, old rows untouched, whatever happens on the way."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, planted_rows, unequal, write_input
from test_resume import flip_bit

from distcluster import load_model
from distcluster.errors import FAILED, WRONG
from distcluster.stages.growing import grow
from distcluster.stages.labelling import SUMMARISE_CLUSTERS
from distcluster.stages.subsampling import SCAN
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run

ROWS = ("label", "probability", "top_label", "top_probability", "log_density", "support", "projection", "view_2d")
PER_PARTITION = ("scan", "find_neighbours", "project_rows", "label_rows")


def distcluster(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distcluster", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def all_rows(reference: Run) -> np.ndarray:
    """The run's rows and new ones."""
    old = open_input(reference.job.input.url, "embeddings")[:]
    return np.concatenate([old, planted_rows(5000, 8, seed=0)[0] + np.float32(0.01)])


@pytest.fixture(scope="module")
def predicted(reference: Run, all_rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All rows, labelled by the run's model."""
    directory = tmp_path_factory.mktemp("predicted")
    source = write_input(directory / "all.zarr", all_rows)
    done = distcluster("predict", reference.url, str(source), str(directory / "out"))
    assert done.returncode == 0, done.stderr
    return Run(str(directory / "out"))


def test_a_job_file_that_names_a_model_predicts(reference: Run, predicted: Run, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    keys = {"input.url": predicted.input_url, "output.url": predicted.url, "predict.model": reference.url}
    job.write_text("\n".join(f"{key} = {json.dumps(str(value))}" for key, value in keys.items()))
    again = distcluster("run", str(job))
    assert "nothing was left to do" in again.stdout, "it is the same prediction"
    assert "Drift: " in again.stdout
    assert f"{predicted.partitioning.n_rows:,} x 16 float32" in distcluster("plan", str(job)).stdout
    assert "mixture cannot be given" in distcluster("run", str(job), "--set", "mixture.n_init=2").stderr


@pytest.fixture
def grown(finished: Command, all_rows: np.ndarray, tmp_path: Path) -> Command:
    """A finished run's command, whose input has grown since."""
    return replace(finished, source=write_input(tmp_path / "grown.zarr", all_rows))


def is_as_predicted(run: Run, predicted: Run, n_rows: int) -> None:
    for name in ROWS:
        assert run.array(name)[:].tobytes() == predicted.array(name)[:n_rows].tobytes(), name


def test_appended_rows_have_the_bytes_of_predict_and_old_ones_their_own_after_kills(
    grown: Command, predicted: Run, reference: Run, all_rows: np.ndarray, tmp_path: Path
) -> None:
    before = Run(str(grown.output))
    ids = {stage: before.records.of_stage(stage) for stage in PER_PARTITION}
    refused = grown.run()
    assert refused.returncode == WRONG
    assert "have the new rows labelled with --append" in " ".join(refused.stderr.split())
    n_old, parts = before.partitioning.n_rows, len(before.partitioning)
    part = replace(grown, source=write_input(tmp_path / "part.zarr", all_rows[: n_old + 700]))
    process = part.start("--append")  # cut short, and the input grows once more
    while process.poll() is None and not Run(str(part.output)).settings.appended:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    for stage in ("scan", "find_neighbours", "label_rows"):
        process = grown.start("--append")
        grown.wait_for(process, stage, parts + 2)
        if process.poll() is None:
            process.kill()
        process.communicate()
    done = grown.run("--append")
    assert done.returncode == 0, done.stderr
    run = Run(str(grown.output))
    assert run.settings.appended == (n_old, n_old + 700)
    assert f"{len(all_rows) - n_old - 700:,} appended rows with a label" in done.stdout
    is_as_predicted(run, predicted, len(all_rows))
    for name in ROWS:
        assert run.array(name)[:n_old].tobytes() == reference.array(name)[:].tobytes(), name
    for stage, records in ids.items():
        after = run.records.of_stage(stage)
        assert {i for i in records if after[i].id != records[i].id} <= {str(parts - 1)}, "only a part that was not full"
    assert (run.array("cluster/size")[:] == np.bincount(run.array("label")[:])).all()
    assert "appended rows</h2>" in (grown.output / "report" / "index.html").read_text()
    assert "nothing was left to do" in grown.run("--append").stdout
    assert "nothing was left to do" in grown.run().stdout
    for form in ("parquet", "model"):
        done = distcluster("export", str(run.url), str(tmp_path / form), "--to", form)
        assert done.returncode == 0, done.stderr
    assert (load_model(str(tmp_path / "model")).predict(all_rows[-50:]) == run.array("label")[-50:]).all()


def test_rows_can_be_appended_again_by_one_worker_and_a_choice_follows(
    grown: Command, predicted: Run, all_rows: np.ndarray, tmp_path: Path
) -> None:
    run = Run(str(grown.output))
    choose = ["choose", str(grown.output), "--n-components", "4", "--covariance-type", "diag"]
    assert distcluster(*choose).returncode == 0
    choice = Run(str(grown.output / "choice" / "diag-4"))
    labels, n_old = choice.array("label")[:], run.partitioning.n_rows
    for n_rows in (n_old + 700, len(all_rows)):
        command = replace(grown, source=write_input(tmp_path / f"{n_rows}.zarr", all_rows[:n_rows]))
        command = replace(command, settings=command.settings | {"deploy.n_workers": 1})
        run = command.run_to_the_end("--append")
        is_as_predicted(run, predicted, n_rows)
    assert run.settings.appended == (n_old, n_old + 700)
    assert distcluster("report", str(choice.url)).returncode == 0, "it is one of the rows that were there"
    assert distcluster(*choose).returncode == 0
    choice = Run(str(choice.url))
    assert (choice.array("label")[:n_old] == labels).all()
    crosswalk = choice.array("crosswalk")[:]
    assert (crosswalk.sum(axis=1) == run.array("cluster/size")[:]).all()
    assert crosswalk.sum() == len(all_rows)


def test_old_rows_that_are_others_now_and_new_ones_that_are_invalid_leave_the_run_as_it_was(
    grown: Command, all_rows: np.ndarray, reference: Run, tmp_path: Path
) -> None:
    settings = (grown.output / "zarr.json").read_bytes()
    wrong, invalid = all_rows.copy(), all_rows.copy()
    wrong[3000] += 1
    invalid[-7, 2] = np.nan
    size = reference.partitioning.block_rows
    first = 3000 // size * size
    for rows, message in (
        (wrong, f"rows {first:,} to {first + size - 1:,} of"),
        (invalid, f"row {len(all_rows) - 7} cannot be clustered (NaN)"),
    ):
        refused = replace(grown, source=write_input(tmp_path / f"{len(message)}.zarr", rows)).run("--append")
        assert refused.returncode == WRONG, refused.stdout
        assert message in " ".join(refused.stderr.split())
        run = Run(str(grown.output))
        assert run.partitioning == reference.partitioning
        assert unequal(reference, run) == []
    assert grown.run_to_the_end("--append").partitioning.n_rows == len(all_rows)
    assert (grown.output / "zarr.json").read_bytes() != settings


def test_damage_after_rows_were_appended(grown: Command, predicted: Run, all_rows: np.ndarray) -> None:
    grown.run_to_the_end("--append")
    flip_bit(grown.output / "label" / "c" / "1")
    is_as_predicted(grown.run_to_the_end("--verify"), predicted, len(all_rows))
    refused = replace(grown, settings=grown.settings | {"selection.rule": "bic"}).run()
    assert "give up what it holds with --overwrite" in " ".join(refused.stderr.split()), "its fits are of fewer rows"
    flip_bit(grown.output / "model" / "anchors" / "c" / "0" / "0")
    failed = grown.run("--verify")
    assert failed.returncode == FAILED
    assert "cannot be made again where rows were appended" in " ".join(failed.stderr.split())


def test_arrays_that_are_shorter_than_the_run_are_lengthened(
    grown: Command, predicted: Run, all_rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(str(grown.output))
    with run.writing(20), monkeypatch.context() as patched:
        patched.setattr(run, "make_arrays", lambda _: None)  # as if it had been killed there
        grow(run, len(all_rows), [SCAN, SUMMARISE_CLUSTERS], [], model=run.settings.run_id)
    assert Run(str(grown.output)).partitioning.n_rows == len(all_rows)
    is_as_predicted(grown.run_to_the_end("--append"), predicted, len(all_rows))


def test_an_unfinished_run_is_finished_on_its_rows_first(
    new_command: Callable[..., Command], all_rows: np.ndarray, reference: Run, predicted: Run, tmp_path: Path
) -> None:
    command = new_command(deploy__n_workers=2)
    process = command.start()
    command.wait_for(process, "project_rows", 2)
    process.kill()
    process.communicate()
    run = replace(command, source=write_input(tmp_path / "grown.zarr", all_rows)).run_to_the_end("--append")
    assert run.settings.appended == (reference.partitioning.n_rows,)
    is_as_predicted(run, predicted, len(all_rows))
