"""Where a job runs: worker processes on this machine, or an existing Dask scheduler."""

import contextlib
import logging
import os
import warnings
from collections.abc import AsyncIterator

import dask
from distributed import Client, LocalCluster

from distcluster.job import DeployTable

_CLOSE_SECONDS = 5  # a client whose scheduler is gone would wait for two minutes
_WORKER_SECONDS = 300  # images are pulled and nodes started meanwhile

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class SchedulerLostError(ConnectionError):
    """The scheduler cannot be reached, or has gone: trying again later can help (exit code 75)."""


@contextlib.asynccontextmanager
async def connect(table: DeployTable) -> AsyncIterator[Client]:
    """Yield an asynchronous Dask client with at least one worker.

    Raises
    ------
    SchedulerLostError
        When there is no scheduler at the address, or no worker comes.
    """
    if table.kind == "local":
        async with _local_cluster(table) as cluster, Client(cluster, asynchronous=True) as client:
            yield client
        return
    assert table.address is not None
    try:
        client = await Client(table.address, asynchronous=True, timeout="20s")
    except OSError as error:
        raise SchedulerLostError(f"no Dask scheduler answers at {table.address}: {error}") from error
    try:
        await client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError as error:
        await client.close(timeout=_CLOSE_SECONDS)
        raise SchedulerLostError(
            f"the scheduler at {table.address} has had no worker for {_WORKER_SECONDS} s: start workers, then run again"
        ) from error
    try:
        yield client
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            await client.close(timeout=_CLOSE_SECONDS)


@contextlib.asynccontextmanager
async def _local_cluster(table: DeployTable) -> AsyncIterator[LocalCluster]:
    """One process a core, one thread each: Python's lock never waits, and memory limits mean something."""
    # The cluster restores this level when it closes, and would then tell of its closing.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    environ = {**dask.config.get("distributed.nanny.pre-spawn-environ"), **dict.fromkeys(_THREADS, "1")}
    settings = {
        "distributed.nanny.pre-spawn-environ": environ,
        # Ctrl-C reaches every process of a terminal; workers leave when they are told to, without a traceback each.
        "distributed.worker.preload": ["import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"],
    }
    with dask.config.set(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Port .* is already in use")  # another one is taken
        async with LocalCluster(
            n_workers=table.n_workers or len(os.sched_getaffinity(0)),
            threads_per_worker=1,
            processes=True,
            memory_limit=table.memory_limit or "auto",
            dashboard_address=table.dashboard_address,
            silence_logs=logging.ERROR,
            asynchronous=True,
        ) as cluster:
            yield cluster
