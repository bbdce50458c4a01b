"""Run a job, or resume it: the flow of stages, each a set of independent tasks on the cluster."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import zarr
from distributed import Client
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from distcluster.environment import differences, environment
from distcluster.errors import CorruptError, EnvironmentMismatchError, JobError, JobFailedError, SchedulerLostError
from distcluster.execution.connect import connect, scheduler_address
from distcluster.execution.progress import Reporter, on_dashboard, performance_saved
from distcluster.job import DeployTable, Job, require_extras
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.partition import groups
from distcluster.plan import choose_partitioning, make_plan
from distcluster.stages import choosing, fitting, labelling, projecting, refining, relabelling, replicating, subsampling
from distcluster.stages import context as task
from distcluster.stages.context import ONE, PARTITION_STAGES, STAGES, RunRef
from distcluster.stages.labelling import is_finished
from distcluster.storage.inputs import (
    absolute_url,
    count_labels,
    input_version,
    open_input,
    public_url,
    refuse_nested,
)
from distcluster.storage.items import require_items
from distcluster.storage.run import FORMAT_VERSION, Run

log = logging.getLogger("distcluster")

_WINDOW = 64  # futures a stage has under way at most; the driver's memory does not grow with the input
_LAST = ("replicate", "recluster")  # stages that give way: nothing but the verdict waits for them
_REPAIRS = 20  # times that lost or damaged data is made again before giving up


# --- before any work --------------------------------------------------------------------------------------------


def prepare_run(job: Job) -> Run:
    """Check a job against its input and output, and make the run or open the one that it resumes.

    Raises
    ------
    JobError
        When the input cannot be clustered, or the output holds something else or was made for another job, input or
        environment, naming every difference. Nothing has been written then.
    """
    job = resolve(job)
    require_extras(job.report)
    if job.report.items is not None:
        require_items(job.report.items, job.report.item_column)
    refuse_nested(job.input.url, job.output.url)
    array = open_input(job.input.url, job.input.array)
    _refuse_other_lengths(job, array.shape[0])
    make_plan(job, array.shape, array.dtype.itemsize)  # type: ignore[arg-type]
    run = Run(job.output.url)
    if run.read_attributes() is None:
        run.create(_new_attributes(job, array))
    found = _differences(run, job, array)
    if found and run.record("draw", ONE) is None:
        # Nothing but a scan: a job that was refused for its input, and has been mended since.
        run.erase()
        run.create(_new_attributes(job, array))
    elif found:
        raise JobError(
            f"the output {public_url(run.url)} was made for something else:\n"
            + "\n".join(f"  {line}" for line in found)
            + "\nUndo the change, or choose another output."
        )
    run.ensure_arrays(labelling.row_arrays(run))
    return run


def _refuse_other_lengths(job: Job, n_rows: int) -> None:
    counts = {public_url(url): count_labels(url) for url in job.report.labels}
    found = [f"{url} has {count:,} labels" for url, count in counts.items() if count != n_rows]
    if found:
        raise JobError(f"report.labels: the input has {n_rows:,} rows, but {'; '.join(found)}: one a row is needed.")


def resolve(job: Job) -> Job:
    """The job with absolute local paths, as workers elsewhere on this machine need them."""
    return job.model_copy(
        update={
            "input": job.input.model_copy(update={"url": absolute_url(job.input.url)}),
            "output": job.output.model_copy(update={"url": absolute_url(job.output.url)}),
        }
    )


def _new_attributes(job: Job, array: zarr.Array[Any]) -> dict[str, Any]:
    n_rows, n_features = array.shape
    parts = choose_partitioning(job, n_rows, n_features)
    return {
        "format_version": FORMAT_VERSION,
        "run_id": uuid.uuid4().hex,
        "environment": environment(),
        "job": _stored_job(job),
        "input": _input_facts(array),
        "input_version": input_version(job.input.url),
        "draw_bound": subsampling.new_draw_bound(job, n_rows),
        "partitioning": {
            "n_rows": n_rows,
            "block_rows": parts.block_rows,
            "partition_rows": parts.partition_rows,
        },
        "dropped": [],
    }


def _stored_job(job: Job) -> dict[str, Any]:
    """What results depend on, and where input and output are; URLs without credentials."""
    stored = job.model_dump(mode="json", exclude={"deploy", "report"})
    for table in ("input", "output"):
        stored[table]["url"] = public_url(stored[table]["url"])
    return stored


def _input_facts(array: zarr.Array[Any]) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _differences(run: Run, job: Job, array: zarr.Array[Any]) -> list[str]:
    """What the run was made for and is not so now; the input's content is compared later, by checksum."""
    was, now = run.attributes["job"], _stored_job(job)
    seen = _input_facts(array)
    return [
        *(
            f"{table}.{key}: {was[table].get(key)!r} in the run, {value!r} in the job"
            for table, keys in now.items()
            for key, value in keys.items()
            if key not in ("url", "partition_rows") and was[table].get(key) != value
        ),
        *(
            f"the input's {key}: {run.attributes['input'][key]} in the run, {seen[key]} now"
            for key in seen
            if run.attributes["input"][key] != seen[key]
        ),
        *differences(run.attributes["environment"], environment()),
    ]


