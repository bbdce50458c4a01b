"""The log of a session: what happened in it, when and where, kept in the run."""

import contextlib
import logging
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version

from distcluster.errors import ExpectedError, LeaseLostError, StorageError
from distcluster.execution.progress import Listener, Reporter
from distcluster.storage.faults import storage_errors
from distcluster.storage.layout import LOGS
from distcluster.storage.run import Run
from distcluster.url import without_secrets

_SECONDS = 5.0  # between writes: what a session that is killed loses

log = logging.getLogger("distcluster")


class SessionLog(Listener):
    """Passes on what a reporter is told, and writes it down beside the warnings.

    A store of objects has nothing to append to, and a session some dozens of lines: the object is written whole, every
    five seconds at most, by whoever has something to say.

    Parameters
    ----------
    run : Run
        Of which this process is the writer.
    reporter : Reporter
    """

    def __init__(self, run: Run, reporter: Reporter) -> None:
        super().__init__(reporter)
        self._run = run
        self._key = f"{LOGS}/{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z.log"
        self._lines: list[str] = []
        self._written = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """As logging's: a warning of this package."""
        self.add(f"{record.levelname.lower()}: {record.getMessage()}")

    def add(self, sentence: str) -> None:
        """Write a line down, with its time."""
        self._lines.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {without_secrets(sentence)}")

    def write(self) -> None:
        """Write the object."""
        self._written = time.monotonic()
        try:
            with storage_errors():
                self._run.require_lease()
                self._run.store.put(self._key, ("\n".join(self._lines) + "\n").encode())
        except (ExpectedError, OSError):  # what is worth a job meets the same storage, and says so
            return

    def dashboard(self, link: str) -> None:
        """As ``Reporter``."""
        super().dashboard(link)
        self.add(f"dashboard: {link}")
        self.write()

    def start(self, stage: str, total: int, done: int, unit: str) -> None:
        """As ``Reporter``."""
        super().start(stage, total, done, unit)
        self.add(f"{stage}: starts with {done:,} of {total:,} {unit}")

    def stage_done(self, sentence: str) -> None:
        """As ``Listener``."""
        self.add(sentence)
        if time.monotonic() - self._written > _SECONDS:
            self.write()


@contextlib.contextmanager
def session_log(run: Run, reporter: Reporter) -> Iterator[SessionLog]:
    """Yield a reporter that keeps the log of a session, and say in it how the session ended."""
    kept = SessionLog(run, reporter)
    log.addHandler(kept)
    is_away = False
    kept.add(f"distcluster {version('distcluster')} on {platform.node()}: {run.url}")
    try:
        yield kept
        kept.add("done")
    except BaseException as error:
        kept.add(f"ended by {type(error).__name__}: {error}")
        is_away = isinstance(error, StorageError | LeaseLostError)  # or another's: nothing can be written
        raise
    finally:
        log.removeHandler(kept)
        if not is_away:
            kept.write()
