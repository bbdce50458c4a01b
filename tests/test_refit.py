"""Runs whose cluster ids follow a previous run's: the same bytes, whose part each cluster is, and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import BLOCK_ROWS, N_ROWS, Command, SilentReporter, make_run, planted_rows, unequal, write_input
from distributed import default_client
from test_plan import done, planned_tasks
from test_resume import flip_bit, kill_at
from test_runner import on_cluster

from distcluster.errors import JobError
from distcluster.execution.runner import Runner
from distcluster.execution.worker_check import check_workers
from distcluster.job_file import load_job
from distcluster.predicting import prediction_job
from distcluster.prepare import check_job
from distcluster.report.predecessors import read_lineage
from distcluster.stages.labelling import LABEL_ROWS
from distcluster.stages.matching import MATCH_CLUSTERS
from distcluster.storage import layout
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ItemArray


def lineage(run: Run) -> dict[str, list[object]]:
    return {name: run.read(array).tolist() for name, array in layout.LINEAGE.items()}


def distcluster(*argv: object) -> None:
    """A command, which has to end well."""
    command = [sys.executable, "-m", "distcluster", *map(str, argv)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


def contingency(before: np.ndarray, now: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    counts = np.zeros(shape, np.int64)
    np.add.at(counts, (before, now), 1)
    return counts


def rename(run: Run, number: np.ndarray) -> None:
    """Give every row of a finished run the new number of its cluster."""
    with run.writing(20):
        for partition in run.partitioning:
            item = str(partition.index)
            rows = {each: run.read_rows(each, partition) for each in layout.ASSIGNMENT.values()}
            rows[layout.LABEL] = number[rows[layout.LABEL]]
            arrays = {each: run.read(each, item) for each in LABEL_ROWS.writes if isinstance(each, ItemArray)}
            facts = asdict(LABEL_ROWS.facts_of(run, item))
            run.commit(LABEL_ROWS.name, item, facts, rows=rows, arrays=arrays)


@pytest.fixture(scope="module")
def renamed(reference: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, np.ndarray]:
    """The reference with other cluster ids, and the new id of each; only what a run that follows it reads."""
    run = Run(str(shutil.copytree(reference.url, tmp_path_factory.mktemp("renamed") / "run")))
    number = np.random.default_rng(3).permutation(len(run.read(layout.CLUSTER_SIZE))).astype(np.int32)
    rename(run, number)
    root = Path(run.url) / "zarr.json"
    root.write_text(root.read_text().replace(run.settings.run_id, "renamed"))
    return Run(str(run.url)), number


@pytest.fixture(scope="module")
def followed(renamed: tuple[Run, np.ndarray], new_command: Callable[..., Command]) -> Command:
    """The job of the reference again, with ids that follow the renamed ones."""
    command = new_command(mixture__previous=str(renamed[0].url), deploy__n_workers=2, report__write="always")
    ended = command.run()
    assert ended.returncode == 0, ended.stderr
    (command.directory / "printed").write_text(ended.stdout)
    return command


def test_an_identical_refit_is_the_identity(reference: Run, new_command: Callable[..., Command]) -> None:
    run = new_command(mixture__previous=str(reference.url), report__write="never").run_to_the_end()
    assert unequal(reference, run) == []
    found, K = lineage(run), len(reference.read(layout.CLUSTER_SIZE))
    assert found["component"] == found["predecessor"] == list(range(K))
    assert set(found["event"]) == set(found["previous_event"]) == {"kept"}
    assert np.trace(found["counts"]) == np.sum(found["counts"]) == 1500
    facts = MATCH_CLUSTERS.facts_of(run)
    assert (facts.previous, facts.n_common, facts.n_same_id) == (reference.settings.run_id, 1500, 1500)


def test_ids_follow_those_of_the_previous_run_in_everything_that_has_them(
    reference: Run, renamed: tuple[Run, np.ndarray], followed: Command
) -> None:
    run, number = Run(str(followed.output)), renamed[1]
    assert (number != np.arange(len(number))).any()
    assert (run.array("label")[:] == number[reference.array("label")[:]]).all()
    assert (run.array("top_label")[:, 0] == run.array("label")[:]).all()
    for name in ("weights", "means", "covariances"):
        before, now = (each.read(layout.MIXTURE[name]) for each in (reference, run))
        assert now[number].tobytes() == before.tobytes(), name
    for array in (layout.CLUSTER_SIZE, layout.EXEMPLAR, layout.EXEMPLAR_DISTANCE):
        assert (run.read(array)[number] == reference.read(array)).all(), array.path
    for name in ("selection/component/rows", "selection/bic", "projection"):
        assert run.array(name)[:].tobytes() == reference.array(name)[:].tobytes(), f"{name}: of the candidates, as ever"
    assert lineage(run)["component"] == np.argsort(number).tolist()
    assert done(run)[0] == planned_tasks(run)[0]
    printed = (followed.directory / "printed").read_text()
    line = f"Lineage: {len(number)} kept, 0 born, 0 died, 0 split, 0 merged; 100% of 1,500 common rows keep their"
    assert line in " ".join(printed.split())
    page = (followed.output / "report/index.html").read_text()
    assert "Since the previous run" in page
    assert "Since the previous run" not in (Path(reference.url) / "report/index.html").read_text()


def test_a_refit_of_a_refit_has_its_bytes_on_other_workers_and_after_a_kill(
    followed: Command, new_command: Callable[..., Command]
) -> None:
    command = new_command(
        mixture__previous=str(followed.output),
        assign__partition_rows=4 * BLOCK_ROWS,
        report__write="never",
    )
    kill_at(command, "match_clusters", 1)
    run, before = command.run_to_the_end(), Run(str(followed.output))
    assert unequal(before, run) == []
    assert (before.read(layout.LINEAGE["component"]) == run.read(layout.LINEAGE["component"])).all()


def test_a_finished_run_needs_the_previous_one_no_more_and_damage_needs_it_as_it_was(
    reference: Run, followed: Command, renamed: tuple[Run, np.ndarray], tmp_path: Path
) -> None:
    previous, run = Path(renamed[0].url), Run(str(followed.output))
    before = lineage(run)
    moved = previous.rename(previous.with_name("moved"))
    predicted = check_job(prediction_job(run, str(followed.source), str(tmp_path / "out")), model=run)
    assert predicted.previous is None
    for argument in ((), ("--verify",)):
        ended = followed.run(*argument)
        assert ended.returncode == 0, ended.stderr
    flip_bit(followed.output / "lineage/counts/c/0/0")
    ended = followed.run("--verify")
    assert (ended.returncode, "does not hold the run renamed any more" in ended.stderr) == (2, True)
    shutil.copytree(reference.url, previous)
    refused = followed.run("--verify")
    assert f"the run at mixture.previous: renamed in the run, {reference.settings.run_id} now" in refused.stderr
    shutil.rmtree(previous)
    moved.rename(previous)
    followed.run_to_the_end("--verify")
    assert lineage(Run(str(followed.output))) == before


def test_another_previous_run_and_another_candidate_change_what_depends_on_them(
    reference: Run, followed: Command, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(followed.output, tmp_path / "run"))
    settings = followed.settings | {"mixture.previous": str(reference.url), "report.write": "never"}
    command = Command(tmp_path, followed.source, output, settings)
    before = Run(str(output)).records.read("fit_umap", "all")
    run = command.run_to_the_end("--overwrite")
    assert run.records.read("fit_umap", "all") == before
    assert run.settings.previous == reference.settings.run_id
    assert unequal(reference, run) == []
    distcluster("choose", output, "--n-components", "4", "--covariance-type", "full")
    choice = Run(str(output / "choice/full-4"))
    found = lineage(choice)
    assert len(found["component"]) == 4
    assert "merged" in found["event"]
    rows = choice.read(layout.MIXTURE_ROW)
    labels = [each.array("label")[:][rows] for each in (reference, choice)]
    assert found["counts"] == contingency(*labels, (len(found["counts"]), 4)).tolist()


def test_more_components_split_clusters_and_skipped_rows_tell_nothing(
    finished: Command, new_command: Callable[..., Command]
) -> None:
    previous = Run(str(finished.output))
    K = len(previous.read(layout.CLUSTER_SIZE))
    rename(previous, np.array([*range(K - 1), -1], np.int32))
    run = new_command(
        mixture__previous=str(finished.output), mixture__n_components=[16], selection__rule="bic",
        selection__refine=False, projection__views=[], report__write="never",
    ).run_to_the_end()  # fmt: skip
    found, rows = lineage(run), run.read(layout.MIXTURE_ROW)
    before, now = (each.array("label")[:] for each in (previous, run))
    common = rows[before[rows] >= 0]
    assert MATCH_CLUSTERS.facts_of(run).n_common == len(common) < len(rows)
    assert found["counts"] == contingency(before[common], now[common], (K, 16)).tolist()
    assert found["previous_event"].count("split") >= 4
    assert found["previous_event"][-1] == "unseen"
    of_all = contingency(before[before >= 0], now[before >= 0], (K, 16))
    for k, predecessor in enumerate(found["predecessor"]):  # the balls lie far apart
        size = (now == k).sum()
        assert found["event"][k] == "born" if predecessor < 0 else of_all[predecessor, k] > 0.9 * size
    assert "born" in found["event"]
    counts = np.array(found["counts"])
    assert all(counts[k, k] == counts[k].max() > 0 for k in range(K - 1)), "the largest part of a cluster has its id"
    shown = read_lineage(run)
    assert shown is not None
    assert [each.label for each in shown.clusters] == list(range(16))
    for each, predecessor in zip(shown.clusters, found["predecessor"], strict=True):
        assert each.event == "born" or each.parts[0].label == predecessor
        assert each.n_other == (counts[predecessor].sum() if predecessor >= 0 else 0)
    assert {each.label for each in shown.gone} == {i for i in range(K) if found["previous_event"][i] != "kept"}
    assert shown.counts["split"] == found["previous_event"].count("split")


def test_appended_rows_leave_the_ids_and_a_new_group_is_born(
    reference: Run, planted: tuple[Path, np.ndarray], new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows = open_input(str(planted[0]), "embeddings")[:]
    born = planted_rows(4000, 1, seed=5)[0] + np.float32(30)
    source = write_input(tmp_path / "grown", np.concatenate([rows, born]))
    K = len(reference.read(layout.CLUSTER_SIZE))
    run = new_command(
        source,
        mixture__previous=str(reference.url),
        mixture__n_components=[K + 1],
        selection__rule="bic",
        projection__views=[],
        report__write="never",
    ).run_to_the_end()
    found, common = lineage(run), N_ROWS - N_ROWS % BLOCK_ROWS  # the last block was short
    assert found["event"] == ["kept"] * K + ["born"]
    assert found["predecessor"] == [*range(K), -1]
    mixture = run.read(layout.MIXTURE_ROW)
    assert MATCH_CLUSTERS.facts_of(run).n_common == (mixture < common).sum()
    now, before = run.array("label")[:], reference.array("label")[:]
    assert (now[: len(rows)] == before).mean() > 0.99
    assert (now[len(rows) :] == K).mean() > 0.99


def test_rows_that_have_moved_are_recognised_by_way_of_a_prediction(
    reference: Run, planted: tuple[Path, np.ndarray], new_command: Callable[..., Command], tmp_path: Path
) -> None:
    source = write_input(tmp_path / "moved", open_input(str(planted[0]), "embeddings")[:][::-1])
    command = new_command(source, mixture__previous=str(reference.url))
    ended = command.run()
    assert ended.returncode == 2
    assert (
        f"only 0 of the mixture subsample's 1,500 rows lie in blocks that {reference.url} has labelled" in ended.stderr
    )
    assert command.n_committed("build_index") == 0
    prediction = tmp_path / "prediction"
    distcluster("predict", reference.url, source, prediction, "--set", "deploy.dashboard_address=127.0.0.1:0")
    run = new_command(source, mixture__previous=str(prediction), mixture__n_components=[8], selection__rule="bic",
                      projection__views=[], report__write="never").run_to_the_end()  # fmt: skip
    facts = MATCH_CLUSTERS.facts_of(run)
    assert facts.n_common == 1500
    assert facts.n_same_id > 1480
    assert (run.array("label")[:][::-1] == reference.array("label")[:]).mean() > 0.98


def test_a_run_that_cannot_be_followed_is_refused_before_anything_is_written(
    reference: Run, finished: Command, new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows = planted_rows(2000, 4)[0]
    narrow = write_input(tmp_path / "narrow", rows[:, :5].astype(np.float64))
    (finished.output / "commit/label_rows/3.json").unlink()
    (finished.output / "commit/label_rows.json").unlink()
    output = tmp_path / "output"
    for previous, settings, message in (
        (tmp_path / "nothing", {}, "there is no run at"),
        (finished.output, {}, "is not finished: run its job to the end first"),
        (reference.url, {"assign__block_rows": 256}, "assign.block_rows 512 there, 256 here"),
        (reference.url, {"source": narrow}, "features 16 there, 5 here; dtype float32 there, float64 here"),
        (output, {}, "lies inside the run of mixture.previous"),
        ("https://example.org/run", {}, "mixture.previous: a run can be written to a local path or to"),
    ):
        command = new_command(mixture__previous=str(previous), **settings)
        command.output = output
        ended = command.run()
        assert ended.returncode == 2, ended.stderr
        assert message in ended.stderr
        assert not output.exists()


def test_another_previous_run_is_another_job(followed: Command) -> None:
    other = Command(followed.directory, followed.source, followed.output, dict(followed.settings))
    del other.settings["mixture.previous"]
    ended = other.run()
    assert ended.returncode == 2
    assert re.search(r"mixture.previous: '.*' in the run, None in the job", ended.stderr)
    job = json.loads((followed.output / "zarr.json").read_text())["attributes"]["distcluster"]["job"]
    assert job["mixture"]["previous"] == followed.settings["mixture.previous"]


def test_workers_that_do_not_see_the_previous_run_are_refused_before_any_work(
    finished: Command, new_command: Callable[..., Command]
) -> None:
    command = new_command(mixture__previous=str(finished.output))
    run = make_run(load_job(command.argv()[4]))
    finished.output.rename(finished.output.with_name("elsewhere"))

    async def check(_: Runner) -> None:
        await check_workers(default_client(), run, read_input=True)

    with pytest.raises(JobError, match=r"these workers cannot take part:\n.* does not hold the run \w+ any more"):
        on_cluster(run, SilentReporter(), check)


def test_labels_that_are_no_clusters_are_refused(finished: Command, new_command: Callable[..., Command]) -> None:
    previous = Run(str(finished.output))
    rename(previous, np.arange(1, len(previous.read(layout.CLUSTER_SIZE)) + 1, dtype=np.int32))
    ended = new_command(
        mixture__previous=str(finished.output), mixture__n_components=[2], projection__views=[], report__write="never"
    ).run()
    assert ended.returncode == 1, ended.stderr
    assert "has labels that are none of its clusters'" in ended.stderr
