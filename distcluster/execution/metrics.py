"""Metrics of a run's stages beside Dask's own, at the scheduler's /metrics, where prometheus_client is installed."""

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from distcluster.execution.dashboard import LiveRun

_MEANINGS = {
    "done": "Tasks of a stage that are committed.",
    "total": "Tasks of a stage.",
    "rows": "Rows of a stage that were worked on since the job was started or resumed.",
    "seconds": "Time from a stage's start, or its resumption, to its last task.",
    "bytes_read": "Bytes of the input, decoded, that a stage that reads all of it has read since then.",
    "bytes_written": "Bytes that a stage's tasks have committed since the job was started or resumed.",
    "retries": "Tasks of a stage that were tried again since then: a store was away, memory was short, data damaged.",
}


class StageMetrics:
    """What Prometheus reads: gauges with the labels run and stage.

    Parameters
    ----------
    runs : callable
        Gives the runs that the scheduler remembers.
    """

    def __init__(self, runs: Callable[[], Collection["LiveRun"]]) -> None:
        self._runs = runs

    def collect(self) -> "Iterator[Metric]":
        """As prometheus_client's collectors."""
        from prometheus_client.core import GaugeMetricFamily

        for key, meaning in _MEANINGS.items():
            family = GaugeMetricFamily(f"distcluster_stage_{key}", meaning, labels=["run", "stage"])
            for run in self._runs():
                for stage, facts in run.stages.items():
                    if facts.get(key) is not None:
                        family.add_metric([run.name, stage], facts[key])
            yield family


def publish(runs: Callable[[], Collection["LiveRun"]]) -> None:
    """Add the metrics to those that this process shows, once; nothing where prometheus_client is not installed."""
    try:
        from prometheus_client import REGISTRY
    except ModuleNotFoundError:
        return
    earlier: Any = _published.pop() if _published else None
    if earlier is not None:  # of another scheduler in this process
        REGISTRY.unregister(earlier)
    metrics = StageMetrics(runs)
    REGISTRY.register(metrics)
    _published.append(metrics)


_published: list[StageMetrics] = []