# --- the flow ---------------------------------------------------------------------------------------------------


def run_job(job: Job, reporter: Reporter, *, verify: bool = False) -> Run:
    """Run a job to its end, resuming whatever its output already holds.

    Parameters
    ----------
    job : Job
    reporter : Reporter
    verify : bool
        Read everything that is already committed and compare checksums; what differs is made again.

    Raises
    ------
    JobError
        When job or input are wrong.
    JobFailedError
        When a task fails for good.
    SchedulerLostError
        When the cluster is gone; what was committed stays, and running again resumes.
    """
    if job.deploy.kind != "local":
        scheduler_address(job.deploy)  # before anything is written
    run = prepare_run(job)
    if not verify and is_finished(run) and _input_unchanged(run, job):
        return run
    try:
        asyncio.run(_run_job(run, resolve(job), reporter, verify))
    except Exception as error:
        cause = _leaves(error)[0] if isinstance(error, BaseExceptionGroup) else error
        run.note_error(f"{type(cause).__name__}: {cause}")
        raise cause from error.__cause__
    run.note_error("")
    return run


def _input_unchanged(run: Run, job: Job) -> bool:
    """Whether the input's objects are those that were last checked."""
    version = input_version(absolute_url(job.input.url))
    return version is not None and version == run.attributes["input_version"]


async def _run_job(run: Run, job: Job, reporter: Reporter, verify: bool) -> None:
    async with (
        connect(job.deploy) as client,
        performance_saved(run, job.report.performance),
        on_dashboard(client, run, reporter) as reporter,
    ):
        stages = _Stages(client, run, reporter)
        try:
            await stages.check_workers(job)
            if verify:
                await stages.verify()
            for stages.attempt in range(_REPAIRS):
                try:
                    await _flow(run, job, stages)
                    break
                except* CorruptError as group:
                    for error in _leaves(group):
                        log.warning("%s; it is made again", error)
                        run.discard(error.stage, error.item)
            else:
                raise JobFailedError("data that was written keeps being lost or damaged: check the storage")
        except* (FutureCancelledError, CommClosedError) as group:
            raise SchedulerLostError(
                "the Dask scheduler was lost. What was committed stays: run again to resume."
            ) from group


