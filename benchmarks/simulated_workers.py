"""Dask workers of one thread each, many in a process, whose tasks wait instead of computing and commit a likeness.

    python -m benchmarks.simulated_workers ADDRESS COUNT TEMPLATE

``TEMPLATE`` is a finished run, small but with the same job. A task waits as long as its numbers and its requests would
take (``TASKS``), and commits what an item of the template has: facts, arrays, objects, checksums. Tasks that reduce a
stage to a few numbers are the real ones, reading included; what they give is thrown away.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from json import dumps
from typing import Any

import dask
import numpy as np
import obstore
from distributed import Worker, get_worker

from benchmarks.template import likeness
from distcluster.execution import runner
from distcluster.numerics.mixture.assignment import merge_nearest
from distcluster.numerics.partition import groups
from distcluster.stages.choosing import select_candidate, sum_components
from distcluster.stages.context import open_run
from distcluster.stages.flow import STAGES
from distcluster.stages.labelling import EXEMPLARS
from distcluster.stages.projecting import PROJECT_ROWS
from distcluster.stages.refining import take_step
from distcluster.stages.stage import partitions
from distcluster.stages.subsampling import SCAN
from distcluster.storage import layout
from distcluster.storage.array_store import entity_tag
from distcluster.storage.records import Kept, record_key
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE
from distcluster.storage.settings import RunRef

LATENCY = 0.03

_AT_ONCE = 20  # workers that start together


@dataclass(frozen=True, slots=True)
class Task:
    """What a task of a stage waits for.

    Attributes
    ----------
    row_seconds : float
        A row, where items are partitions: as ``benchmarks.end_to_end`` measured them before decision 27.
    seconds : float
        Whatever the rows.
    trips : int
        To the store or the input, one after the other; what is read at the same time is one.
    first_trips : int
        More of them in a worker's first task: what it then keeps.
    """

    row_seconds: float = 0.0
    seconds: float = 0.0
    trips: int = 6
    first_trips: int = 0


TASKS = {
    "scan": Task(row_seconds=8.7e-6, trips=9, first_trips=6),
    "build_index": Task(seconds=9.4, trips=20),
    "fit_umap": Task(seconds=4.8, trips=12),
    "fit_views": Task(seconds=3.2, trips=12),
    "replicate": Task(seconds=5.2, trips=10),
    "find_neighbours": Task(row_seconds=4.2e-5, trips=10, first_trips=12),
    "project_subsample": Task(seconds=0.8, trips=6),
    "project_rows": Task(row_seconds=5.5e-5, trips=9, first_trips=20),
    "start_kmeans": Task(seconds=0.8, trips=20),
    "fit_candidates": Task(seconds=0.6, trips=12),
    "extend_grid": Task(seconds=1.1, trips=20),
    "recluster": Task(seconds=4.2, trips=10),
    "score_candidates": Task(row_seconds=1.02e-5, trips=6, first_trips=20),
    "sum_silhouettes": Task(row_seconds=6.3e-6, trips=6, first_trips=2),
    "refine_expect": Task(row_seconds=1.1e-6, trips=10),
    "publish_mixture": Task(trips=12),
    "measure_projection": Task(seconds=1.4, trips=12),
    "merge_components": Task(seconds=1.0, trips=12),
    "label_rows": Task(row_seconds=2.2e-6, trips=18, first_trips=14),
}
"""By stage. Trips are counted from its requests, kind by kind, in ``benchmarks.traffic``."""


def _gather_subsamples(run: Run) -> None:
    """What ``subsample`` reads: its rows are the template's over and over, and no subsample can be made of them."""
    SCAN.facts_of_all(run, partitions(run))
    for _ in run.read_items([layout.SCANNED_ROW, layout.SCANNED_VECTOR], partitions(run)):
        pass


def _gather_clusters(run: Run) -> None:
    """What ``summarise_clusters`` reads of all partitions, and merges."""
    arrays = [layout.PARTIAL_SIZE, layout.PARTIAL_EXEMPLAR, layout.PARTIAL_EXEMPLAR_DISTANCE, layout.SHOWN_ROWS]
    _, exemplars, distances, shown = zip(*run.read_items(arrays, partitions(run)), strict=True)
    merge_nearest(np.stack(exemplars), np.stack(distances), EXEMPLARS)
    np.concatenate(shown)
    PROJECT_ROWS.facts_of_all(run, partitions(run))


REDUCES: dict[str, Callable[..., object]] = {
    "subsample": _gather_subsamples,
    "sum_components": sum_components,
    "select_candidate": select_candidate,
    "refine_maximise": take_step,
    "summarise_clusters": _gather_clusters,
}
"""Stages whose single tasks really read and reduce."""

_seen = set[tuple[str, str]]()


async def simulated(ref: RunRef, stage: str, _task: object, items: list[Any], _commits: object) -> list[Kept]:
    """In the place of what a worker does with a task."""
    return [await _simulated(ref, stage, item) for item in items]


async def _simulated(ref: RunRef, stage: str, item: Any) -> Kept:
    run, of, worker = open_run(ref), TASKS.get(stage, Task()), get_worker().address
    began = time.perf_counter()
    if stage in REDUCES:
        await asyncio.to_thread(REDUCES[stage], *((run,) if item == ONE else (run, item)))
    else:
        trips = of.trips + (0 if (worker, stage) in _seen else of.first_trips)
        _seen.add((worker, stage))
        await asyncio.sleep(of.seconds + of.row_seconds * _rows(run, stage, item) + (trips - 1) * LATENCY)
    return await commit(run, stage, str(item), of.trips, time.perf_counter() - began)


def _rows(run: Run, stage: str, item: Any) -> int:
    if stage == "refine_expect":
        return sum(len(run.partitioning[each]) for each in groups(run.partitioning)[item.group])
    return len(run.partitioning[item]) if isinstance(item, int) and stage in _of_partitions() else 0


@cache
def _of_partitions() -> set[str]:
    return {stage.name for stage in STAGES if stage.unit == "rows"}


async def commit(run: Run, stage: str, item: str, trips: int, seconds: float) -> Kept:
    """Commit what an item of the template has, as another item's, by one request that stands for others."""
    assert _template is not None
    record, like = likeness(run, _template, stage, item)
    record = replace(record, seconds=seconds)
    said = await obstore.put_async(
        run.store.objects, record_key(stage, item), dumps(asdict(record)).encode(),
        attributes={"like": like, "stands-for": str(trips - 1)},
    )  # fmt: skip
    return Kept(entity_tag(said), record)


_template: Run | None = None


async def work(address: str, count: int, template: str) -> None:
    """Be so many workers until the scheduler goes."""
    global _template
    _template = Run(template)
    vars(runner)["_perform"] = simulated  # tasks name it, and find this
    runner.Run = cache(Run)  # which looks at the store in every worker
    logging.getLogger("distributed").setLevel(logging.ERROR)
    dask.config.set({"distributed.worker.profile.enabled": False, "distributed.admin.system-monitor.interval": "60s"})
    workers: list[Worker] = []
    while len(workers) < count:
        some = range(min(_AT_ONCE, count - len(workers)))
        made = [Worker(address, nthreads=1, memory_limit=0, dashboard=False, validate=False) for _ in some]
        workers += await asyncio.gather(*made)
    await asyncio.gather(*(each.finished() for each in workers))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
