"""Another candidate in the chosen one's place: the bytes of a run that chose it, beside what the run has."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, unequal
from test_resume import flip_bit, truncate
from typer.testing import CliRunner

from distcluster import load_model
from distcluster.cli.main import app
from distcluster.errors import FAILED, WRONG, JobError
from distcluster.execution.status import read_status
from distcluster.report.run_comparison import compare_runs
from distcluster.stages.flow import own_keys
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run

ROWS = ("label", "probability", "top_label", "top_probability", "log_density")
CLUSTERS = ("cluster/size", "cluster/exemplar", "cluster/mean_probability", "model/mixture/means", "hierarchy/merge")


@pytest.fixture
def run(reference: Run, tmp_path: Path) -> Run:
    """A finished run that has choices of its own."""
    return Run(str(shutil.copytree(reference.url, tmp_path / "run")))


def argv(run: Run, candidate: str, *more: str) -> list[str]:
    kind, k = candidate.split("-")
    wanted = ("--n-components", k, "--covariance-type", kind)
    return [sys.executable, "-m", "distcluster", "choose", str(run.url), *wanted, *more]


def choose(run: Run, candidate: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv(run, candidate, *more), capture_output=True, text=True, timeout=300, check=False)


def choice_of(run: Run, candidate: str) -> Run:
    return Run(f"{run.url}/choice/{candidate}")


def test_a_choice_has_the_bytes_of_a_run_that_chose_it_and_leaves_the_run_alone(
    run: Run, reference: Run, new_command: Callable[..., Command]
) -> None:
    refused = choose(run, "diag-7")
    assert refused.returncode == WRONG
    assert "has no diag-7: --fit has it fitted. The grid has: spherical-1" in " ".join(refused.stderr.split())
    done = choose(run, "diag-7", "--fit")
    assert done.returncode == 0, done.stderr
    assert "diag-7 was chosen by hand. The run's own verdict is " in " ".join(done.stdout.split())
    only = {"mixture__n_components": [7], "mixture__covariance_type": ["diag"], "selection__rule": "bic"}
    other = new_command(**only).run_to_the_end()
    choice = choice_of(run, "diag-7")
    for name in (*ROWS, *CLUSTERS):
        assert choice.array(name)[:].tobytes() == other.array(name)[:].tobytes(), name
    assert unequal(reference, run) == []
    assert all(stage.done == stage.total for stage in read_status(run.url).stages)


def test_a_choice_is_a_run_with_report_exports_and_a_model(run: Run, tmp_path: Path) -> None:
    process = subprocess.Popen(argv(run, "full-4"), start_new_session=True, stdout=subprocess.DEVNULL)
    records, deadline = Path(run.url) / "choice/full-4/commit/label_rows", time.monotonic() + 120
    while not list(records.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = choose(run, "full-4")
    assert done.returncode == 0, done.stderr
    choice = choice_of(run, "full-4")
    assert read_status(choice.url).finished
    label = choice.array("label")[:]
    crosswalk = choice.array("crosswalk")[:]
    assert (crosswalk.sum(axis=0) == np.bincount(label, minlength=4)).all()
    assert (crosswalk.sum(axis=1) == run.array("cluster/size")[:]).all()
    assert (compare_runs(run, choice).counts == crosswalk).all()
    page = (Path(choice.url) / "report/index.html").read_text()
    assert "Beside the run's own clusters" in page
    assert "chosen by hand" in page
    model, table = tmp_path / "model", tmp_path / "table"
    for target, form in ((model, "model"), (table, "parquet")):
        exported = CliRunner().invoke(app, ["export", choice.url, str(target), "--to", form])
        assert exported.exit_code == 0, exported.output
    rows = open_input(run.job.input.url, "embeddings")[:1000]
    assert (load_model(str(model)).predict(rows) == label[:1000]).all()
    again = choose(run, "full-4")
    assert "This choice is finished; nothing was left to do." in again.stdout


def test_what_is_damaged_in_a_choice_is_made_again_and_around_it_is_told(run: Run) -> None:
    assert choose(run, "diag-6").returncode == 0
    choice = choice_of(run, "diag-6")
    good = choice.array("label")[:]
    records = choice.records.of_stage("label_rows")
    truncate(Path(choice.url) / "label/c/2")
    flip_bit(Path(choice.url) / "probability/c/4")
    done = choose(run, "diag-6", "--verify")
    assert done.returncode == 0, done.stderr
    after = choice.records.of_stage("label_rows")
    assert {item for item in records if after[item].id != records[item].id} == {"2", "4"}
    assert (choice_of(run, "diag-6").array("label")[:] == good).all()
    flip_bit(Path(run.url) / "projection/c/3/0")  # its size is right, so the run looks finished
    done = choose(run, "diag-4")
    assert done.returncode == FAILED, done.stderr
    assert "partition 3 of projection cannot be read back" in done.stderr
    assert "Run its job again with --verify." in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_what_cannot_be_chosen_is_refused_in_a_sentence(run: Run, reference: Run) -> None:
    kind, k = re.fullmatch(r"(\w+)-(\d+)", chosen(reference)).groups()  # type: ignore[union-attr]
    assert f"{kind}-{k} is what the run" in choose(run, f"{kind}-{k}").stderr
    assert "must be one of spherical, diag, tied, full" in choose(run, "round-4").stderr
    truncate(Path(run.url) / "label/c/3")
    assert "is not finished: run its job to the end first" in " ".join(choose(run, "full-4").stderr.split())


def chosen(run: Run) -> str:
    facts = json.loads((Path(run.url) / "commit/select_candidate/all.json").read_text())["facts"]
    return f"{facts['covariance_type']}-{facts['n_components']}"


def test_a_choice_goes_with_its_run_and_is_no_place_for_another(run: Run, tmp_path: Path) -> None:
    assert choose(run, "spherical-3").returncode == 0
    choice = choice_of(run, "spherical-3")
    assert "choose from the run" in choose(choice, "full-4").stderr
    moved = Path(shutil.copytree(choice.url, tmp_path / "elsewhere" / "choice" / "spherical-3"))
    with pytest.raises(JobError, match="not around it any more"):
        _ = Run(str(moved)).around
    with run.writing(20):
        run.erase(own_keys())
    assert not Path(choice.url).exists()
