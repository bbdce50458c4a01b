"""When each stage of a run committed, and what its tasks took, from its records."""

from dataclasses import dataclass

from distcluster.stages.flow import STAGES
from distcluster.storage.array_store import at_once
from distcluster.storage.records import record_key
from distcluster.storage.run import Run


@dataclass(frozen=True, slots=True)
class StageTime:
    """A stage's first and last commit, in seconds after the run's first one, their number, and all tasks' seconds."""

    name: str
    first: float
    last: float
    commits: int
    task_seconds: float


def stage_times(run: Run) -> list[StageTime]:
    """The stages in the order in which they ended.

    A run that was stopped and resumed shows the pause, one that was copied the times of the copy.
    """
    written = {item["path"]: item["last_modified"].timestamp() for item in run.store.listed("commit")}
    times: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    own = [stage for stage in STAGES if not stage.on_request and run.holder(stage.name) is run]
    for stage, records in zip(own, at_once(run.records.of_stage, [stage.name for stage in own]), strict=True):
        if records:
            name = stage.shown_as
            times.setdefault(name, []).extend(written[record_key(stage.name, item)] for item in records)
            seconds[name] = seconds.get(name, 0.0) + sum(each.seconds for each in records.values())
    start = min((time for each in times.values() for time in each), default=0.0)
    stages = [
        StageTime(name, min(each) - start, max(each) - start, len(each), seconds[name]) for name, each in times.items()
    ]
    return sorted(stages, key=lambda stage: (stage.last, stage.first))
