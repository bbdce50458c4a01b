"""The real driver, graphs, records and store layout of large jobs on many workers, without the numbers.

    python -m benchmarks.scheduler [--rows 100000000] [--workers 128] [--large 1000000000] [--json FILE]

The driver is ``api.run_job`` as it is, the scheduler Dask's, and the store an S3 API in memory, 30 ms away. Workers are
Dask's, of one thread each, in one process; their tasks wait instead of computing (``benchmarks.simulated_workers``). So
a job of ``--rows`` is simulated from its first stage to its last, and the processor seconds that scheduler and driver
need for a task are taken.

Of a job of ``--large`` rows the store is filled with all records and the objects that they name, and what is serial in
it is measured: the tasks that reduce all partitions, which are the real ones, status, and resuming.

All processes share this machine, so that a stage can last longer here than it would. ``extrapolated`` has each stage of
the large job on 1,000 workers: the longest of what workers, scheduler and driver each need for it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import zarr
from distributed import Client

from benchmarks.object_store import asked, give, object_store
from benchmarks.servers import dask_cluster
from benchmarks.simulated_workers import LATENCY, REDUCES, TASKS
from benchmarks.template import FEATURES, MIXTURE, TEMPLATE, likeness, make_template, thin
from distcluster.api import run_job
from distcluster.environment import environment
from distcluster.execution.runner import MOST_TASKS
from distcluster.execution.status import read_status
from distcluster.job import Job
from distcluster.job_file import parse_job
from distcluster.prepare import check_job, prepared_run
from distcluster.stages.context import open_run
from distcluster.stages.flow import STAGES, is_finished, stages_of
from distcluster.stages.refining import REFINE_EXPECT, REFINE_MAXIMISE, expectations, iterations_done
from distcluster.stages.stage import Stage
from distcluster.storage import layout
from distcluster.storage.array_store import entity_tag
from distcluster.storage.records import Kept, record_key
from distcluster.storage.run import Run

LARGE_WORKERS = 1_000
BUSY = ("workers", "scheduler", "driver")
BESIDE = ("find_neighbours", "refine")  # others run at the same time; a line of many stages
LEAST_TASKS = 100  # of a stage that says what a task costs


@dataclass
class StageTime:
    """A stage as it was simulated: its tasks; seconds from its start to its end; processor seconds until then.

    The latter are also of stages that ran beside it.
    """

    tasks: int = 0
    seconds: float = 0.0
    scheduler_seconds: float = 0.0
    driver_seconds: float = 0.0


@dataclass
class Result:
    """All of it; seconds, bytes, requests by owner and kind."""

    rows: int
    workers: int
    large: int
    latency: float = LATENCY
    seconds: float = 0.0
    stages: dict[str, StageTime] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    scheduler_bytes: int = 0
    driver_bytes: int = 0
    partitions: int = 0
    reductions: dict[str, float] = field(default_factory=dict)
    afterwards: dict[str, float] = field(default_factory=dict)
    extrapolated: dict[str, dict[str, float]] = field(default_factory=dict)
    utilisation: float = 0.0
    environment: dict[str, str] = field(default_factory=environment)


class Watch:
    """A reporter that keeps when stages begin and end, and what scheduler and driver had worked until then."""

    def __init__(self, result: Result, scheduler: psutil.Process) -> None:
        self._result, self._scheduler, self._driver = result, scheduler, psutil.Process()
        self._begun: dict[str, tuple[float, float, float]] = {}

    def now(self) -> tuple[float, float, float]:
        """The time, and processor seconds of scheduler and driver."""
        scheduler, driver = (sum(each.cpu_times()[:2]) for each in (self._scheduler, self._driver))
        return time.perf_counter(), scheduler, driver

    def dashboard(self, link: str) -> None:
        """Not shown."""

    def start(self, stage: str, *_: object) -> None:
        """A stage begins."""
        self._begun[stage] = self.now()
        self._result.stages[stage] = StageTime()

    def advance(self, stage: str, *_: object) -> None:
        """An item is done."""
        self._result.stages[stage].tasks += 1

    def finish(self, stage: str, *_: object) -> None:
        """A stage ends."""
        took = [now - begun for now, begun in zip(self.now(), self._begun[stage], strict=True)]
        own, found = self._result.stages[stage], self._result
        own.seconds, own.scheduler_seconds, own.driver_seconds = took
        found.scheduler_bytes = max(found.scheduler_bytes, self._scheduler.memory_info().rss)
        found.driver_bytes = max(found.driver_bytes, self._driver.memory_info().rss)
        print(f"{stage}: {own.tasks} in {own.seconds:.1f} s, scheduler {own.scheduler_seconds:.1f}, "
              f"driver {own.driver_seconds:.1f}", flush=True)  # fmt: skip


class FirstTask(Exception):  # noqa: N818 - it is no error
    """Work is about to begin."""


class Until(Watch):
    """Ends a job where its first task would begin, and keeps when."""

    def __init__(self, result: Result, scheduler: psutil.Process) -> None:
        super().__init__(result, scheduler)
        self.began = self.reached = self.now()

    def start(self, *_: object) -> None:
        """All that comes before is over."""
        self.reached = self.now()
        raise FirstTask


@contextmanager
def simulated_workers(address: str, count: int) -> Iterator[None]:
    """So many of them at work."""
    argv = [sys.executable, "-m", "benchmarks.simulated_workers", address, str(count), TEMPLATE]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with Client(address) as client:
            client.wait_for_workers(count, timeout=600)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def job_of(address: str, directory: Path, rows: int) -> Job:
    """A job whose input has a shape, and no chunk that anybody reads."""
    place = directory / f"{rows}.zarr"
    zarr.create_array(str(place), shape=(rows, FEATURES), chunks=(16_384, FEATURES), dtype="float32")
    return parse_job({
        "input": {"url": str(place), "allow_missing_chunks": True}, "output": {"url": f"s3://bucket/{rows}"},
        "mixture": MIXTURE, "deploy": {"kind": "address", "address": address}, "report": {"write": "never"},
    })  # fmt: skip


def fill(job: Job, environ: dict[str, str]) -> int:
    """Have the store hold a finished run of a job; gives its partitions."""
    template = Run(TEMPLATE)
    with prepared_run(check_job(job)) as run:
        with template.writing(60):
            thin(template, run.partitioning)
        name = job.output.url.rpartition("/")[2]
        for stage in stages_of(run):
            records = {item: likeness(run, template, stage.name, item) for item in items_of(run, template, stage)}
            give(environ, [(f"{name}/{record_key(stage.name, item)}", asdict(record), like)
                           for item, (record, like) in records.items()])  # fmt: skip
            if stage is not REFINE_EXPECT:  # which the driver runs in parts
                tags = {each["path"]: entity_tag(each) for each in run.store.listed(f"commit/{stage.name}")}
                run.records.collect(
                    stage.name,
                    {item: Kept(tags[record_key(stage.name, item)], record) for item, (record, _) in records.items()},
                )
        run.note_error("")
        return len(run.partitioning)


def items_of(run: Run, template: Run, stage: Stage[Any]) -> list[str]:
    """All items of a stage, with as many iterations of the refinement as the template has."""
    iterations = range(iterations_done(template))
    if stage is REFINE_EXPECT:
        return [str(item) for each in iterations for item in expectations(run, each)]
    found = iterations if stage is REFINE_MAXIMISE else stage.items(run)
    return [str(item) for item in found or [] if stage.commits]


def measure_large(job: Job, result: Result, environ: dict[str, str], scheduler: psutil.Process) -> None:
    """What is serial in a job of many partitions."""
    asked(environ, latency=0.0)
    result.partitions = fill(job, environ)
    asked(environ, latency=LATENCY)
    url = str(job.output.url)

    def take(where: dict[str, float], what: str, function: Callable[[], object]) -> None:
        watch = Until(result, scheduler)
        function()
        keep(where, what, watch.began, watch.now())

    def keep(where: dict[str, float], what: str, began: tuple[float, ...], ended: tuple[float, ...]) -> None:
        where[what], where[f"{what}, processor"] = ended[0] - began[0], ended[2] - began[2]
        print(f"{what}: {where[what]:.1f} s, processor {where[f'{what}, processor']:.1f}", flush=True)

    def resume(what: str) -> None:
        until = Until(result, scheduler)
        with suppress(FirstTask):
            run_job(job, until)
            until.reached = until.now()
        keep(result.afterwards, what, until.began, until.reached)

    for stage, reduce in REDUCES.items():
        run = open_run(Run(url).ref)  # a process that has read nothing
        take(result.reductions, stage, lambda: reduce(run) if stage != "refine_maximise" else reduce(run, 0))  # noqa: B023
        open_run.cache_clear()
    for path in (layout.SCANNED, layout.NEIGHBOURS):
        with (run := Run(url)).writing(60):
            run.drop(path)
    take(result.afterwards, "finished: is_finished", lambda: is_finished(Run(url)))
    take(result.afterwards, "finished: status", lambda: read_status(url))
    resume("finished: resume")
    with (run := Run(url)).writing(60):
        kept = dict(list(run.records.kept("label_rows").items())[: result.partitions // 2])
        others = [str(each) for each in range(result.partitions) if str(each) not in kept]
        run.store.delete([record_key("label_rows", each) for each in others])
        run.records.collect("label_rows", dict(list(kept.items())[: len(kept) * 2 // 3]))  # as many as the driver may
        run.records.forget("summarise_clusters")
    take(result.afterwards, "half labelled: status", lambda: read_status(url))
    resume("half labelled: resume, to the first task")


def extrapolate(job: Job, result: Result) -> None:
    """The stages over all rows of the large job on 1,000 workers, one iteration of the refinement."""
    run = Run(job.output.url)
    alone = [stage for name, stage in result.stages.items() if name not in BESIDE and stage.tasks >= LEAST_TASKS]
    done = sum(each.tasks for each in alone)
    of_scheduler = sum(each.scheduler_seconds for each in alone) / done
    of_driver = sum(each.driver_seconds for each in alone) / done
    for stage in STAGES:
        if (of := TASKS.get(stage.name)) is None or of.row_seconds == 0.0:
            continue
        n = len(expectations(run, 0)) if stage is REFINE_EXPECT else result.partitions
        tasks = min(n, max(MOST_TASKS, 2 * LARGE_WORKERS))
        numbers = of.row_seconds * run.partitioning.n_rows
        turns = -(-tasks // LARGE_WORKERS) * -(-n // tasks)  # items that the busiest worker has
        needs = {
            "items": n,
            "tasks": tasks,
            "numbers": numbers / LARGE_WORKERS,
            "workers": turns * (numbers / n + of.trips * LATENCY) + of.first_trips * LATENCY,
            "scheduler": tasks * of_scheduler,
            "driver": n * of_driver,
        }
        result.extrapolated[stage.name] = {**needs, "seconds": max(needs[each] for each in BUSY)}
    seconds, numbers = (sum(each[what] for each in result.extrapolated.values()) for what in ("seconds", "numbers"))
    result.utilisation = numbers / seconds


def measure(arguments: argparse.Namespace, directory: Path) -> Result:
    """The flow of one job, then what is serial in the other."""
    result = Result(arguments.rows, arguments.workers, arguments.large)
    with ExitStack() as stack:
        environ = stack.enter_context(object_store(directory))
        stack.enter_context(patch.dict(os.environ, environ))
        make_template(directory)
        print("the template is made", flush=True)
        address, _ = stack.enter_context(dask_cluster(directory, 0))
        scheduler = next(each for each in psutil.Process().children() if "scheduler" in each.cmdline())
        if arguments.rows:
            with simulated_workers(address, arguments.workers):
                before = asked(environ, latency=LATENCY)
                began = time.perf_counter()
                run_job(job_of(address, directory, arguments.rows), Watch(result, scheduler))
                result.seconds = time.perf_counter() - began
                result.requests = dict(sorted((asked(environ) - before).items()))
        if arguments.large:
            stack.enter_context(simulated_workers(address, 1))
            job = job_of(address, directory, arguments.large)
            measure_large(job, result, environ, scheduler)
            if arguments.rows:
                extrapolate(job, result)
    return result


def main() -> None:
    """Simulate, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--workers", type=int, default=128)
    parser.add_argument("--large", type=int, default=1_000_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = measure(arguments, Path(directory))
    found = json.dumps(asdict(result), indent=2)
    print(found)
    if arguments.json:
        arguments.json.write_text(found + "\n")


if __name__ == "__main__":
    main()
