"""What ``plan`` promises, beside what a run does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command, SilentReporter, planted_rows, write_input
from source_files import ROWS, fixed, write_parquets

from distcluster.api import run_job
from distcluster.execution.session import Session
from distcluster.job import Job
from distcluster.job_file import parse_job
from distcluster.plan import make_plan, times_decoded
from distcluster.prepare import check_job
from distcluster.stages.crossing import CROSS_LABELS, SUM_CROSSWALK
from distcluster.stages.fitting import EXTEND_GRID
from distcluster.stages.flow import STAGES
from distcluster.storage import object_file, parquet_files
from distcluster.storage.run import Run
from distcluster.url import Url


def planned_tasks(run: Run) -> tuple[int, int]:
    """All tasks, and those of one iteration of the refinement."""
    plan = make_plan(run.job, run.settings.input.shape, 4)
    return plan.tasks, plan.refine_tasks


def done(run: Run) -> tuple[int, int]:
    """Items committed, without and in the refinement."""
    counts = {stage: len(run.records.of_stage(stage.name)) for stage in STAGES}
    refined = sum(count for stage, count in counts.items() if stage.line == "refine")
    asked_for = sum(counts[stage] for stage in (CROSS_LABELS, SUM_CROSSWALK))  # by other commands
    return sum(counts.values()) - refined - asked_for, refined


def test_a_run_commits_the_tasks_that_were_planned(reference: Run) -> None:
    tasks, of_an_iteration = planned_tasks(reference)
    committed, refined = done(reference)
    assert committed == tasks
    assert refined > 0
    assert refined % of_an_iteration == 0


def test_an_automatic_grid_replicates_and_components_are_counted(
    new_command: Callable[..., Command], tmp_path: Path
) -> None:
    source = write_input(tmp_path / "input", planted_rows(4096, 4)[0])
    settings = {
        "sample__rows": 400, "sample__mixture_rows": 400, "mixture__n_components": "auto",
        "selection__replicates": 2, "selection__refine": False, "projection__pca": 8,
    }  # fmt: skip
    run = new_command(source, **settings).run_to_the_end()
    added = [facts.ks for facts in EXTEND_GRID.all_facts(run).values()]
    grown = sum(len(ks) * (1 + 4) for ks in added) + len(added) - 1  # k-means and four types for each k, each decision
    committed, refined = done(run)
    assert (committed - grown, refined) == (planned_tasks(run)[0], 0)


def test_single_tasks_do_not_get_faster_with_workers_and_a_far_store_takes_its_time() -> None:
    def seconds(output: str, workers: int) -> float:
        tables = {"input": {"url": "in.zarr"}, "output": {"url": output}, "deploy": {"n_workers": workers}}
        return make_plan(parse_job(tables), (1_000_000, 384), 4).seconds

    few, many, more = (seconds("out", workers) for workers in (2, 1_000, 10_000))
    assert few > 2 * many
    assert many == more
    assert seconds("s3://bucket/out", 2) > few + 1


@pytest.mark.parametrize(("group_rows", "workers"), [(20_000, 1), (20_000, 2), (20_000, 9), (6_000, 3), (1_000, 3)])
def test_how_often_a_row_group_is_decoded_is_known_before(
    group_rows: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide, partition_rows = np.random.default_rng(1).normal(size=(20_000, 512)).astype(np.float32), 4_096
    place = tmp_path / "docs.parquet"
    plain: dict[str, Any] = {"use_dictionary": False, "compression": "none", "data_page_size": 2**16}
    pq.write_table(pa.table({"emb": fixed(wide)}), place, group_rows, **plain)
    read = []
    get = obstore.get_range
    monkeypatch.setattr(object_file.obstore, "get_range", lambda *a, **k: read.append(k["length"]) or get(*a, **k))
    # What is read ahead, and decoded at a time, is not counted.
    monkeypatch.setattr(parquet_files, "_BUFFER_BYTES", 2**16)
    monkeypatch.setattr(parquet_files, "BATCH_ROWS", 256)
    files = parquet_files.open_parquet(Url(str(place)), None)
    assert files is not None
    # Each keeps what it decoded last.
    of_workers = [parquet_files.open_vectors_of(files, "emb") for _ in range(workers)]
    read.clear()
    for index, start in enumerate(range(0, 20_000, partition_rows)):
        assert len(of_workers[index % workers][start : start + partition_rows])
    expected = times_decoded(np.arange(0, 20_000, group_rows), 20_000, partition_rows, workers)
    assert sum(read) / wide.nbytes == pytest.approx(expected, rel=0.05)


def test_who_reads_large_row_groups_is_told_what_it_costs_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def job(group_rows: int) -> Job:
        place = write_parquets(tmp_path / f"{group_rows}", ROWS, fixed, 1, group_rows)
        parts = {"block_rows": 256, "partition_rows": 1_024}
        return parse_job(
            {"input": {"url": str(place)}, "output": {"url": str(tmp_path / "run")}, "assign": parts}
            | {"sample": {"rows": 500, "mixture_rows": 500}, "deploy": {"n_workers": 2}}
        )

    wrong = job(5_000)
    assert check_job(wrong).plan.advice == "", "so few rows cost nothing"
    monkeypatch.setattr("distcluster.plan._TOO_MUCH", 0)
    good, bad = check_job(job(256)).plan, check_job(wrong).plan
    assert (good.times_decoded, good.advice) == (1.0, "")
    assert bad.times_decoded == pytest.approx((5_000 + 4_096) / 5_000)
    assert bad.bytes_read > 1.8 * good.bytes_read
    assert "each pass reads the input 1.8 times. Write it with row groups" in bad.advice

    monkeypatch.setattr(Session, "hold", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_job(wrong, SilentReporter())
    assert [record.getMessage() for record in caplog.records] == [bad.advice]
