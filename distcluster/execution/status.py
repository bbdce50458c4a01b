"""How far a run is."""

from dataclasses import dataclass

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distcluster.errors import JobError
from distcluster.stages.context import ONE, PARTITION_STAGES, STAGES, job_of
from distcluster.stages.fitting import candidates, grid_round
from distcluster.stages.labelling import is_finished
from distcluster.stages.projecting import sketch_items, views
from distcluster.stages.replicating import replicates
from distcluster.storage.inputs import public_url
from distcluster.storage.run import Run

_BAR = 24  # columns


@dataclass(frozen=True, slots=True)
class StageStatus:
    """A stage: items committed, of how many; None where earlier stages decide and have not run."""

    name: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """A run: its stages in order, whether it is finished, and the last error, if any."""

    stages: list[StageStatus]
    finished: bool
    last_error: str


def read_status(url: str) -> Status:
    """Read how far a run is.

    Raises
    ------
    JobError
        When there is no run.
    """
    run = Run(url)
    if run.read_attributes() is None:
        raise JobError(f"there is no run at {public_url(run.url)}.")
    totals = {stage: _total(run, stage) for stage in STAGES}
    stages = [StageStatus(stage, len(run.committed(stage)), total) for stage, total in totals.items() if total != 0]
    return Status(stages, is_finished(run), run.last_error())


def _total(run: Run, stage: str) -> int | None:
    if stage in PARTITION_STAGES:
        return len(run.partitioning)
    if stage in ("replicate", "recluster"):
        return None if run.record("draw", ONE) is None else len(replicates(run))
    if stage == "grid":
        complete = grid_round(run) is None  # else rounds come, as many as the grid turns out to need
        return len(run.committed("grid")) if complete else None
    if stage == "pca":
        return int(job_of(run).projection.pca is not None)
    if stage == "view":
        return len(views(job_of(run)))
    if stage in ("sketch", "kmeans", "candidate"):
        if run.record("draw", ONE) is None:
            return None
        grid = candidates(run)
        return {
            "sketch": len(sketch_items(run)),
            "kmeans": len({each.n_components for each in grid}),
            "candidate": len(grid),
        }[stage]
    return 1


def render(status: Status, *, bars: bool) -> RenderableType:
    """The status as rich text; bars are for a terminal, where a pipe wants plain columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage")
    if bars:
        table.add_column("", width=_BAR)
    table.add_column("done", justify="right")
    table.add_column("of", justify="right")
    for stage in status.stages:
        share = stage.done / stage.total if stage.total else 0.0
        bar = [Bar(1.0, 0.0, share, width=_BAR, color="green" if share >= 1.0 else "blue")] if bars else []
        table.add_row(stage.name, *bar, f"{stage.done:,}", "?" if stage.total is None else f"{stage.total:,}")
    return Group(
        table,
        Text("finished" if status.finished else "not finished: run the job again to go on"),
        *([Text(f"last error: {status.last_error}")] if status.last_error else []),
    )
