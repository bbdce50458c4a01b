"""Where a job runs: worker processes on this machine, an existing Dask scheduler, or the pods around the driver's."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from multiprocessing import forkserver
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.security import Security

from distcluster import numerics, storage
from distcluster.deploy import DeployTable
from distcluster.errors import JobError, SchedulerLostError

_CLOSE_SECONDS = 5  # a client whose scheduler is gone would wait for two minutes
_SCHEDULER_SECONDS = {"address": 20, "kubernetes": 300}  # a scheduler that was asked for just now takes its time
_WORKER_SECONDS = {"address": 300, "kubernetes": 900}  # images are pulled and nodes started meanwhile

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextlib.asynccontextmanager
async def connect(table: DeployTable) -> AsyncIterator[Client]:
    """Yield an asynchronous Dask client with at least one worker.

    Raises
    ------
    SchedulerLostError
        When there is no scheduler at the address, or no worker comes.
    JobError
        When no address is known.
    """
    if table.kind == "local":
        async with _local_cluster(table) as cluster, Client(cluster, asynchronous=True) as client:
            yield client
        return
    address = scheduler_address(table)
    try:
        client = await Client(
            address, security=_security(table), asynchronous=True, timeout=_SCHEDULER_SECONDS[table.kind]
        )
    except OSError as error:
        raise SchedulerLostError(f"no Dask scheduler answers at {address}: {error}") from error
    seconds = _WORKER_SECONDS[table.kind]
    try:
        await client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        await client.close(timeout=_CLOSE_SECONDS)
        raise SchedulerLostError(
            f"the scheduler at {address} has had no worker for {seconds} s: start workers, then run again"
        ) from error
    try:
        yield client
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            await client.close(timeout=_CLOSE_SECONDS)


def scheduler_address(table: DeployTable) -> str:
    """The job's scheduler, or the one that the environment names.

    Raises
    ------
    JobError
        When neither names one, or it is encrypted and we have no certificate.
    """
    address = table.address or dask.config.get("scheduler-address", None)
    if address is None:
        raise JobError(
            f'deploy.kind = "{table.kind}", but no scheduler is known: `distcluster submit` runs a job on Kubernetes; '
            f"`run` takes the address from deploy.address, --scheduler or DASK_SCHEDULER_ADDRESS."
        )
    if str(address).startswith("tls://") and _security(table).get_connection_args("client")["ssl_context"] is None:
        raise JobError(
            f"{address} wants certificates: set deploy.tls_ca_file, tls_client_cert and tls_client_key, or the "
            f"DASK_DISTRIBUTED__COMM__TLS__* variables."
        )
    return str(address)


def _security(table: DeployTable) -> Security:
    """The job's certificate files, or what Dask's configuration names."""
    files = {
        "tls_ca_file": table.tls_ca_file,
        "tls_client_cert": table.tls_client_cert,
        "tls_client_key": table.tls_client_key,
    }
    given = {key: file for key, file in files.items() if file is not None}
    return Security(require_encryption=True, **given) if given else Security()


def new_certificate() -> dict[str, str]:
    """A certificate that signs itself, valid for a year, for all of Dask's roles.

    Returns
    -------
    dict of str to str
        PEM texts by file name: ``ca.crt``, ``tls.crt`` and ``tls.key``, as ``deploy.tls`` expects them.
    """
    made = Security.temporary()
    return {"ca.crt": made.tls_ca_file, "tls.crt": made.tls_scheduler_cert, "tls.key": made.tls_scheduler_key}


_PRELOAD = """
import logging, signal, threading
from tqdm import tqdm
# What a task raises the driver tells, in a sentence and without the secrets of a URL.
logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
# Ctrl-C reaches every process of a terminal; workers leave when they are told to, without a traceback each.
signal.signal(signal.SIGINT, signal.SIG_IGN)
# By default umap-learn's bar, which is off, has a lock between processes, and Python warns of those that stay behind.
tqdm.set_lock(threading.RLock())
"""


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """Keep new processes from running the caller's script again, which Python does to find what is defined there.

    Tasks need nothing of it, and a script without ``if __name__ == "__main__"`` would begin the job again in every one.
    """
    script = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(script)[name] for name in ("__file__", "__spec__") if name in vars(script)}
    vars(script).update(__spec__=None)
    vars(script).pop("__file__", None)
    try:
        yield
    finally:
        vars(script).update(hidden)


_FORKED_WITH = [
    "distributed.nanny",
    "distcluster.stages.flow",
    *(f"distcluster.storage.{name}" for name in storage.__all__),
    *(f"distcluster.numerics.{name}" for name in numerics.__all__),
    *(f"distcluster.numerics.mixture.{name}" for name in numerics.mixture.__all__),
]


def _prepare_workers(environ: dict[str, str]) -> str:
    """How worker processes come to be, for Dask's configuration: on Linux as forks of one that has imported all.

    One that begins with an empty interpreter takes two seconds of its core to import what tasks use, and another to
    leave. That process begins to import here, beside the scheduler's start. Elsewhere libraries do not bear a fork.
    """
    if sys.platform != "linux":
        return "spawn"
    forkserver.set_forkserver_preload(_FORKED_WITH)
    before = {name: os.environ[name] for name in environ if name in os.environ}
    os.environ.update(environ)  # libraries read it when they are loaded
    try:
        forkserver.ensure_running()
    finally:  # numba compiles nothing more in a process whose number of threads is another all at once
        for name in environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
    return "forkserver"


@contextlib.asynccontextmanager
async def _local_cluster(table: DeployTable) -> AsyncIterator[LocalCluster]:
    """One process a core, one thread each: Python's lock never waits, and memory limits mean something."""
    # The cluster restores this level when it closes, and would then tell of its closing.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    environ = {**dask.config.get("distributed.nanny.pre-spawn-environ"), **dict.fromkeys(_THREADS, "1")}
    environ = {name: str(value) for name, value in environ.items()}
    method = _prepare_workers(environ)
    settings = {
        "distributed.worker.multiprocessing-method": method,
        "distributed.nanny.pre-spawn-environ": {} if method == "forkserver" else environ,
        # One task at a time leaves nothing to wait for: where every worker pauses, the job stands still for good.
        "distributed.worker.memory.pause": False,
        "distributed.worker.preload": [_PRELOAD],
        # A sample of what a task does every 10 ms, Dask's default, takes a tenth of a small job's time.
        "distributed.worker.profile.interval": "50ms",
    }
    with dask.config.set(settings), warnings.catch_warnings(), _script_hidden():
        warnings.filterwarnings("ignore", message="Port .* is already in use")  # another one is taken
        async with LocalCluster(
            n_workers=table.n_workers or len(os.sched_getaffinity(0)),
            threads_per_worker=1,
            processes=True,
            memory_limit=table.memory_limit or "auto",
            dashboard_address=table.dashboard_address,
            # A scheduler runs what it is sent: without certificates, whatever any user of this machine sends.
            security=Security.temporary() if table.tls else None,
            silence_logs=logging.ERROR,
            asynchronous=True,
            env={**os.environ, **environ},  # what is forked has that of the first cluster of this process
        ) as cluster:
            yield cluster
