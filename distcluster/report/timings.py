"""When each stage of a run committed, from the times of its records."""

from dataclasses import dataclass

from distcluster.stages.flow import STAGES
from distcluster.storage.run import Run


@dataclass(frozen=True, slots=True)
class StageTime:
    """A stage's first and last commit, in seconds after the run's first one, and its number of commits."""

    name: str
    first: float
    last: float
    commits: int


def stage_times(run: Run) -> list[StageTime]:
    """The stages in the order in which they ended.

    A run that was stopped and resumed shows the pause, one that was copied the times of the copy.
    """
    times: dict[str, list[float]] = {}
    names = {stage.name: stage.shown_as for stage in STAGES}
    for item in run.store.listed("commit"):
        stage, _, record = item["path"].removeprefix("commit/").partition("/")
        if stage in names and record.endswith(".json"):
            times.setdefault(names[stage], []).append(item["last_modified"].timestamp())
    start = min((time for each in times.values() for time in each), default=0.0)
    stages = [StageTime(name, min(each) - start, max(each) - start, len(each)) for name, each in times.items()]
    return sorted(stages, key=lambda stage: (stage.last, stage.first))