async def _flow(run: Run, job: Job, stages: "_Stages") -> None:
    """The whole job; everything that is already committed is skipped."""
    parts = range(len(run.partitioning))
    if not _input_unchanged(run, job) and run.committed("scan"):
        if run.record("draw", ONE) is None:
            run.forget("scan")
        else:
            await stages.each("check input", subsampling.check_input, parts)
        run.update_attributes(input_version=input_version(job.input.url))
    await stages.each("scan", subsampling.scan, parts)
    _refuse_invalid_rows(run, job)
    await stages.one("draw", subsampling.draw)
    _refuse_few_distinct_rows(run, job)
    run.drop("partial/scan")
    if job.projection.pca is not None:
        await stages.driven("pca", _fit_pca)
    await stages.one("index", projecting.index)
    async with asyncio.TaskGroup() as together:
        # Workers take tasks in this order; the neighbours do not wait for the fit, nor the grid for the views.
        fitted = together.create_task(stages.one("fit", projecting.fit))
        found = together.create_task(stages.each("neighbours", projecting.neighbours, parts))
        viewed = together.create_task(stages.each("view", projecting.view, projecting.views(job)))
        gridded = together.create_task(_fit_grid(run, stages, after=fitted))
        together.create_task(_replicate(run, stages, after=gridded))
        together.create_task(_project(run, stages, after=asyncio.gather(fitted, found, viewed)))
    run.drop("neighbours")
    await stages.each("score", choosing.score, parts)
    await stages.one("clusters", choosing.clusters)
    await stages.each("silhouette", choosing.silhouette, parts)
    await stages.one("select", choosing.select_candidate)
    await _refine(run, stages)
    async with asyncio.TaskGroup() as together:
        together.create_task(stages.one("quality", labelling.quality))
        together.create_task(stages.one("hierarchy", labelling.hierarchy))
        together.create_task(stages.each("assign", labelling.assign, parts))
    await stages.one("cluster", labelling.cluster)
    if not is_finished(run):
        raise JobFailedError("what was committed has gone missing during the run: check the storage, then run again")


async def _fit_grid(run: Run, stages: "_Stages", after: Awaitable[Any]) -> None:
    await after
    await stages.each("sketch", projecting.sketch, projecting.sketch_items(run))
    while True:
        candidates = fitting.candidates(run)
        await stages.each("kmeans", fitting.kmeans, sorted({each.n_components for each in candidates}, reverse=True))
        await stages.each("candidate", fitting.candidate, sorted(candidates, key=lambda each: -each.n_components))
        number = fitting.grid_round(run)
        if number is None:
            return
        await stages.each("grid", fitting.extend_grid, [number])


async def _replicate(run: Run, stages: "_Stages", after: Awaitable[Any]) -> None:
    await stages.each("replicate", replicating.replicate, replicating.replicates(run))
    await after
    await stages.each("recluster", replicating.recluster, replicating.replicates(run))


async def _project(run: Run, stages: "_Stages", after: Awaitable[Any]) -> None:
    await after
    await stages.each("project", projecting.project_rows, range(len(run.partitioning)))


def _fit_pca(ref: RunRef) -> None:
    from distcluster.execution.pca import (
        principal_components,  # dask-ml takes a second to import, and few jobs ask for it
    )

    job = task.job_of(run := task.open_run(ref))
    assert job.projection.pca is not None
    projecting.keep_pca(run, *principal_components(ref, job.projection.pca, job.sample.seed))


async def _refine(run: Run, stages: "_Stages") -> None:
    """EM over all rows from the chosen candidate, its parameters committed after every iteration."""
    iterations, n_groups = 0, len(groups(run.partitioning))
    while refining.has_step(run, iterations):
        iterations += 1
    if not refining.is_refined(run, iterations):
        with stages.shown("refine", refining.refine_iterations(run) - iterations) as advance:
            while not refining.is_refined(run, iterations):
                expect, maximise = refining.refine_stages(iterations)
                await stages.each(expect, partial(refining.expect, iteration=iterations), range(n_groups), quiet=True)
                await stages.each(maximise, partial(refining.take_step, iteration=iterations), [ONE], quiet=True)
                iterations += 1
                advance()
    await stages.one("mixture", partial(refining.publish, iterations=iterations))


