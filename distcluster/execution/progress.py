"""What a run tells while it works: a person by a reporter, and the page on the Dask dashboard by events."""

import asyncio
import contextlib
import html
import logging
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from distributed import Client, performance_report

from distcluster.execution.dashboard import PAGE, TOPIC, DashboardPage
from distcluster.execution.status import read_status
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.criteria import information_criteria
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.fitting import FIT_CANDIDATES, candidates
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.run import Run

log = logging.getLogger("distcluster")

_SECONDS = 0.5  # between events: a stage's tasks are many, and nobody reads faster
_LAST_SECONDS = 2  # to send the last one
_PERFORMANCE_SECONDS = 120  # for a report of a hundred thousand tasks, which is what a scheduler remembers


class Reporter(Protocol):
    """What a person is told while the job runs."""

    def dashboard(self, link: str) -> None:
        """The address of the Dask dashboard."""

    def start(self, stage: str, total: int, done: int, unit: str) -> None:
        """A stage begins: ``done`` of ``total`` rows (or tasks, as ``unit`` says) are already committed."""

    def advance(self, stage: str, amount: int) -> None:
        """A task of the stage has committed."""

    def finish(self, stage: str, seconds: float) -> None:
        """The stage is complete."""


class Listener(logging.Handler):
    """Passes on what a reporter is told, and hears it and this package's warnings, for those who write them down.

    Parameters
    ----------
    reporter : Reporter
    """

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter
        self._amounts: dict[str, tuple[int, str]] = {}

    def dashboard(self, link: str) -> None:
        """As ``Reporter``."""
        self._reporter.dashboard(link)

    def start(self, stage: str, total: int, done: int, unit: str) -> None:
        """As ``Reporter``."""
        self._reporter.start(stage, total, done, unit)
        self._amounts[stage] = (0, unit)

    def advance(self, stage: str, amount: int) -> None:
        """As ``Reporter``."""
        self._reporter.advance(stage, amount)
        done, unit = self._amounts[stage]
        self._amounts[stage] = (done + amount, unit)

    def finish(self, stage: str, seconds: float) -> None:
        """As ``Reporter``."""
        self._reporter.finish(stage, seconds)
        done, unit = self._amounts[stage]
        self.stage_done(f"{stage}: {done:,} {unit} in {seconds:.1f} s")

    def stage_done(self, sentence: str) -> None:
        """What a stage that is complete has done."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Counts:
    """What a session counts beside its progress.

    Attributes
    ----------
    tasks_left : Counter
        By stage under way, tasks that are not done.
    bytes_read : Counter
        By line, what its tasks have read of the input, decoded: of stages that read every row of it.
    bytes_written : Counter
        By line, what its tasks have committed.
    retries : Counter
        By line, tasks that were tried again: for a store that was away, memory, or damage.
    """

    tasks_left: Counter[str] = field(default_factory=Counter)
    bytes_read: Counter[str] = field(default_factory=Counter)
    bytes_written: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)


@contextlib.asynccontextmanager
async def on_dashboard(client: Client, run: Run, reporter: Reporter, counts: Counts) -> AsyncIterator[Reporter]:
    """Yield a reporter that tells the dashboard's page too, and the given one where the page cannot be installed."""
    installed = False
    with _worth_no_job(f"page /{PAGE} on the dashboard"):
        await client.register_plugin(DashboardPage())
        installed = True
    if not installed:
        reporter.dashboard(client.dashboard_link)
        yield reporter
        return
    reporter.dashboard(f"{client.dashboard_link.removesuffix('status')}{PAGE}")
    live = LiveReporter(client, Run(run.url), reporter, counts)
    sender = asyncio.create_task(live.send_on())
    try:
        yield live
    finally:
        live.end()
        with _worth_no_job(f"last word on the dashboard's page /{PAGE}"):
            await asyncio.wait_for(sender, _LAST_SECONDS)


@contextlib.asynccontextmanager
async def performance_saved(run: Run, wanted: bool) -> AsyncIterator[None]:
    """Save Dask's own performance report, with its task stream, into the run, where it is wanted."""
    if not wanted:
        yield
        return
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "performance.html"
        taken = performance_report(str(file), mode="inline")  # the others ask a network for Bokeh's scripts
        await taken.__aenter__()
        try:
            yield
        finally:  # of a job that failed too
            with _worth_no_job("performance report"):
                code = html.escape(f"distcluster run, output.url = {run.url}")  # Dask would show asyncio's
                await asyncio.wait_for(taken.__aexit__(None, None, None, code), _PERFORMANCE_SECONDS)
                run.store.put(layout.PERFORMANCE, file.read_bytes())


@contextlib.contextmanager
def _worth_no_job(what: str) -> Iterator[None]:
    """Go on whatever happens: a scheduler that is not ours may answer anything, and one that is lost the flow meets."""
    try:
        yield
    except Exception as error:
        log.info("no %s: %s: %s", what, type(error).__name__, error)


