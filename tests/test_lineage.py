"""Cluster ids that follow a previous run's: planted births, deaths, splits and merges, and whole runs."""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import BLOCK_ROWS, N_ROWS, Command, planted_rows, unequal, write_input
from hypothesis import given
from hypothesis import strategies as st
from test_resume import flip_bit, kill_at
from typer.testing import CliRunner

from distcluster.cli.main import app
from distcluster.numerics.lineage import Lineage, count_events, number_components, trace_clusters
from distcluster.stages.labelling import LABEL_ROWS
from distcluster.stages.matching import MATCH_CLUSTERS
from distcluster.storage import layout
from distcluster.storage.inputs import open_input
from distcluster.storage.layout import ItemArray
from distcluster.storage.run import Run


def traced(before: list[int], label: list[int], previous_k: int, n_components: int, new: int = 0) -> Lineage:
    """Of rows that are given in hundreds; the last ``new`` hundreds are not common."""
    many = np.repeat(np.array(label, np.int32), 100)
    common = np.arange(100 * len(before))
    assert len(many) == len(common) + 100 * new
    old = np.repeat(np.array(before, np.int32), 100)
    return trace_clusters(old, many, common, previous_k=previous_k, n_components=n_components)


PLANTED = {
    "the same": ([0, 1, 2], [0, 1, 2], [0, 1, 2], "kept kept kept", "kept kept kept"),
    "other numbers": ([0, 1, 2], [2, 0, 1], [2, 0, 1], "kept kept kept", "kept kept kept"),
    "a split": ([0, 1, 1, 1], [1, 0, 0, 2], [1, 0, 2], "kept split split", "kept split"),
    "a split in three equal parts": ([0, 0, 0, 1], [3, 1, 2, 0], [1, 0, 2, 3], "split kept split split", "split kept"),
    "a merge": ([0, 0, 1, 2], [0, 0, 0, 1], [0, 1], "merged kept", "merged merged kept"),
    "a part of a split, merged": ([0, 0, 0, 1], [0, 0, 1, 0], [0, 1], "merged split", "split merged"),
    "a death": ([0, 0, 1, 1, 2, 2, 3, 3, 3], [1, 1, 2, 2, 0, 0, 0, 1, 2], [1, 2, 0], "kept kept kept",
                "kept kept kept died"),
    "a birth": ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 3, 1, 1, 3, 2, 2, 3], [0, 1, 2, 3], "kept kept kept born",
                "kept kept kept"),
    "a death and a birth": ([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [1, 1, 0, 2, 2, 0, 3, 3, 0, 1, 2, 3], [1, 2, 3, 0],
                            "kept kept kept born", "kept kept kept died"),
    "a number that there is no more": ([0, 0, 1, 2], [0, 0, 0, 1], [0, 1], "merged kept", "merged merged kept"),
    "a component without rows": ([0, 1], [2, 0], [2, 0, 1], "kept kept unseen", "kept kept"),
}  # fmt: skip
"""By name: previous and new labels of hundreds of rows, then the component of each number, and the events."""


@pytest.mark.parametrize("name", PLANTED)
def test_planted_changes_are_found(name: str) -> None:
    before, label, component, events, previous_events = PLANTED[name]
    K = len(component)
    found = traced(before, label, max(before) + 1, K)
    assert found.component.tolist() == component
    assert found.events == tuple(events.split())
    assert found.previous_events == tuple(previous_events.split())
    place = np.argsort(found.component)
    expected = np.zeros((max(before) + 1, K), np.int64)
    np.add.at(expected, (before, place[label]), 100)
    assert found.counts.tolist() == expected.tolist()


def test_every_cluster_but_a_born_one_has_a_predecessor() -> None:
    for before, label, component, *_ in PLANTED.values():
        found = traced(before, label, max(before) + 1, len(component))
        for predecessor, event, rows in zip(found.predecessor, found.events, found.counts.T, strict=True):
            assert (predecessor < 0) == (event in ("born", "unseen"))
            assert predecessor < 0 or rows[predecessor] == rows.max()