def _refuse_invalid_rows(run: Run, job: Job) -> None:
    facts = [record["facts"] for record in run.records("scan").values()]
    n_invalid = sum(each["n_invalid"] for each in facts)
    if n_invalid == 0:
        return
    first = sorted(row for each in facts for row in each["first_invalid"])[:5]
    kinds = "NaN or infinite values" + (", or only zeros" if job.projection.metric == "cosine" else "")
    message = f"{n_invalid:,} of {run.partitioning.n_rows:,} rows hold {kinds}; the first: {', '.join(map(str, first))}"
    if job.input.on_invalid == "error":
        raise JobError(f'{message}. Mend them, or set input.on_invalid = "skip" to give them label -1.')
    log.info("%s; they get label -1", message)


def _refuse_few_distinct_rows(run: Run, job: Job) -> None:
    record = run.record("draw", ONE)
    assert record is not None
    distinct, k = record["facts"]["distinct"], job.projection.n_neighbors
    if distinct <= k + 1:
        raise JobError(
            f"the sample's {record['facts']['sample']:,} rows hold only {distinct:,} distinct ones, but n_neighbors = "
            f"{k} needs at least {k + 2}: the input is (nearly) constant, or sample.rows is too small."
        )


# --- after a run ------------------------------------------------------------------------------------------------


def relabel_run(url: str, wanted: Candidate, deploy: DeployTable, reporter: Reporter) -> Run:
    """Label all rows of a finished run by another candidate of its grid, beside the labels that it has.

    Raises
    ------
    JobError
        When there is no finished run, or its grid has no such candidate.
    """
    run = Run(url)
    if not is_finished(run):
        raise JobError(f"the run {public_url(run.url)} is not finished: run its job to the end first.")
    fitted = fitting.fitted_candidates(run)
    if wanted not in fitted:
        raise JobError(
            f"the grid of {public_url(run.url)} has no fitted candidate {wanted}; it has: "
            f"{', '.join(map(str, fitted))}."
        )
    run.ensure_arrays(relabelling.relabel_arrays(run, wanted))
    asyncio.run(_relabel(run, wanted, deploy, reporter))
    return run


async def _relabel(run: Run, wanted: Candidate, deploy: DeployTable, reporter: Reporter) -> None:
    rows, one = relabelling.relabel_stages(wanted)
    async with connect(deploy) as client:
        reporter.dashboard(client.dashboard_link)
        stages = _Stages(client, run, reporter)
        await stages.each(rows, partial(relabelling.relabel, wanted=wanted), range(len(run.partitioning)))
        await stages.one(one, partial(relabelling.crosswalk, wanted=wanted))


# --- stages -----------------------------------------------------------------------------------------------------


