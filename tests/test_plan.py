"""What ``plan`` promises, beside what a run does."""

from collections.abc import Callable
from pathlib import Path

from conftest import Command, planted_rows, write_input

from distcluster.job_file import parse_job
from distcluster.plan import make_plan
from distcluster.stages.crossing import CROSS_LABELS, SUM_CROSSWALK
from distcluster.stages.fitting import EXTEND_GRID
from distcluster.stages.flow import STAGES
from distcluster.storage.run import Run


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
