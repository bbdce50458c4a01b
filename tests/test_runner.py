"""A stage's items are run as tasks, once each, and one more stage in the list is seen by all that looks at stages."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SilentReporter
from distributed import Client, LocalCluster, get_worker
from test_resume import flip_bit

from distcluster.errors import StorageError
from distcluster.execution import runner as runner_module
from distcluster.execution.runner import Runner
from distcluster.execution.status import read_status
from distcluster.plan import make_plan
from distcluster.report.timings import stage_times
from distcluster.stages.cost import Cost
from distcluster.stages.flow import STAGES, is_finished, own_keys
from distcluster.stages.stage import Output, Stage, one
from distcluster.storage.records import collection_key
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ItemArray


def on_cluster(run: Run, reporter: SilentReporter, work: Callable[[Runner], Any]) -> None:
    """Work on a cluster inside this process, where a test can watch the tasks."""

    async def hold() -> None:
        async with (
            LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", asynchronous=True
            ) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            await work(Runner(client, run, reporter))

    with run.writing(20):
        asyncio.run(hold())


@dataclass(frozen=True, slots=True)
class ToyFacts:
    """What the toy found."""

    answer: int


def play(run: Run) -> Output[ToyFacts]:
    """Count the rows."""
    return Output(ToyFacts(run.partitioning.n_rows))


TOY = Stage("toy", play, facts=ToyFacts, items=one, reads=(), cost=lambda _: Cost(1, seconds=8.0), is_result=True)


ASKED: list[tuple[int, object]] = []
"""The items that were asked for in this process, each with its Dask task."""


def play_for(_run: Run, item: int) -> Output[ToyFacts]:
    """Fail when 3, the second of its task, is asked for the first time."""
    ASKED.append((item, get_worker().get_current_task()))
    if item == 3 and [each for each, _ in ASKED].count(item) == 1:
        raise StorageError("the storage is away.")
    return Output(ToyFacts(item))


@pytest.fixture
def with_toy(reference: Run, tmp_path: Path) -> Iterator[Run]:
    """A finished run, and one more stage in the list."""
    copied = Run(str(shutil.copytree(reference.url, tmp_path / "run")))
    STAGES.append(TOY)
    yield copied
    STAGES.remove(TOY)


def test_items_that_share_a_task_are_done_once_where_one_in_their_middle_fails(
    with_toy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reporter = with_toy, SilentReporter()
    toys = replace(TOY, task=play_for, items=lambda _: range(10))
    monkeypatch.setattr(runner_module, "MOST_TASKS", 4)
    ASKED.clear()
    on_cluster(run, reporter, lambda runner: runner.each(toys))
    assert sorted(item for item, _ in ASKED) == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]
    assert len({task for _, task in ASKED}) == 5
    assert toys.facts_of_all(run, range(10)) == [ToyFacts(item) for item in range(10)]


def test_records_are_collected_while_a_stage_is_under_way(with_toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    n, fails = 60, 59

    def play_most(_run: Run, item: int) -> Output[ToyFacts]:
        if item == fails:
            raise ValueError("here it ends")
        return Output(ToyFacts(item))

    toys = replace(TOY, task=play_most, items=lambda _: range(n))
    monkeypatch.setattr(runner_module, "_MANY", 20)
    with pytest.raises(ExceptionGroup):
        on_cluster(with_toy, SilentReporter(), lambda runner: runner.each(toys))
    done = with_toy.records.kept("toy")
    copies = json.loads(Path(with_toy.url, collection_key("toy")).read_bytes())
    assert len(done) >= len(copies) >= 40
    assert {item: asdict(done[item]) for item in copies} == copies


def test_a_stage_that_is_added_to_the_list_is_seen_everywhere(with_toy: Run, reference: Run) -> None:
    run, reporter = with_toy, SilentReporter()
    (status,) = [each for each in read_status(run.url).stages if each.name == "toy"]
    assert (status.done, status.total, is_finished(run)) == (0, 1, False)
    on_cluster(run, reporter, lambda runner: runner.each(TOY))
    assert reporter.lines == ["toy: 0 of 1 tasks"]
    assert TOY.facts_of(run) == ToyFacts(reference.partitioning.n_rows)
    assert is_finished(run)
    assert "toy" in [each.name for each in stage_times(run)]
    shape = run.settings.input.shape
    with_it = make_plan(run.job, shape, 4)
    STAGES.remove(TOY)
    try:
        without = make_plan(run.job, shape, 4)
        assert not own_keys().fullmatch("commit/toy/all.json")
    finally:
        STAGES.append(TOY)
    assert with_it.tasks - without.tasks == 1
    assert with_it.seconds - without.seconds == pytest.approx(8.0)  # one task, whatever the workers
    assert own_keys().fullmatch("commit/toy/all.json")


def test_verify_reads_what_an_added_stage_has_written(with_toy: Run) -> None:
    run = with_toy
    array = ItemArray("partial/toy", "toy", "(n,)", "int64")
    with run.writing(20):
        run.commit(TOY.name, "all", {"answer": 3}, arrays={array: np.arange(9)})
    flip_bit(Path(run.url) / "partial/toy/c/0")
    on_cluster(run, SilentReporter(), lambda runner: runner.verify(STAGES))
    assert TOY.find_facts(run) is None