class _Stages:
    """Runs stages of one run on one cluster, a bounded number of futures at a time."""

    def __init__(self, client: Client, run: Run, reporter: Reporter) -> None:
        self._client = client
        self._run = run
        self._ref = RunRef(run.url, run.attributes["run_id"])
        self._reporter = reporter
        self.attempt = 0
        """Part of every key: Dask would answer a failed task that is submitted again with its old error."""

    async def check_workers(self, job: Job) -> None:
        """Refuse workers that compute other bits, or do not see the input or the output."""
        probe = self._run.put_probe()
        try:
            answers = await self._client.run(_look, self._run.url, probe, job.input.url, job.input.array)
        finally:
            self._run.remove(probe)
        found = [
            f"{worker}: {line}"
            for worker, (facts, problems) in sorted(answers.items())
            for line in [*differences(self._run.attributes["environment"], facts), *problems]
        ]
        if found:
            raise JobError("these workers cannot take part:\n" + "\n".join(f"  {line}" for line in found))

    async def one(self, stage: str, function: Callable[..., None]) -> None:
        """Run a stage of a single task."""
        await self.each(stage, function, [ONE])

    async def driven(self, stage: str, function: Callable[[RunRef], None]) -> None:
        """Run a stage whose function computes Dask collections, in a thread with a client that it may block."""
        if self._run.record(stage, ONE) is not None:
            return

        def drive() -> None:
            with Client(self._client.scheduler.address, security=self._client.security) as client, client.as_current():
                function(self._ref)

        with self.shown(stage, 1) as advance:
            await asyncio.to_thread(drive)
            advance()

    @contextmanager
    def shown(self, stage: str, total: int) -> Iterator[Callable[[], None]]:
        """Report quiet stages as one; what is yielded is called after every step of it."""
        steps = 0

        def advance() -> None:
            nonlocal steps
            steps += 1
            self._reporter.advance(stage, 1)

        self._reporter.start(stage, total, 0, "steps")
        started = time.perf_counter()
        yield advance
        seconds = time.perf_counter() - started
        self._reporter.finish(stage, seconds)
        log.info("%s: %d steps in %.1f s", stage, steps, seconds)

    async def each(
        self, stage: str, function: Callable[..., None], items: Iterable[Any], *, quiet: bool = False
    ) -> None:
        """Run a task for every item that has not been committed; a quiet stage is reported by its caller."""
        items = list(items)
        committed = self._run.committed(stage)
        waiting = [item for item in items if str(item) not in committed]
        of_rows = stage.partition("-")[0] in PARTITION_STAGES or function is subsampling.check_input
        total = sum(self._weight(item, of_rows) for item in items)
        left = sum(self._weight(item, of_rows) for item in waiting)
        if not waiting:
            return
        if not quiet:
            self._reporter.start(stage, total, total - left, "rows" if of_rows else "tasks")
        started = time.perf_counter()
        queue = iter(waiting)
        priority = -1 if stage in _LAST else 0

        async def lane() -> None:
            for item in queue:
                arguments = () if item == ONE else (item,)
                key = (f"{stage.replace(' ', '-')}-{self._ref.run_id[:8]}", str(item), self.attempt)
                try:
                    await self._client.submit(function, self._ref, *arguments, key=key, priority=priority, pure=False)
                except EnvironmentMismatchError as error:
                    raise JobFailedError(str(error)) from error
                except KilledWorker as error:
                    raise JobFailedError(
                        f"{stage} {item} killed every worker that tried it, most likely for lack of memory. Give "
                        f"workers more (deploy.memory_limit; in pods deploy.worker_memory), or make "
                        f"assign.partition_rows smaller."
                    ) from error
                if not quiet:
                    self._reporter.advance(stage, self._weight(item, of_rows))

        async with asyncio.TaskGroup() as lanes:
            for _ in range(min(_WINDOW, len(waiting))):
                lanes.create_task(lane())
        seconds = time.perf_counter() - started
        if quiet:
            return
        self._reporter.finish(stage, seconds)
        unit = "rows" if of_rows else "tasks"
        log.info("%s: %d %s in %.1f s (%.0f %s/s)", stage, left, unit, seconds, left / seconds, unit)

    async def verify(self) -> None:
        """Read back everything committed, and forget what is damaged."""
        refined = [stage for i in range(refining.refine_iterations(self._run)) for stage in refining.refine_stages(i)]
        for stage in [*STAGES, *refined]:
            items = list(self._run.committed(stage))
            answers = await self._client.gather(
                self._client.map(_verified, [self._ref] * len(items), [stage] * len(items), items, pure=False)
            )
            for item, intact in zip(items, answers, strict=True):
                if not intact:
                    log.warning("%s %s is damaged; it is made again", stage, item)
                    self._run.discard(stage, item)

    def _weight(self, item: Any, of_rows: bool) -> int:
        return len(self._run.partitioning[item]) if of_rows else 1


def _look(run_url: str, probe: str, input_url: str, array: str) -> tuple[dict[str, str], list[str]]:
    """On a worker: its environment, and what it cannot see."""
    problems = []
    if not Run(run_url).has_object(probe):
        problems.append(f"does not see the output {public_url(run_url)}: it must be on storage that all machines share")
    try:
        open_input(input_url, array)
    except JobError as error:
        problems.append(str(error))
    return environment(), problems


def _verified(ref: RunRef, stage: str, item: str) -> bool:
    return Run(ref.url).verify(stage, item)


def _leaves(group: BaseExceptionGroup[Any]) -> list[Any]:
    """The exceptions of a group of groups, flat."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
