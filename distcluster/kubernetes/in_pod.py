"""What runs first in every pod: a command, and what its end means to the Job that has made the pod.

    python -m distcluster.kubernetes.in_pod serve dask worker ...
    python -m distcluster.kubernetes.in_pod drive distcluster run ...

Scheduler and workers are to stay as long as the job has something to do, whatever becomes of other pods, and to leave
as soon as it has not: nobody but they themselves can end them, because no pod may end another.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distcluster.errors import DONE, FAILED, INTERRUPTED, WRONG
from distcluster.kubernetes.json_log import is_json_wanted, json_line

LONELY_SECONDS, N_WORKERS = "DISTCLUSTER_LONELY_SECONDS", "DISTCLUSTER_N_WORKERS"
"""Variables: how long scheduler and workers stay when nobody needs them, and how many workers there are to be."""
DISMISSAL = "distcluster-dismissal"
"""The scheduler's plugin."""

_OVER = (DONE, FAILED, WRONG)
"""Exit codes of a driver that is not tried again."""
_DISMISSAL_SECONDS = 30.0
_CRASH_SECONDS = 10.0  # a command that ends sooner never worked: Kubernetes is to see it, and waits between tries
_WORK_SECONDS = 240.0  # a worker that lasts longer had a scheduler: it gives up a missing one after 120 s


class Child:
    """A process that gets the signals which this one, the first of its container, is sent."""

    def __init__(self) -> None:
        self.is_told_to_leave = False
        self._process: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, self._leave)

    def run(self, argv: Sequence[str]) -> int:
        """Run a command to its end; its exit code, negative where a signal has ended it."""
        self._process = subprocess.Popen(argv)
        if self.is_told_to_leave:  # while it was started
            self._process.terminate()
        return self._process.wait()

    def _leave(self, _number: int, _frame: object) -> None:
        self.is_told_to_leave = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


def drive(argv: Sequence[str], child: Child) -> int:
    """Run the driver, and where the job is over dismiss scheduler and workers; the driver's exit code."""
    code = child.run(argv)
    if code in _OVER and not child.is_told_to_leave:
        try:
            asyncio.run(dismiss(_DISMISSAL_SECONDS))
        except (OSError, TimeoutError) as error:
            _say(f"could not dismiss the workers, which leave by themselves: {type(error).__name__}: {error}")
    return code if code >= 0 else 128 - code


def serve(argv: Sequence[str], child: Child) -> int:
    """Run a scheduler or a worker again and again until the job is over: 0; or else what ended it."""
    worked = time.monotonic()
    while True:
        started = time.monotonic()
        code = child.run(argv)
        now = time.monotonic()
        if is_dismissed():
            return DONE
        if child.is_told_to_leave:
            return INTERRUPTED
        if now - started < _CRASH_SECONDS:
            return code if code > 0 else FAILED
        if now - started > _WORK_SECONDS:
            worked = now
        elif now - worked > lonely_seconds():
            _say("no scheduler was there for long: the job is given up")
            return DONE
        _say(f"{' '.join(argv[:2])} has ended with {code}, and is started again")


async def dismiss(timeout_seconds: float) -> None:
    """Have the scheduler, which the environment names, tell the workers that the job is over, and leave.

    Raises
    ------
    TimeoutError, OSError
        When it does not answer in time.
    """
    import dask  # here, so that what runs beside a worker stays small
    from distributed import Client

    address = dask.config.get("scheduler-address")
    async with (
        asyncio.timeout(2 * timeout_seconds),
        Client(address, asynchronous=True, timeout=timeout_seconds) as client,
    ):
        await client.run_on_scheduler(_end)


def _end(dask_scheduler: Any) -> None:
    plugin = dask_scheduler.plugins.get(DISMISSAL)
    if plugin is not None:  # else a scheduler of somebody else's
        plugin.end()


def lonely_seconds() -> float:
    """How long scheduler and workers stay when nobody needs them."""
    return float(os.environ.get(LONELY_SECONDS, "1800"))


def is_dismissed() -> bool:
    """Whether the job is over, as far as this container was told."""
    return _mark().exists()


def take_leave() -> None:
    """Note in this container that the job is over."""
    _mark().touch()


def _mark() -> Path:
    # Python's own only where it is asked for: a container with a read-only root has none.
    return Path(os.environ.get("DASK_TEMPORARY_DIRECTORY") or tempfile.gettempdir(), "job-is-over")


def _say(sentence: str) -> None:
    sys.stderr.write(f"{json_line('info', 'distcluster', sentence) if is_json_wanted() else sentence}\n")
    sys.stderr.flush()


def main() -> None:
    """Run the command that the arguments name."""
    role, *argv = sys.argv[1:]
    code = {"serve": serve, "drive": drive}[role](argv, Child())
    sys.stdout.flush()
    os._exit(code)  # Dask's threads may still wait for who has gone


if __name__ == "__main__":
    main()
