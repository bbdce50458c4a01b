"""What a session does, as events of Kubernetes on the driver's Job, where the job asks for them."""

import contextlib
import logging
import time
from collections.abc import Iterator

from distcluster.errors import ExpectedError
from distcluster.execution.progress import Listener, Reporter
from distcluster.kubernetes.job_events import EventWriter, find_event_writer
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.storage.run import Run

_WARNING_SECONDS = 60.0  # between two: of a store that is away every task has one

log = logging.getLogger("distcluster")


class EventReporter(Listener):
    """Passes on what a reporter is told, and writes the ends of stages and the warnings as events.

    Parameters
    ----------
    writer : EventWriter
    reporter : Reporter
    """

    def __init__(self, writer: EventWriter, reporter: Reporter) -> None:
        super().__init__(reporter)
        self._writer = writer
        self._warned, self._n_left_out = -_WARNING_SECONDS, 0

    def emit(self, record: logging.LogRecord) -> None:
        """As logging's: a warning of this package, such as a task that is tried again."""
        if time.monotonic() - self._warned < _WARNING_SECONDS:
            self._n_left_out += 1
            return
        others = f"; {self._n_left_out:,} others since the last" if self._n_left_out else ""
        self._writer.write("Warning", "Trouble", record.getMessage() + others)
        self._warned, self._n_left_out = time.monotonic(), 0

    def stage_done(self, sentence: str) -> None:
        """As ``Listener``."""
        self._writer.write("Normal", "StageDone", sentence)


@contextlib.contextmanager
def as_events(run: Run, reporter: Reporter) -> Iterator[Reporter]:
    """Yield a reporter that writes events, and write how the session ended; the given one where nobody asks for it."""
    writer = None
    try:
        writer = find_event_writer()
    except OSError as error:  # no token: worth a word, and no job
        log.warning("no events of the Job can be written: %s", error)
    if writer is None:
        yield reporter
        return
    told = EventReporter(writer, reporter)
    log.addHandler(told)
    try:
        yield told
        writer.write("Normal", "Verdict", _verdict(run))
    except BaseException as error:
        writer.write("Warning", "SessionFailed", f"{type(error).__name__}: {error}")
        raise
    finally:
        log.removeHandler(told)
        writer.close()


def _verdict(run: Run) -> str:
    with contextlib.suppress(ExpectedError):  # the job is done, whatever becomes of a word about it
        found = SELECT_CANDIDATE.find_facts(run)
        if found is not None:
            return f"{found.n_components} clusters. {found.reason} {found.advice}".strip()
    return "done"
