"""How far a run is."""

from dataclasses import dataclass

from distcluster.errors import JobError
from distcluster.stages.flow import is_finished, lines, stages_of
from distcluster.storage.lease import find_writer
from distcluster.storage.run import Run


@dataclass(frozen=True, slots=True)
class StageStatus:
    """A line of stages: items committed, of how many; None where earlier stages decide and have not run."""

    name: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """A run: its stages in order, whether it is finished, the last error, and the process that writes to it, if any."""

    stages: list[StageStatus]
    finished: bool
    last_error: str
    writer: str = ""


def read_status(url: str) -> Status:
    """Read how far a run is.

    Raises
    ------
    JobError
        When there is no run.
    """
    run = Run(url)
    if run.find_settings() is None:
        raise JobError(f"there is no run at {run.url}.")
    stages, wanted = [], stages_of(run)
    for line, stage in lines().items():
        items = stage.items(run) if stage in wanted else []
        if items is None or len(items) > 0:
            done = set(stage.committed(run))
            if items is not None:  # a person may have had more candidates fitted than the grid has
                done &= {str(item) for item in items}
            stages.append(StageStatus(line, len(done), None if items is None else len(items)))
    writer = find_writer(run.store)
    return Status(stages, is_finished(run), run.last_error(), str(writer) if writer is not None else "")
