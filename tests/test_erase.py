"""What a command may delete: a run's own objects, when nothing but a scan is lost or a person asks for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from conftest import FEW, Command, make_run, planted_rows, unequal, write_input

from distcluster.errors import JobError
from distcluster.job import Job
from distcluster.job_file import parse_job
from distcluster.stages.flow import STAGES
from distcluster.storage.run import Run

GOOD = planted_rows(400, 4)[0]


def a_job(source: Path, output: Path, **sample: Any) -> Job:
    return parse_job({"input": {"url": str(source)}, "output": {"url": str(output)}, "sample": sample})


@pytest.mark.parametrize("stage", ["subsample", "label_rows", "a stage of another version"])
def test_a_run_with_any_work_beyond_the_scan_is_not_erased(stage: str, tmp_path: Path) -> None:
    source, output = write_input(tmp_path / "input", GOOD), tmp_path / "output"
    run = make_run(a_job(source, output))
    with run.writing(20):
        run.commit(stage, "0", {})
    before = {path for path in output.rglob("*") if path.is_file()}
    with pytest.raises(JobError, match=r"sample.seed: 0 in the run, 7 in the job\n.*--overwrite"):
        make_run(a_job(source, output, seed=7))
    assert {path for path in output.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_erased_is_the_run_s_own_and_never_behind_a_link(overwrite: bool, tmp_path: Path) -> None:
    source, output, elsewhere = write_input(tmp_path / "input", GOOD), tmp_path / "output", tmp_path / "elsewhere"
    run = make_run(a_job(source, output))
    if overwrite:
        with run.writing(20):
            run.commit("subsample", "all", {})
    elsewhere.mkdir()
    kept = [elsewhere / "0.json", output / "thesis.txt", output / "notes" / "zarr.json"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (output / "commit" / "scan").symlink_to(elsewhere)
    (output / "support").rename(tmp_path / "support")
    (output / "support").symlink_to(tmp_path / "support")
    made = make_run(a_job(source, output, seed=7), overwrite=overwrite)
    assert made.settings.run_id != run.settings.run_id
    assert made.job.sample.seed == 7
    assert [path.read_text() for path in kept] == ["mine"] * 3
    assert (tmp_path / "support" / "zarr.json").exists()
    assert not (output / "commit" / "subsample").exists() or not list((output / "commit" / "subsample").iterdir())


def test_overwrite_refuses_a_place_that_is_not_a_run(tmp_path: Path) -> None:
    source, other = write_input(tmp_path / "input", GOOD), tmp_path / "other"
    zarr.create_array(str(other / "label"), data=np.zeros(3))
    with pytest.raises(JobError, match="holds something else"):
        make_run(a_job(source, other), overwrite=True)
    assert (other / "label" / "zarr.json").exists()


def test_overwrite_makes_a_finished_run_anew(new_command: Callable[..., Command], tmp_path: Path) -> None:
    source = write_input(tmp_path / "input", planted_rows(4000, 4)[0])
    command = new_command(source, **FEW)
    first = command.run_to_the_end().settings.run_id
    command.settings |= {"sample.seed": 1, "mixture.covariance_type": ["diag"]}  # its arrays have other axes
    refused = command.run()
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert command.run_to_the_end("--overwrite").settings.run_id != first


def commits(run: Run) -> dict[str, str]:
    """The commit of every item."""
    return {f"{stage.name} {i}": each.id for stage in STAGES for i, each in run.records.of_stage(stage.name).items()}


def test_a_change_of_mixture_or_selection_keeps_what_does_not_depend_on_it(
    finished: Command, new_command: Callable[..., Command]
) -> None:
    before = commits(Run(str(finished.output)))
    (finished.output / "choice" / "full-4" / "label" / "c").mkdir(parents=True)
    (finished.output / "choice" / "full-4" / "label" / "c" / "0").write_bytes(b"of the old mixture")
    changed = {"mixture.n_components": [4, 7], "selection.rule": "silhouette"}
    command = replace(finished, settings=finished.settings | changed)
    refused = command.run()
    assert refused.returncode == 2
    assert "have what depends on it made again with --overwrite" in " ".join(refused.stderr.split())
    assert commits(Run(str(finished.output))) == before
    process = command.start("--overwrite")
    fitted = sum(item.startswith("fit_candidates ") for item in before)
    assert command.wait_for(process, "fit_candidates", fitted + 4), process.communicate()  # those of k = 7 are new
    process.kill()
    process.communicate()
    run = command.run_to_the_end("--overwrite")  # the same command goes on
    after = commits(run)
    kept = {item.split()[0] for item in before if after.get(item) == before[item]}
    assert kept == {
        "scan", "subsample", "build_index", "fit_umap", "find_neighbours", "fit_views", "project_subsample",
        "start_kmeans", "fit_candidates", "project_rows",
    }  # fmt: skip
    fresh = new_command(**{key.replace(".", "__"): value for key, value in changed.items()}).run_to_the_end()
    assert unequal(run, fresh) == []
    assert not list((finished.output / "choice").rglob("c/0"))
