"""The environment of every container: Dask's configuration, and where and how libraries run."""

from distcluster.kubernetes.in_pod import LONELY_SECONDS, N_WORKERS
from distcluster.kubernetes.json_log import logging_variables
from distcluster.kubernetes.platform import platform_settings
from distcluster.kubernetes.submission import SCRATCH_PATH, TLS_PATH, Submission

_TLS_ROLES = ("SCHEDULER", "WORKER", "CLIENT")

SETTINGS: dict[str, str] = {
    # A cut connection is noticed after 11 s instead of 30; Dask refuses less.
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
    # A pod's name resolves some seconds after the pod starts.
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s",
    # 0 by default: one lost packet of a restarting node would fail a task.
    "DASK_DISTRIBUTED__COMM__RETRY__COUNT": "3",
    # Worker deaths that a task survives; 3 by default, which two drained nodes and a bad one use up.
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "5",
    # Unset by default: a job whose workers never come back would wait for ever.
    "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "900s",
    # A worker that hangs is given up after this; shorter would hit long native calls.
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "300s",
    # Tasks keep nothing in a worker's memory, so a full worker that pauses would pause for ever; at 95 % of its memory
    # the nanny starts it anew, and its task runs again.
    "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
    # One log of many pods is sorted by time.
    "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(asctime)s %(name)s %(levelname)s %(message)s",
    # The root file system is read-only: all that programs want to write goes to the scratch volume.
    "DASK_TEMPORARY_DIRECTORY": SCRATCH_PATH,
    "HOME": SCRATCH_PATH,
    "MPLCONFIGDIR": f"{SCRATCH_PATH}/matplotlib",
    "NUMBA_CACHE_DIR": f"{SCRATCH_PATH}/numba",
    # One thread a task: sums over threads depend on their number. The nanny does not pin numba, nor the driver.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    # Logs are read while the job runs.
    "PYTHONUNBUFFERED": "1",
}
"""What is the same in every submission."""


def container_settings(submission: Submission) -> dict[str, str]:
    """The variables of a submission's containers: ``SETTINGS``, how they find each other, what the platform asks."""
    found = SETTINGS | {"DASK_SCHEDULER_ADDRESS": submission.scheduler_address} | _tls_settings(submission)
    found |= {LONELY_SECONDS: str(submission.deploy.idle_seconds), N_WORKERS: str(submission.n_workers)}
    if submission.deploy.log_format == "json":
        found |= logging_variables()
    return found | platform_settings(submission)


def _tls_settings(submission: Submission) -> dict[str, str]:
    if not submission.deploy.tls:
        return {}
    files = {"CA_FILE": "ca.crt"}
    for role in _TLS_ROLES:
        files |= {f"{role}__CERT": "tls.crt", f"{role}__KEY": "tls.key"}
    return {
        "DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME": "tls",
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        **{f"DASK_DISTRIBUTED__COMM__TLS__{key}": f"{TLS_PATH}/{file}" for key, file in files.items()},
    }
