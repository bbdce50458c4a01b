"""The page on the Dask dashboard shows a run while it works and after, and is never the reason that one fails."""

import asyncio
from typing import Any

import pytest
from distributed import Client, LocalCluster

from distcluster.execution.dashboard import TOPIC, DashboardPage, LiveRun, LiveView, bars, curve
from distcluster.execution.metrics import publish
from distcluster.execution.progress import Counts, on_dashboard
from distcluster.storage.run import Run


def event(**changes: Any) -> dict[str, Any]:
    return {"run": "a", "name": "runs/a", "rows": 1000} | changes


def point(k: int, kind: str, bic: float | None) -> dict[str, Any]:
    return {"n_components": k, "covariance_type": kind, "bic": bic, "silhouette": None}


def test_later_events_replace_what_earlier_ones_said() -> None:
    run = LiveRun("runs/a", 1000)
    run.take({"stages": {"scan": {"done": 1, "total": 4}, "grid": {"done": 0, "total": None}}})
    run.take({"stages": {"scan": {"done": 4, "total": 4, "note": "1,000 rows, 50 rows/s"}}})
    assert bars(run) == {
        "stage": ["scan", "grid"],
        "share": [1.0, 0.0],
        "text": ["4 of 4  1,000 rows, 50 rows/s", ""],
    }
    run.take({"candidates": {"full-8": point(8, "full", 2.0), "full-2": point(2, "full", 3.0)}})
    run.take({"candidates": {"full-8": point(8, "full", 1.5), "diag-4": point(4, "diag", None)}})
    assert curve(run, "full", "bic") == {"k": [2, 8], "log2_k": [1.0, 3.0], "value": [3.0, 1.5]}
    assert curve(run, "diag", "bic") == curve(run, "full", "silhouette") == {"k": [], "log2_k": [], "value": []}


def test_the_newest_run_is_shown_unless_another_is_picked_and_its_name_is_text() -> None:
    page = DashboardPage()
    view = LiveView(page)
    view.update()
    assert "No run" in view.head.text
    for run, name in (("a", "<script>alert(1)</script>"), ("b", "runs/b")):
        page.log_event(TOPIC, event(run=run, name=name, stages={f"scan-{run}": {"done": 1, "total": 2}}))
        page.log_event("another topic", {"any": "thing"})
        view.update()
    assert view.head.text.startswith("runs/b: ")
    view.pick.value = "a"
    assert view.head.text.startswith("&lt;script&gt;")
    assert view.bars.data["stage"] == ["scan-a"]


def test_a_scheduler_remembers_the_last_runs_only() -> None:
    page = DashboardPage()
    for i in range(20):
        page.log_event(TOPIC, event(run=str(i)))
    assert list(page.runs) == [str(i) for i in range(12, 20)]


class Told:
    """A reporter that keeps the link."""

    link = ""

    def dashboard(self, link: str) -> None:
        """As a reporter."""
        self.link = link


def test_a_scheduler_without_a_dashboard_stops_no_job(reference: Run) -> None:
    told: Any = Told()

    async def install() -> Any:
        async with (
            LocalCluster(
                n_workers=0,
                processes=False,
                dashboard_address=None,
                asynchronous=True,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # which answers HTTP all the same
            ) as cluster,
            Client(cluster, asynchronous=True) as client,
            on_dashboard(client, reference, told, Counts()) as reporter,
        ):
            cluster.scheduler.http_application.applications.clear()
            return reporter

    assert asyncio.run(install()) is told


def test_stages_are_metrics_of_the_scheduler() -> None:
    prometheus = pytest.importorskip("prometheus_client", reason="not installed")
    page = DashboardPage()
    publish(list)
    publish(lambda: list(page.runs.values()))  # of the next scheduler of a process
    stage = {"done": 3, "total": 4, "note": "", "rows": 750, "seconds": 1.5, "bytes_read": 5, "bytes_written": 9}
    stage["retries"] = 2
    page.log_event(TOPIC, event(stages={"scan": stage, "later": {"done": 0, "total": None}}))
    shown = prometheus.generate_latest().decode()
    for key in ("done", "total", "rows", "seconds", "bytes_read", "bytes_written", "retries"):
        assert f'distcluster_stage_{key}{{run="runs/a",stage="scan"}} {float(stage[key])}' in shown
    assert 'distcluster_stage_total{run="runs/a",stage="later"}' not in shown
