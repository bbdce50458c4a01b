"""How far a run is, and how fast: read from its store alone."""

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from distcluster.errors import JobError
from distcluster.stages.flow import lines, stages_of
from distcluster.stages.stage import Stage
from distcluster.storage.array_store import at_once
from distcluster.storage.lease import Holder, find_writer, heard_from
from distcluster.storage.run import Run

_CLOCKS = timedelta(seconds=5)  # that the store's and the writer's may differ by
_SILENT_LEASES = 1.0  # lengths of a lease without a renewal, after which a writer elsewhere may have died


@dataclass(frozen=True, slots=True)
class StageStatus:
    """A line of stages: items committed, of how many; None where earlier stages decide and have not run."""

    name: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Live:
    """The process that writes to a run, and what it is doing.

    Attributes
    ----------
    host, user : str
    pid : int
    since : str
        When it took the run, UTC.
    heard_seconds : float or None
        Since it last renewed its lease.
    is_alive : bool
        Its process is there; of another machine's, its lease has been renewed in its time.
    """

    host: str
    user: str
    pid: int
    since: str
    heard_seconds: float | None
    is_alive: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """A stage under way.

    Attributes
    ----------
    stage : str
    per_second : float or None
        Rows, or tasks; None before two have been committed.
    unit : "rows" or "tasks"
    seconds_left : float or None
        Of this stage, at that pace.
    """

    stage: str
    per_second: float | None
    unit: Literal["rows", "tasks"]
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """A run: its stages in order, whether it is finished, the last error, and the process that writes to it, if any."""

    stages: list[StageStatus]
    finished: bool
    last_error: str
    writer: str = ""
    live: Live | None = None
    paces: tuple[Pace, ...] = ()


def read_status(url: str, now: datetime | None = None) -> Status:
    """Read how far a run is.

    Parameters
    ----------
    url : str
    now : datetime, optional
        By default this machine's.

    Raises
    ------
    JobError
        When there is no run.
    """
    run = Run(url)
    if run.find_settings() is None:
        raise JobError(f"there is no run at {run.url}.")
    of_run = {stage.name for stage in stages_of(run)}
    wanted = {line: stage for line, stage in lines().items() if stage.name in of_run}
    found = at_once(lambda line: _status_of(run, line, wanted[line]), wanted)
    stages = [each for each in found if each.total != 0]
    open_stages = {each.name: wanted[each.name] for each in stages if each.done != each.total}
    finished = not any(stage.is_result for stage in open_stages.values())
    writer, last_error = find_writer(run.store), run.last_error()
    if writer is None:
        return Status(stages, finished, last_error)
    live = _live(run, writer, now or datetime.now(UTC))
    paces = tuple(_paces(run, writer, open_stages, {each.name: each for each in stages}))
    return Status(stages, finished, last_error, str(writer), live, paces)


def _status_of(run: Run, line: str, stage: Stage[Any]) -> StageStatus:
    items = stage.items(run)
    if items is None:
        return StageStatus(line, len(stage.committed(run)), None)
    # A person may have had more candidates fitted than the grid has.
    done = {str(item) for item in items} & stage.committed(run).keys() if len(items) else ()
    return StageStatus(line, len(done), len(items))


def _live(run: Run, writer: Holder, now: datetime) -> Live:
    heard = heard_from(run.store, now)
    renews = heard is not None and heard <= _SILENT_LEASES * writer.seconds
    lives = writer.lives()
    return Live(writer.host, writer.user, writer.pid, writer.since, heard, renews if lives is None else lives)


def _paces(run: Run, writer: Holder, stages: dict[str, Stage[Any]], counts: dict[str, StageStatus]) -> list[Pace]:
    """The stages that this writer has begun, else the first that is not complete."""
    since = datetime.strptime(writer.since, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC) - _CLOCKS
    found = []
    for line, stage in stages.items():
        times = sorted(
            each["last_modified"]
            for each in run.store.listed(f"commit/{stage.name}")
            if not each["path"].endswith("zarr.json") and each["last_modified"] >= since
        )
        if times:
            found.append(_pace(run, line, stage, times, counts[line]))
    return found or [Pace(line, None, stage.unit, None) for line, stage in itertools.islice(stages.items(), 1)]


def _pace(run: Run, line: str, stage: Stage[Any], times: list[datetime], count: StageStatus) -> Pace:
    seconds = (times[-1] - times[0]).total_seconds()
    if seconds <= 0:
        return Pace(line, None, stage.unit, None)
    items = (len(times) - 1) / seconds
    left = None if count.total is None else (count.total - count.done) / items
    size = run.partitioning.partition_rows if stage.unit == "rows" else 1
    return Pace(line, items * size, stage.unit, left)
