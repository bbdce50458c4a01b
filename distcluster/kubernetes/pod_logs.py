"""What pods print: the driver's lines as they come, and every pod's log kept before the pods go."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from distcluster.kubernetes.kubectl import Kubectl
from distcluster.kubernetes.objects import COMPONENT, Object


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


@dataclass(slots=True)
class DriverLog:
    """The log of a job's drivers, each line once, however often it is asked for."""

    kubectl: Kubectl
    _last: dict[str, str] = field(default_factory=dict)

    def new_lines(self, pod: str) -> list[str]:
        """Lines that a pod has printed since the last time."""
        last = self._last.get(pod, "")
        since = [f"--since-time={last}"] if last else []
        found = []
        for line in self.kubectl.log(pod, "--container", "driver", "--timestamps", *since).splitlines():
            # --since-time counts whole seconds. One pod's times are of one width and one zone: text compares.
            stamp, _, text = line.partition(" ")
            if stamp > last:
                found.append(text)
                self._last[pod] = stamp
        return found
