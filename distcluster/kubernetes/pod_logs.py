"""What pods print: the driver's lines as they come, and every pod's log kept before the pods go."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from distcluster.kubernetes.kubectl import Kubectl
from distcluster.kubernetes.objects import COMPONENT, Object
from distcluster.kubernetes.streams import Ended, Streams
from distcluster.kubernetes.submitted import container_states

_AGAIN_SECONDS = 2.0  # before a log that broke off is asked for again


def kept_directory(name: str) -> Path:
    """Where a submission's logs are kept on this machine."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "distcluster", name)


def keep_logs(kubectl: Kubectl, name: str, pods: list[Object]) -> Path:
    """Copy every pod's log, and that of its container before a restart, to this machine; the directory."""
    directory = kept_directory(name)
    directory.mkdir(parents=True, exist_ok=True)
    for pod in pods:
        called = pod["metadata"]["name"]
        ours = ("--container", pod["metadata"]["labels"][COMPONENT])
        (directory / f"{called}.log").write_text(kubectl.log(called, *ours, "--timestamps"))
        if any(each.get("restartCount") for each in pod.get("status", {}).get("containerStatuses", [])):
            earlier = kubectl.log(called, *ours, "--timestamps", "--previous")
            (directory / f"{called}.before-restart.log").write_text(earlier)
    return directory


class DriverLogs:
    """The logs of a job's drivers as they are written, each line once, however often a log has to be asked for.

    Parameters
    ----------
    kubectl : Kubectl
    streams : Streams
        Where the logs run in, under their pods' names.
    show : callable
        Gets the lines.
    """

    def __init__(self, kubectl: Kubectl, streams: Streams, show: Callable[[str], None]) -> None:
        self._kubectl, self._streams, self._show = kubectl, streams, show
        self._last: dict[str, str] = {}
        self._again_at: dict[str, float] = {}
        self._read_since_its_end: set[str] = set()

    def follow(self, pods: Iterable[Object]) -> None:
        """Ask for logs of pods that have begun, where that is not under way: anew where it broke off."""
        for pod in pods:
            name = pod["metadata"]["name"]
            states = set().union(*container_states(pod, "state"))
            due = time.monotonic() >= self._again_at.get(name, 0.0) and not self._streams.is_open(name)
            if not due or not states & {"running", "terminated"} or name in self._read_since_its_end:
                continue
            if "terminated" in states:
                self._read_since_its_end.add(name)
            self._streams.open(name, self._kubectl.argv("logs", name, "--follow", *self._options(name)))

    def take(self, pod: str, part: str | Ended) -> None:
        """Show a line that has come; note that a log has ended."""
        if isinstance(part, Ended):
            self._again_at[pod] = time.monotonic() + _AGAIN_SECONDS
            return
        # --since-time counts whole seconds. One pod's times are of one width and one zone: text compares.
        stamp, _, text = part.rstrip("\r\n").partition(" ")
        if stamp > self._last.get(pod, ""):
            self._last[pod] = stamp
            self._show(text)

    def read_rest(self, pods: Iterable[Object]) -> None:
        """Show what pods that have ended said at last."""
        for pod in pods:
            name = pod["metadata"]["name"]
            for line in self._kubectl.log(name, *self._options(name)).splitlines():
                self.take(name, line)

    def _options(self, pod: str) -> list[str]:
        since = [f"--since-time={self._last[pod]}"] if pod in self._last else []
        return ["--container", "driver", "--timestamps", *since]
