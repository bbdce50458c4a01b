"""What tests of submissions share: the command line, objects on a cluster, and the states of their pods."""

import subprocess
import sys

from cluster import Cluster, Object
from test_manifests import DEFAULT

from distcluster.kubernetes.kubectl import Kubectl
from distcluster.kubernetes.submit import apply, objects_of, prepare

RUNNING = {"phase": "Running", "containerStatuses": [{"name": "it", "state": {"running": {}}, "ready": True}]}
NAME = "first"
ROLES = ["scheduler", "worker", "driver"]
"""In the order in which their Jobs are started."""
SCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no memory."}


def terminated(code: int, reason: str = "Error") -> Object:
    """A container that has ended."""
    return {"name": "it", "state": {"terminated": {"exitCode": code, "reason": reason}}}


def waiting(reason: str, message: str = "") -> Object:
    """A container that has not started."""
    return {"name": "it", "state": {"waiting": {"reason": reason, "message": message}}}


def command(*arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "distcluster", *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, what goes to standard output, and what to standard error."""
    process = command(*arguments)
    printed, errors = process.communicate(timeout=120)
    return process.returncode, printed, errors


def start_all(cluster: Cluster) -> None:
    for role, suffixes in (("scheduler", ["a"]), ("worker", ["a", "b"]), ("driver", ["1"])):
        for suffix in suffixes:
            name = cluster.start_pod(role, suffix, RUNNING)
            cluster.logs[name] = [f"2026-11-23T12:00:01.000000001Z {role} {suffix} says hello"]


def submitted(cluster: Cluster, *overrides: str) -> Kubectl:
    """A submission's objects on the cluster, without the command line."""
    apply(Kubectl(), objects_of(prepare(DEFAULT, overrides, name=NAME)))
    return Kubectl()