class LiveReporter:
    """Passes on what it is told, and sends the dashboard's page what has changed, twice a second at most."""

    def __init__(self, client: Client, run: Run, reporter: Reporter, counts: Counts) -> None:
        self._client = client
        self._run = run
        self._reporter = reporter
        self._counts = counts
        self._stages: dict[str, _Progress] = {}
        self._changed: set[str] = set()
        self._candidates: set[str] = set()
        self._begun, self._ended = asyncio.Event(), asyncio.Event()

    def dashboard(self, link: str) -> None:
        """As ``Reporter``."""
        self._reporter.dashboard(link)

    def start(self, stage: str, total: int, done: int, unit: str) -> None:
        """As ``Reporter``."""
        self._reporter.start(stage, total, done, unit)
        size = self._run.partitioning.partition_rows if unit == "rows" else 1
        self._stages[stage] = _Progress(total, done, unit, size)
        self._changed.add(stage)
        self._begun.set()

    def advance(self, stage: str, amount: int) -> None:
        """As ``Reporter``."""
        self._reporter.advance(stage, amount)
        self._stages[stage].advance(amount)
        self._changed.add(stage)

    def finish(self, stage: str, seconds: float) -> None:
        """As ``Reporter``."""
        self._reporter.finish(stage, seconds)
        self._stages[stage].finish()
        self._changed.add(stage)

    def end(self) -> None:
        """The run has ended, or its session has."""
        self._begun.set()
        self._ended.set()

    async def send_on(self) -> None:
        """Send what earlier runs of the job have done, then what changes, until the run has ended."""
        await self._begun.wait()  # until then the flow reads all that a resumed job has, and so would this
        await self._log(await asyncio.to_thread(self._so_far))
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _SECONDS)
            changed, self._changed = self._changed, set()
            if changed:
                stages = {stage: self._stages[stage].shown() | self._counted(stage) for stage in changed}
                await self._log({"stages": stages} | await asyncio.to_thread(self._criteria, changed))

    def _counted(self, stage: str) -> dict[str, int]:
        read = {"bytes_read": self._counts.bytes_read[stage]} if stage in self._counts.bytes_read else {}
        return read | {"bytes_written": self._counts.bytes_written[stage], "retries": self._counts.retries[stage]}

    async def _log(self, event: dict[str, Any]) -> None:
        identity = {
            "run": self._run.settings.run_id,
            "name": str(self._run.url),
            "rows": self._run.partitioning.n_rows,
        }
        await self._client.log_event(TOPIC, identity | event)

    def _so_far(self) -> dict[str, Any]:
        stages = {each.name: {"done": each.done, "total": each.total} for each in read_status(self._run.url).stages}
        return {"stages": stages} | self._criteria(set(stages))

    def _criteria(self, changed: set[str]) -> dict[str, Any]:
        """What has come of the candidates: at the end the selection table, until then each when it is fitted."""
        if SELECT_CANDIDATE.name in changed and (facts := SELECT_CANDIDATE.find_facts(self._run)) is not None:
            return self._selected(facts.n_held_out or self._run.partitioning.n_rows)
        return self._fitted() if FIT_CANDIDATES.name in changed and SUBSAMPLE.find_facts(self._run) else {}

    def _fitted(self) -> dict[str, Any]:
        """The candidates that were committed since, with their criteria on the rows that they were fitted on."""
        folder = f"commit/{FIT_CANDIDATES.name}/"
        keys = self._run.store.keys_under(folder.rstrip("/"))
        new = {key.removeprefix(folder).removesuffix(".json") for key in keys} - self._candidates
        self._candidates |= new
        rows, d = SUBSAMPLE.facts_of(self._run).mixture, self._run.job.projection.n_components
        found = {}
        for each in candidates(self._run):
            if str(each) not in new:
                continue
            facts = FIT_CANDIDATES.facts_of(self._run, each)
            mean = facts.mean_log_likelihood
            bic = None if mean is None else information_criteria(mean * rows, 0.0, each.n_parameters(d), rows)[0]
            found[str(each)] = _point(each, bic, facts.silhouette_euclidean, rows)
        return {"candidates": found, "judged_on": "the rows that were fitted"} if found else {}

    def _selected(self, rows: int) -> dict[str, Any]:
        """All candidates with the criteria of the selection table, which replace the others."""
        names = ("n_components", "covariance_type", "bic", "silhouette")
        columns = [each.tolist() for each in self._run.read_together([layout.SELECTION[name] for name in names])]
        found = {}
        for k, kind, bic, silhouette in zip(*columns, strict=True):
            wanted = Candidate(k, kind)
            found[str(wanted)] = _point(wanted, bic, silhouette, rows)
        return {"candidates": found, "judged_on": f"{rows:,} rows that no model has seen (silhouette: all rows)"}


def _point(candidate: Candidate, bic: float | None, silhouette: float | None, rows: int) -> dict[str, Any]:
    """A candidate as the page draws it; BIC by twice the rows, so that its unit is nats per row."""
    return {
        "n_components": candidate.n_components,
        "covariance_type": candidate.covariance_type,
        "bic": None if bic is None or not np.isfinite(bic) else bic / (2 * rows),
        "silhouette": None if silhouette is None or not np.isfinite(silhouette) else silhouette,
    }


class _Progress:
    """A stage under way: what was there when it began, and what has come since."""

    def __init__(self, total: int, done: int, unit: str, size: int) -> None:
        self._total, self._before, self._unit, self._size = total, done, unit, size
        self._came = 0
        self._started = self._last = time.monotonic()

    def advance(self, amount: int) -> None:
        self._came += amount
        self._last = time.monotonic()

    def finish(self) -> None:
        self._total = self._before + self._came  # a refinement that converges needs fewer steps than it may take

    def shown(self) -> dict[str, Any]:
        """Tasks done and to do, whole partitions but for the last, and the speed up to the last one."""
        done, seconds = self._before + self._came, self._last - self._started
        rate = f"{self._came / seconds:,.0f} {self._unit}/s" if seconds > 0 and self._unit == "rows" else ""
        note = f"{done:,} rows, {rate}" if rate else ""
        counts = {"done": -(-done // self._size), "total": -(-self._total // self._size), "note": note}
        return counts | {"seconds": seconds, **({"rows": self._came} if self._unit == "rows" else {})}