def test_a_cluster_of_new_rows_is_born_whatever_strays_into_it() -> None:
    before, label = [0] * 9 + [1] * 10, [0] * 9 + [1] * 9 + [2]
    assert traced(before, label, 2, 3).events == ("kept", "split", "split")
    found = traced(before, label + [2] * 10, 2, 3, new=10)
    assert found.events == ("kept", "kept", "born")
    assert found.predecessor.tolist() == [0, 1, -1]


def test_all_rows_may_be_twice_as_many_without_a_change() -> None:
    label = [1, 1, 0, 0, 2, 2]
    found = traced([0, 0, 1, 1, 1, 1], label + label, 2, 3, new=6)
    assert found.events == ("kept", "split", "split")


labellings = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=60)


@given(labellings, st.permutations(range(5)), st.integers(0, 9))
def test_laws_of_any_two_labellings(rows: list[tuple[int, int]], order: list[int], new: int) -> None:
    before, label = (np.array(each, np.int32) for each in zip(*rows, strict=True))
    more = np.concatenate([label, np.zeros(new, np.int32)])
    found = trace_clusters(before, more, np.arange(len(label)), previous_k=6, n_components=5)
    assert sorted(found.component) == list(range(5))
    assert found.counts.sum() == len(rows)
    assert found.events.count("kept") == found.previous_events.count("kept")
    assert count_events(found.events, found.previous_events)["died"] == found.previous_events.count("died")
    # How a fit numbers its components changes nothing, but for numbers that it has to break a tie by.
    renamed = trace_clusters(before, np.array(order, np.int32)[more], np.arange(len(label)), previous_k=6,
                             n_components=5)  # fmt: skip
    assert renamed.previous_events == found.previous_events
    assert sorted(renamed.events) == sorted(found.events)
    # A fit that follows one which followed this one has its numbers.
    again = trace_clusters(np.argsort(found.component)[label].astype(np.int32), label, np.arange(len(label)),
                           previous_k=5, n_components=5)  # fmt: skip
    assert again.component.tolist() == found.component.tolist()
    assert set(again.events) <= {"kept", "unseen"}


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=6))
def test_no_other_numbers_keep_more_rows(rows: list[list[int]]) -> None:
    counts = np.array(rows, np.int64)
    component = number_components(counts)
    kept = np.trace(counts[:, component])
    assert kept == max(np.trace(counts[:, list(each)]) for each in itertools.permutations(range(4)))


# --- whole runs -------------------------------------------------------------------------------------------------


def lineage(run: Run) -> dict[str, list[object]]:
    return {name: run.read(array).tolist() for name, array in layout.LINEAGE.items()}


def contingency(before: np.ndarray, now: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    counts = np.zeros(shape, np.int64)
    np.add.at(counts, (before, now), 1)
    return counts


@pytest.fixture(scope="module")
def renamed(reference: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, np.ndarray]:
    """The reference with other cluster ids, and the new id of each; only what a run that follows it reads."""
    run = Run(str(shutil.copytree(reference.url, tmp_path_factory.mktemp("renamed") / "run")))
    number = np.random.default_rng(3).permutation(len(run.read(layout.CLUSTER_SIZE))).astype(np.int32)
    with run.writing(20):
        for partition in run.partitioning:
            item = str(partition.index)
            rows = {each: run.read_rows(each, partition) for each in layout.ASSIGNMENT.values()}
            rows[layout.LABEL] = number[rows[layout.LABEL]]
            arrays = {each: run.read(each, item) for each in LABEL_ROWS.writes if isinstance(each, ItemArray)}
            facts = asdict(LABEL_ROWS.facts_of(run, item))
            run.commit(LABEL_ROWS.name, item, facts, rows=rows, arrays=arrays)
    root = Path(run.url) / "zarr.json"
    root.write_text(root.read_text().replace(run.settings.run_id, "renamed"))
    return Run(str(run.url)), number


@pytest.fixture(scope="module")
def followed(renamed: tuple[Run, np.ndarray], new_command: Callable[..., Command]) -> Command:
    """The job of the reference again, with ids that follow the renamed ones."""
    command = new_command(mixture__previous=str(renamed[0].url))
    done = command.run()
    assert done.returncode == 0, done.stderr
    (command.directory / "printed").write_text(done.stdout)
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
        deploy__n_workers=1,
        report__write="never",
    )
    kill_at(command, "match_clusters", 1)
    run, before = command.run_to_the_end(), Run(str(followed.output))
    assert unequal(before, run) == []
    assert (before.read(layout.LINEAGE["component"]) == run.read(layout.LINEAGE["component"])).all()


