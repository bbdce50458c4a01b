"""What only a real cluster shows, on any that KUBECONFIG names; skipped, with the reason, where there is none.

    export KUBECONFIG=... DISTCLUSTER_IMAGE=registry.example.com/distcluster:0.1.0
    python -m pytest tests/kubernetes/test_cluster.py

The nodes must get at the image, the default storage class must give a claim of 1 GiB (with several nodes, one that many
of them may mount: DISTCLUSTER_ACCESS_MODE=ReadWriteMany), and the network must enforce NetworkPolicies. Everything lies
in a namespace of its own, under "restricted", that goes at the end; it takes some ten minutes.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from conftest import RESULTS

from distcluster.kubernetes.kubectl import Kubectl, KubectlError
from distcluster.kubernetes.manifests import render
from distcluster.kubernetes.objects import Object, of_component
from distcluster.kubernetes.submit import prepare
from distcluster.kubernetes.submitted import look
from jobs import PLANTED, write_job

IMAGE = os.environ.get("DISTCLUSTER_IMAGE", "distcluster:0.1.0")
ACCESS_MODE = os.environ.get("DISTCLUSTER_ACCESS_MODE", "ReadWriteOnce")
USER = "10001"


def missing() -> str | None:
    """Why there is no cluster here."""
    if "KUBECONFIG" not in os.environ:
        return "KUBECONFIG names no cluster"
    if shutil.which("kubectl") is None:
        return "not on this machine: kubectl"
    try:
        Kubectl().run("version", "--request-timeout=10s")
    except KubectlError as error:
        return str(error)
    return None


_MISSING = missing()
pytestmark = [pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING)), pytest.mark.timeout(900)]

INPUT = """
import numpy as np, zarr
random = np.random.default_rng(0)
rows = random.normal(scale=8.0, size=(8, 16))[random.integers(8, size=16_284)] + random.normal(size=(16_284, 16))
zarr.create_array("/data/input.zarr", name="embeddings", data=rows.astype(np.float32), chunks=(1000, 16))
"""
DIGEST = """
import hashlib, sys
from distcluster.storage.run import Run
run = Run(sys.argv[1])
for name in sys.argv[2:]:
    print(name, hashlib.sha256(run.array(name)[:].tobytes()).hexdigest())
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 8787), timeout=10).close()
    print("open")
except OSError:
    print("closed")
"""


class Place:
    """A namespace with the input on a volume."""

    def __init__(self, kubectl: Kubectl, directory: Path) -> None:
        self.kubectl, self.directory = kubectl, directory

    def job(self, output: str, **changes: Any) -> Path:
        """A job file; its name and its output's are one."""
        return write_job(self.directory, output, IMAGE, PLANTED, **changes)

    @contextmanager
    def submitted(self, job: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
        """The job, submitted under its file's name and followed."""
        namespace = str(self.kubectl.namespace)
        command = [sys.executable, "-m", "distcluster", "submit", str(job), "--namespace", namespace]
        command += ["--name", job.stem, *options]
        environ = os.environ | {"XDG_STATE_HOME": str(self.directory)}  # where logs are kept
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environ, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    def kept_logs(self, name: str, role: str) -> list[str]:
        """The logs that a submission's clean-up has kept of the pods of a role."""
        return [path.read_text() for path in (self.directory / "distcluster" / name).glob(f"{name}-{role}-*.log")]

    def pod(self, name: str, role: str) -> Object:
        """The newest pod of a role."""
        return look(self.kubectl, name).of_role(role)[-1]

    def digests(self, output: str) -> str:
        """Names and checksums of a run's results."""
        return self.run_python(f"digest-{output}", DIGEST, f"/data/{output}", *RESULTS)

    def run_python(self, name: str, code: str, *arguments: str) -> str:
        """What a program prints that runs in a pod like the driver's, but of no submission."""
        job = of_component(render(prepare(self.job("of-no-job"), name=name)), "driver")
        spec = job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        ours = {"job", "tls"}  # belong to a submission
        container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] not in ours]
        spec["volumes"] = [each for each in spec["volumes"] if each["name"] not in ours]
        del spec["serviceAccountName"], container["envFrom"]
        container["env"] = [{"name": key, "value": "/scratch"} for key in ("HOME", "NUMBA_CACHE_DIR")]
        container["args"] = ["python", "-c", code, *arguments]
        self.kubectl.create([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}])
        self.kubectl.run("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=300s")
        return self.kubectl.log(name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    name = f"distcluster-test-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    claim = {"accessModes": [ACCESS_MODE], "resources": {"requests": {"storage": "1Gi"}}}
    Kubectl().create([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}])
    try:
        kubectl = Kubectl(namespace=name)
        kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        kubectl.create([kind | {"metadata": {"name": "shared"}, "spec": claim}])
        made = Place(kubectl, tmp_path_factory.mktemp("cluster"))
        made.run_python("input", INPUT)
        yield made
    finally:
        Kubectl().delete("namespace", name)


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> str:
    """Checksums of a job's results that nothing disturbed."""
    with place.submitted(place.job("undisturbed")) as process:
        printed, said = process.communicate()
    assert process.returncode == 0, said
    assert "Report: /data/undisturbed/report/index.html" in printed
    return place.digests("undisturbed")


