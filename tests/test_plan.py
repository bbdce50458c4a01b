"""What ``plan`` promises, beside what a run does."""

import json
from collections.abc import Callable
from pathlib import Path

from conftest import Command, planted_rows, write_input

from distcluster.plan import make_plan
from distcluster.stages.context import STAGES, job_of
from distcluster.storage.run import Run


def planned_tasks(run: Run) -> tuple[int, int]:
    """All tasks, and those of one iteration of the refinement."""
    shape = run.attributes["input"]["shape"]
    plan = make_plan(job_of(run), (shape[0], shape[1]), 4)
    return plan.tasks, plan.refine_tasks


def done(run: Run) -> tuple[int, int]:
    """Items committed, without and in the refinement."""
    stages = [path.parent.name for path in Path(run.url).glob("commit/*/*.json")]
    refined = sum(name.startswith(("expect-", "maximise-")) for name in stages)
    return sum(name in STAGES for name in stages), refined  # other commands add stages of their own


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
        "deploy__n_workers": 1,
    }  # fmt: skip
    run = new_command(source, **settings).run_to_the_end()
    added = [json.loads(path.read_text())["facts"]["ks"] for path in Path(run.url).glob("commit/grid/*.json")]
    grown = sum(len(ks) * (1 + 4) for ks in added) + len(added) - 1  # k-means and four types for each k, each decision
    committed, refined = done(run)
    assert (committed - grown, refined) == (planned_tasks(run)[0], 0)