def test_a_finished_run_needs_the_previous_one_no_more_and_damage_needs_it_as_it_was(
    reference: Run, followed: Command, renamed: tuple[Run, np.ndarray], new_command: Callable[..., Command]
) -> None:
    previous = Path(renamed[0].url)
    before = lineage(Run(str(followed.output)))
    moved = previous.rename(previous.with_name("moved"))
    for argument in ((), ("--verify",)):
        done = followed.run(*argument)
        assert done.returncode == 0, done.stderr
    counts = followed.output / "lineage/counts/c/0/0"
    flip_bit(counts)
    done = followed.run("--verify")
    assert (done.returncode, "does not hold the run renamed any more" in done.stderr) == (2, True)
    shutil.copytree(reference.url, previous)
    refused = followed.run("--verify")
    assert f"the run at mixture.previous: renamed in the run, {reference.settings.run_id} now" in refused.stderr
    shutil.rmtree(previous)
    moved.rename(previous)
    followed.run_to_the_end("--verify")
    assert lineage(Run(str(followed.output))) == before


def test_more_components_split_clusters_and_each_says_whose_part_it_is(
    reference: Run, new_command: Callable[..., Command]
) -> None:
    run = new_command(
        mixture__previous=str(reference.url), mixture__n_components=[16], selection__rule="bic",
        selection__refine=False, projection__views=[], report__write="never",
    ).run_to_the_end()  # fmt: skip
    found, K = lineage(run), len(reference.read(layout.CLUSTER_SIZE))
    rows = run.read(layout.MIXTURE_ROW)
    labels = [each.array("label")[:][rows] for each in (reference, run)]
    assert found["counts"] == contingency(*labels, (K, 16)).tolist()
    assert found["previous_event"].count("split") >= 4
    assert found["event"].count("split") >= 8
    counts = np.array(found["counts"])
    of_all = contingency(*(each.array("label")[:] for each in (reference, run)), (K, 16))
    for k, predecessor in enumerate(found["predecessor"]):
        assert of_all[predecessor, k] > 0.9 * of_all[:, k].sum()  # the balls lie far apart
    kept = [k for k in range(K) if counts[k, k] == counts[k].max() > 0]
    assert len(kept) == K, "the largest part of a cluster has its id"


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
    done = command.run()
    assert done.returncode == 2
    assert (
        f"only 0 of the mixture subsample's 1,500 rows lie in blocks that {reference.url} has labelled" in done.stderr
    )
    assert command.n_committed("build_index") == 0
    prediction = tmp_path / "prediction"
    predicted = CliRunner().invoke(app, ["predict", str(reference.url), str(source), str(prediction)])
    assert predicted.exit_code == 0, predicted.output
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
        done = command.run()
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert not output.exists()


def test_another_previous_run_is_another_job(followed: Command) -> None:
    other = Command(followed.directory, followed.source, followed.output, dict(followed.settings))
    del other.settings["mixture.previous"]
    done = other.run()
    assert done.returncode == 2
    assert re.search(r"mixture.previous: '.*' in the run, None in the job", done.stderr)
    job = json.loads((followed.output / "zarr.json").read_text())["attributes"]["distcluster"]["job"]
    assert job["mixture"]["previous"] == followed.settings["mixture.previous"]
