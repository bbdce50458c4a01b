"""Events that the driver writes about its Job, for `kubectl describe job`: ``deploy.events``."""

import logging
import os
import queue
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from distcluster.kubernetes.objects import PART_OF, Object
from distcluster.kubernetes.own_api import MOUNTED, Endpoint, find_endpoint
from distcluster.url import without_secrets

EVENTS_JOB, _JOB_UID, _POD, _NAMESPACE = (
    "DISTCLUSTER_EVENTS_JOB", "DISTCLUSTER_JOB_UID", "DISTCLUSTER_POD", "DISTCLUSTER_NAMESPACE",
)  # fmt: skip

_MOST_CHARACTERS = 1_000  # of a message: Kubernetes takes 1,024
_LAST_SECONDS = 15.0  # for what is not written yet at the end

log = logging.getLogger("distcluster")


def event_variables(job: str) -> list[Object]:
    """Variables of the driver's container by which it knows its Job: `describe` looks for the Job's uid, too."""
    fields = {
        _JOB_UID: "metadata.labels['batch.kubernetes.io/controller-uid']",
        _POD: "metadata.name",
        _NAMESPACE: "metadata.namespace",
    }
    found: list[Object] = [{"name": EVENTS_JOB, "value": job}]
    return found + [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]


@dataclass(frozen=True, slots=True)
class DriverJob:
    """Whose events they are.

    Attributes
    ----------
    name, uid : str
        The Job's.
    namespace : str
    pod : str
        The driver's, which writes.
    """

    name: str
    uid: str
    namespace: str
    pod: str


class EventWriter:
    """Writes events in their order, by a thread of its own: no work waits for Kubernetes, and none fails with it."""

    def __init__(self, at: Endpoint, job: DriverJob) -> None:
        self._at, self._job = at, job
        self._waiting = queue.SimpleQueue[Object | None]()
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    def write(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Have an event written.

        Parameters
        ----------
        kind : "Normal" or "Warning"
        reason : str
            A word, as machines compare it.
        message : str
            For a person.
        """
        now, text = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", without_secrets(message)
        job = {"apiVersion": "batch/v1", "kind": "Job", "name": self._job.name, "uid": self._job.uid}
        self._waiting.put({
            "apiVersion": "v1", "kind": "Event", "type": kind, "reason": reason, "message": text[:_MOST_CHARACTERS],
            "metadata": {"name": f"{self._job.name}.{secrets.token_hex(8)}", "namespace": self._job.namespace},
            "involvedObject": job | {"namespace": self._job.namespace},
            "source": {"component": PART_OF}, "reportingComponent": PART_OF, "reportingInstance": self._job.pod,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        })  # fmt: skip

    def close(self) -> None:
        """Wait for what is not written yet, but not for long."""
        self._waiting.put(None)
        self._thread.join(_LAST_SECONDS)

    def _write_all(self) -> None:
        told = ""
        while (event := self._waiting.get()) is not None:
            try:
                self._at.call("POST", event)
            except OSError as error:  # worth a word, and no job
                if str(error) != told:
                    log.info("an event of the Job could not be written: %s", error)
                told = str(error)


def find_event_writer(environ: Mapping[str, str] = os.environ, mounted: Path = MOUNTED) -> EventWriter | None:
    """What writes about this pod's Job, or None where that was not asked for."""
    if EVENTS_JOB not in environ:
        return None
    job = DriverJob(*(environ[name] for name in (EVENTS_JOB, _JOB_UID, _NAMESPACE, _POD)))
    return EventWriter(find_endpoint("/api/v1/namespaces/{namespace}/events", environ, mounted), job)