def until(process: subprocess.Popen[str], stage: str) -> None:
    """Wait until the driver has told of a stage's end."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(stage):
            return
    raise AssertionError(process.communicate()[1])


def test_a_followed_job_leaves_nothing_behind(place: Place, undisturbed: str) -> None:
    deadline = time.monotonic() + 180
    while (seen := look(place.kubectl, "undisturbed")).pods and time.monotonic() < deadline:
        time.sleep(1)
    assert (seen.job, seen.pods) == (None, [])
    assert not place.kubectl.exists("secret", "undisturbed-tls")


def lose_scheduler(place: Place, name: str) -> None:
    place.kubectl.run("delete", "pod", place.pod(name, "scheduler")["metadata"]["name"], "--grace-period=0", "--force")


def drain_worker(place: Place, name: str) -> None:
    place.kubectl.run("delete", "pod", place.pod(name, "worker")["metadata"]["name"], "--wait=false")


@pytest.mark.parametrize(
    ("name", "strike", "n_drivers"), [("lost-scheduler", lose_scheduler, 2), ("drained-worker", drain_worker, 1)]
)
def test_a_lost_pod_changes_no_byte(
    place: Place, undisturbed: str, name: str, strike: Callable[[Place, str], None], n_drivers: int
) -> None:
    with place.submitted(place.job(name)) as process:
        until(process, "build_index")
        strike(place, name)
        said = process.communicate()[1]
    assert process.returncode == 0, said
    assert len(place.kept_logs(name, "driver")) == n_drivers  # the Job has tried again, or did not have to
    if strike is drain_worker:  # by the kubelet, before it stopped the worker
        assert any("Retired worker" in log for log in place.kept_logs(name, "scheduler"))
    assert place.digests(name) == undisturbed


def test_a_wrong_input_is_tried_once(place: Place) -> None:
    with place.submitted(place.job("wrong", input__url="/data/none.zarr")) as process:
        _, said = process.communicate()
    assert process.returncode == 2, said
    (log,) = place.kept_logs("wrong", "driver")
    assert "/data/none.zarr" in log


def test_the_dashboard_is_forwarded_and_open_to_no_other_pod(place: Place) -> None:
    with place.submitted(place.job("watched"), "--dashboard") as process:
        assert process.stderr is not None
        link = next(line.split()[-1] for line in process.stderr if "Dashboard: http" in line)
        with urlopen(link.replace("/status", "/health")) as answer:
            assert answer.read() == b"ok"
        until(process, "scan")
        scheduler, worker = place.pod("watched", "scheduler"), place.pod("watched", "worker")
        conditions = {each["type"]: each["status"] for each in scheduler["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        key = "/etc/distcluster/tls/tls.key"
        mode = place.kubectl.run("exec", scheduler["metadata"]["name"], "--", "stat", "-L", "-c", "%a %g", key)
        assert mode.split() == ["440", USER]
        service = "watched-scheduler"
        own = place.kubectl.run("exec", worker["metadata"]["name"], "--", "python", "-c", CONNECT, service)
        assert (own.strip(), place.run_python("stranger", CONNECT, service).strip()) == ("open", "closed")
        subprocess.run(
            [sys.executable, "-m", "distcluster", "cancel", "watched", "--namespace", str(place.kubectl.namespace)],
            env=os.environ | {"XDG_STATE_HOME": str(place.directory)},
            check=True,
        )
        process.communicate()
    assert process.returncode == 1


def test_the_operator_runs_the_same_job(place: Place, undisturbed: str) -> None:
    if not Kubectl().exists("crd", "daskclusters.kubernetes.dask.org"):
        pytest.skip("the cluster has no dask-kubernetes operator")
    with place.submitted(place.job("operator"), "--backend", "operator") as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    assert place.digests("operator") == undisturbed
