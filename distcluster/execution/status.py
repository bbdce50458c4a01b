"""How far a run is."""

from dataclasses import dataclass

from distcluster.errors import JobError
from distcluster.stages.context import ONE, PARTITION_STAGES, STAGES, job_of
from distcluster.stages.fitting import candidates, grid_round
from distcluster.stages.labelling import is_finished
from distcluster.stages.projecting import sketch_items, views
from distcluster.stages.replicating import replicates
from distcluster.storage.inputs import public_url
from distcluster.storage.run import Run


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
