"""Runs the stages of one run on one cluster, a bounded number of tasks at a time."""

import asyncio
import itertools
import logging
import operator
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from distributed import Client, get_worker
from distributed.scheduler import KilledWorker

from distcluster.errors import CorruptError, JobFailedError, StorageError
from distcluster.execution.progress import Counts, Reporter
from distcluster.stages.context import commit, perform
from distcluster.stages.flow import STAGES, lines, stages_of
from distcluster.stages.stage import Output, Stage
from distcluster.storage.array_store import READERS
from distcluster.storage.records import Kept
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE
from distcluster.storage.settings import RunRef

log = logging.getLogger("distcluster")

MOST_TASKS = 4_000
"""Dask's tasks of a stage, where it has more items and the cluster few threads: each costs the scheduler 3 to 5 ms."""

_STORAGE_TRIES = 3
_LANES_PER_THREAD = 2  # tasks of a stage under way for each thread of the cluster: one runs, one waits beside it
_LEAST_LANES = 64
_MANY = 1_000  # records that are new
_WIDENED_SECONDS = 5.0  # between two looks at how large the cluster is


class Runner:
    """Runs stages, skipping what is committed.

    Parameters
    ----------
    client : Client
        Asynchronous.
    run : Run
    reporter : Reporter
    counts : Counts, optional
        Is kept true; absent: nobody looks.
    """

    def __init__(self, client: Client, run: Run, reporter: Reporter, counts: Counts | None = None) -> None:
        self._client = client
        self._run = run
        self._reporter = reporter
        self._ahead: dict[str, Future[dict[str, Kept]]] = {}
        self._looked_in = -1  # the attempt
        self._counts = counts or Counts()

    async def each(self, stage: Stage[Any], items: Iterable[Any] | None = None) -> list[Any]:
        """Run a task for every item that has not been committed, then drop what nobody needs any more.

        Parameters
        ----------
        stage : Stage
        items : iterable, optional
            Absent: all items of the stage.

        Returns
        -------
        list
            What the tasks gave back: facts of a stage that only checks, else nothing.

        Raises
        ------
        JobFailedError
            When a task killed every worker that tried it.
        CorruptError
            When what decides the stage's items is not there any more.
        """
        decided = items if items is not None else stage.items(self._run)
        if decided is None:
            raise CorruptError(f"{stage.name} has lost what decides its items", stage.reads[0], ONE)
        items = list(decided)
        under = _folder(items)
        committed = await self._committed(stage, under) if stage.commits else {}
        waiting = [item for item in items if str(item) not in committed]
        answers: dict[str, Any] = {}
        collects = stage.commits and not under
        if waiting:
            if stage.commits:
                await asyncio.to_thread(self._run.records.discard_stale, stage.name, map(str, waiting))
            with self._reported(stage, items, waiting) as advance:
                await self._work(stage, waiting, answers, advance, committed if collects else None)
            if collects:
                self._run.records.collect(stage.name, committed | answers)
        for path in stage.drops:
            self._run.drop(path)
        return list(answers.values())

    async def _committed(self, stage: Stage[Any], under: str) -> dict[str, Kept]:
        """What a stage has committed; with the first all others are asked for, for a store answers in its own time.

        What they have written before is good until they run: nobody else writes to the run.
        """
        if self._looked_in != self._run.attempt:
            self._looked_in = self._run.attempt
            shown, threads = lines().values(), ThreadPoolExecutor(READERS)
            found = [each for each in stages_of(self._run) if each in shown]
            self._ahead = {each.name: threads.submit(each.committed, self._run) for each in found}
            threads.shutdown(wait=False)
        if under or stage.name not in self._ahead:
            return await asyncio.to_thread(stage.committed, self._run, under)
        return await asyncio.wrap_future(self._ahead.pop(stage.name))

    async def _work(
        self, stage: Stage[Any], waiting: list[Any], answers: dict[str, Any], advance: Callable[..., None],
        committed: dict[str, Kept] | None,
    ) -> None:  # fmt: skip
        """Run a task for every item that waits, in as many lanes as the cluster has work for.

        What ``committed`` and ``answers`` hold is collected whenever half as many are new: a run that is cut short has
        few records to read one by one.
        """
        collected = len(committed or {})
        n = min(len(waiting), max(MOST_TASKS, _LANES_PER_THREAD * await self._threads()))
        cuts = [len(waiting) * number // n for number in range(n + 1)]
        parcels = [waiting[first:stop] for first, stop in itertools.pairwise(cuts)]
        queue = iter(parcels)

        async def lane() -> None:
            nonlocal collected
            for parcel in queue:
                for item, answer in zip(parcel, await self._submit(stage, parcel), strict=True):
                    answers[str(item)] = answer
                    advance(item, answer)
                done = len(committed or {}) + len(answers)
                if committed is not None and done - collected >= max(_MANY, collected // 2):
                    collected = done
                    await asyncio.to_thread(self._run.records.collect, stage.name, committed | answers)
            widening.cancel()

        async def widen() -> None:
            opened = 0
            while opened < len(parcels):
                wanted = max(_LEAST_LANES, _LANES_PER_THREAD * await self._threads())
                for _ in range(opened, min(wanted, len(parcels))):
                    lanes.create_task(lane())
                opened = max(opened, wanted)
                await asyncio.sleep(_WIDENED_SECONDS)

        async with asyncio.TaskGroup() as lanes:
            widening = lanes.create_task(widen())

    async def _threads(self) -> int:
        return sum((await self._client.nthreads()).values())

    async def _submit(self, stage: Stage[Any], items: list[Any]) -> list[Any]:
        """Have items done, one after the other by one worker; one whose storage fails is tried again elsewhere."""
        answers: list[Any] = []
        failed: list[str] = []
        most = len(items)
        while left := items[len(answers) :][:most]:
            try:
                answers += await self._try(stage, left, failed)
                failed = []
            except StorageError as error:
                self._counts.retries[stage.shown_as] += 1
                failed.append(str(getattr(error, "worker", "")))
                if len(failed) == _STORAGE_TRIES:
                    raise
                log.warning("%s %s: %s It is tried again.", stage.name, left[0], error)
            except KilledWorker as error:
                if len(left) == 1:
                    raise JobFailedError(
                        f"{stage.name} {left[0]} killed every worker that tried it, most likely for lack of memory. "
                        f"Give workers more (deploy.memory_limit; in pods deploy.worker_memory), or make "
                        f"assign.partition_rows smaller."
                    ) from error
                self._counts.retries[stage.shown_as] += 1
                most = 1  # it is one of them, and the others are to be done
        return answers

    async def _try(self, stage: Stage[Any], items: list[Any], failed: list[str]) -> list[Any]:
        """Have a task do items; gives the answers of the first ones, of one at least."""
        ref = self._run.ref
        # No other's task; Dask would answer a failed one that is submitted again with its old error.
        key = (f"{stage.name}-{ref.run_id[:8]}", str(items[0]), len(items), ref.token, ref.attempt, len(failed))
        others = [worker for worker in await self._client.nthreads() if worker not in failed] if failed else None
        answers: list[Any] = await self._client.submit(
            _perform, ref, stage.name, stage.task, items, stage.commits, key=key, priority=stage.priority,
            workers=others or None, allow_other_workers=bool(others), pure=False,
        )  # fmt: skip
        return answers

    async def driven(self, stage: Stage[Any], function: Callable[[RunRef], Output[Any]]) -> None:
        """Run a stage whose function computes Dask collections, in a thread with a client that it may block."""
        if not stage.items(self._run) or ONE in stage.committed(self._run):
            return

        self._run.records.discard_stale(stage.name, [ONE])

        def drive() -> Output[Any]:
            with Client(self._client.scheduler.address, security=self._client.security) as client, client.as_current():
                return function(self._run.ref)

        with self._reported(stage, [ONE], [ONE]) as advance:
            began = time.perf_counter()
            output = await asyncio.to_thread(drive)
            advance(ONE, commit(self._run, stage.name, ONE, output, time.perf_counter() - began))

    # -- progress

    @contextmanager
    def steps(self, line: str, total: int) -> Iterator[Callable[[], None]]:
        """Report stages that share a line; what is yielded is called after every step of theirs."""
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            self._reporter.advance(line, 1)

        self._reporter.start(line, total, 0, "steps")
        started = time.perf_counter()
        yield advance
        seconds = time.perf_counter() - started
        self._reporter.finish(line, seconds)
        log.info("%s: %d steps in %.1f s", line, done, seconds)

    @contextmanager
    def _reported(self, stage: Stage[Any], items: list[Any], waiting: list[Any]) -> Iterator[Callable[..., None]]:
        """Count a stage's tasks, and report it unless it shares a line.

        What is yielded is called after each, with its item and what it has given.
        """
        self._counts.tasks_left[stage.name] = len(waiting if stage.task else self._run.partitioning)
        left = sum(self._weight(stage, item) for item in waiting)
        row = self._run.settings.input
        row_bytes = row.shape[1] * np.dtype(row.dtype).itemsize

        def advance(item: Any, answer: Any) -> None:
            self._counts.tasks_left[stage.name] -= 1
            if stage.reads_input:
                self._counts.bytes_read[stage.shown_as] += self._weight(stage, item) * row_bytes
            if isinstance(answer, Kept):
                self._counts.bytes_written[stage.shown_as] += sum(answer.record.objects.values())
            if not stage.line:
                self._reporter.advance(stage.name, self._weight(stage, item))

        if not stage.line:
            total = sum(self._weight(stage, item) for item in items)
            self._reporter.start(stage.name, total, total - left, stage.unit)
        started = time.perf_counter()
        try:
            yield advance
        finally:
            del self._counts.tasks_left[stage.name]
        if not stage.line:
            seconds = time.perf_counter() - started
            self._reporter.finish(stage.name, seconds)
            rate, unit = left / seconds, stage.unit
            log.info("%s: %d %s in %.1f s (%.0f %s/s)", stage.name, left, unit, seconds, rate, unit)

    def _weight(self, stage: Stage[Any], item: Any) -> int:
        return len(self._run.partitioning[operator.index(item)]) if stage.unit == "rows" else 1

    # -- verifying

    async def verify(self, makes: Collection[Stage[Any]]) -> None:
        """Read back everything committed, and forget what is damaged.

        Raises
        ------
        JobFailedError
            When that is of another stage than those that can be made again.
        """
        for stage in STAGES:
            if self._run.holder(stage.name) is not self._run:
                continue
            records = self._run.records.committed(stage.name)
            items = list(records)
            answers = await self._client.gather(
                self._client.map(_verified, [self._run.ref] * len(items), [stage.name] * len(items), items, pure=False)
            )
            for item, intact in zip(items, answers, strict=True):
                if not (intact and stage.fits(records[item].record.facts, item)):
                    if not (stage in makes or stage.on_request):  # else it is made again where it is asked for
                        raise JobFailedError(
                            f"{stage.name} {item} is damaged, and cannot be made again where rows were appended: "
                            f"restore {self._run.url} from a copy, or make a new run."
                        )
                    log.warning("%s %s is damaged; it is made again", stage.name, item)
                    self._run.records.discard(stage.name, item)


def _perform(ref: RunRef, stage: str, task: Callable[..., Output[Any]], items: list[Any], commits: bool) -> list[Any]:
    """On a worker: perform items of a stage until its storage fails; where it does for the first, say so and where."""
    answers: list[Any] = []
    for item in items:
        try:
            answers.append(perform(ref, stage, task, item, commits, threads=get_worker().state.nthreads))
        except StorageError as error:
            if answers:
                break
            error.worker = get_worker().address  # type: ignore[attr-defined]
            raise
    return answers


def _folder(items: list[Any]) -> str:
    """What nested items are all of: their records lie there, and no others need be read."""
    folders = {str(item).rpartition("/")[0] for item in items}
    return folders.pop() if len(folders) == 1 else ""


def _verified(ref: RunRef, stage: str, item: str) -> bool:
    return Run(ref.url).verify(stage, item)
