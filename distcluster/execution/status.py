"""How far a run is."""

from dataclasses import dataclass

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distcluster.errors import JobError
from distcluster.stages.flow import is_finished, lines
from distcluster.storage.run import Run
from distcluster.storage.urls import public_url

_BAR = 24  # columns


@dataclass(frozen=True, slots=True)
class StageStatus:
    """A line of stages: items committed, of how many; None where earlier stages decide and have not run."""

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
    if run.find_settings() is None:
        raise JobError(f"there is no run at {public_url(run.url)}.")
    stages = []
    for line, stage in lines().items():
        items = stage.items(run)
        if items is None or len(items) > 0:
            done = len(run.records.committed(stage.name))
            stages.append(StageStatus(line, done, None if items is None else len(items)))
    return Status(stages, is_finished(run), run.last_error())


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
