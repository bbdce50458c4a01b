"""What every stage's task is: a run opened once a process, one thread, and what other tasks have committed."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

import numpy.typing as npt

from distcluster.environment import differences, environment, pin_to_one_thread
from distcluster.errors import CorruptError, EnvironmentMismatchError
from distcluster.job import Job
from distcluster.job_file import parse_job
from distcluster.storage.run import Run

P = ParamSpec("P")

ONE = "all"
"""The item of a stage that is one task."""

PARAMETERS = ("weights", "means", "covariances")
"""The arrays of a mixture."""

PARTITION_STAGES = ("scan", "neighbours", "project", "score", "silhouette", "assign", "relabel")
STAGES = (
    "scan", "draw", "pca", "index", "fit", "neighbours", "view", "sketch", "project", "kmeans", "candidate", "grid",
    "replicate", "recluster", "score", "clusters", "silhouette", "select", "mixture", "quality", "hierarchy", "assign",
    "cluster",
)  # fmt: skip
"""In the order of the flow; "cluster" is the last, and a run that has it is finished. Each iteration of the refinement
 (``refine_stages``) adds two between "select" and "mixture"."""


@dataclass(frozen=True, slots=True)
class RunRef:
    """Where a run is and which one: a worker must never mistake a new run at an old place for the old one."""

    url: str
    run_id: str


@functools.lru_cache(maxsize=8)
def open_run(ref: RunRef) -> Run:
    """Open a run once per process, and refuse it when this process would give other bits.

    Raises
    ------
    EnvironmentMismatchError
        Naming every package version and instruction level that differs.
    """
    run = Run(ref.url)
    if run.attributes["run_id"] != ref.run_id:
        raise RuntimeError(f"{ref.url} now holds another run than the one that was started")
    found = differences(run.attributes["environment"], environment())
    if found:
        raise EnvironmentMismatchError("this worker differs from what the run was made with: " + "; ".join(found))
    return run


def task(function: Callable[Concatenate[Run, P], None]) -> Callable[Concatenate[RunRef, P], None]:
    """Open the run, and compute in one thread."""

    @functools.wraps(function)
    def task(ref: RunRef, /, *args: P.args, **kwargs: P.kwargs) -> None:
        pin_to_one_thread()
        function(open_run(ref), *args, **kwargs)

    return task


def job_of(run: Run) -> Job:
    """The job that a run was made for."""
    return parse_job(run.attributes["job"])


@functools.lru_cache(maxsize=128)
def read_cached(ref: RunRef, stage: str, item: str, path: str, _commit_id: str) -> npt.NDArray[Any]:
    """An array of a model, read once per process and commit."""
    return open_run(ref).read_model(stage, item, only=path)[path]


@dataclass(frozen=True, slots=True)
class _Model:
    """The arrays that an item of a stage has published, each read when it is asked for: draws are large."""

    ref: RunRef
    stage: str
    item: str
    commit_id: str

    def __getitem__(self, path: str) -> Any:
        return read_cached(self.ref, self.stage, self.item, path, self.commit_id)


def model_of(run: Run, stage: str, item: str = ONE) -> _Model:
    """The arrays that an item of a stage has published."""
    return _Model(RunRef(run.url, run.attributes["run_id"]), stage, item, record_of(run, stage, item)["id"])


def record_of(run: Run, stage: str, item: str = ONE) -> dict[str, Any]:
    """What an item of a stage has committed."""
    record = run.record(stage, item)
    if record is None:
        raise CorruptError(f"{stage} {item} is not committed", stage, item)
    return record
