"""The real image and the rendered manifests, played by podman: faults while a job runs change no byte of it."""

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, unequal
from play import Machine, as_pods, as_stored, machine

from distcluster.deploy import new_certificate
from distcluster.manifests import Object, render, tls_secret
from distcluster.run import Run
from distcluster.submit import prepare

log = logging.getLogger(__name__)

IMAGE = "localhost/distcluster:0.1.0"
USER = 10001


def missing() -> str | None:
    """Why this machine cannot play pods."""
    programs = ("podman", "runc", "unshare", "nsenter")
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        return f"not on this machine: {', '.join(absent)}"
    if os.geteuid() != 0:
        return "network namespaces want root"
    if subprocess.run(["podman", "image", "exists", IMAGE], check=False, capture_output=True).returncode != 0:
        return f"no image {IMAGE}: build k8s/Dockerfile"
    return None


pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def played(planted: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Path]]:
    """A machine, and the directory that its pods see as /data, with the input and an undisturbed local run in it."""
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(planted[0], data / "input.zarr")
    for path in (data, *data.rglob("*")):
        os.chown(path, USER, USER)
    with machine(tmp_path_factory.mktemp("machine")) as opened:
        write_job(data, "local")
        command = ["distcluster", "run", "/data/local.toml", "--set", "deploy.kind=local"]
        mounts = ["--volume", f"{data}:/data", "--read-only", "--tmpfs", "/scratch:mode=1777"]
        environ = ["--env", "HOME=/scratch", "--env", "NUMBA_CACHE_DIR=/scratch/numba"]
        opened.podman("run", "--rm", "--network=none", *mounts, *environ, IMAGE, *command)
        yield opened, data


def write_job(data: Path, name: str) -> Path:
    """A job whose output is named after the test."""
    settings = {key: value for key, value in SMALL.items() if not key.startswith("deploy.")} | {
        "input.url": "/data/input.zarr",
        "output.url": f"/data/{name}",
        "deploy.volume": "shared",
        "deploy.image": IMAGE,
        "deploy.worker_memory": "1GiB",
    }
    path = data / f"{name}.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items()) + "\n")
    return path


class Played:
    """The pods of one submission."""

    def __init__(self, opened: Machine, data: Path, name: str) -> None:
        submission = prepare(write_job(data, name), name=name)
        objects = render(submission)
        self._machine, self._data, self._name = opened, data, name
        self._settings = [each for each in objects if each["kind"] == "ConfigMap"]
        self._templates: dict[str, Object] = {
            each["metadata"]["name"].removeprefix(f"{name}-"): each["spec"]["template"]
            for each in objects
            if each["kind"] in ("Deployment", "Job")
        }
        self._attempts = 0
        secret = as_stored(tls_secret(name, None, new_certificate()))
        opened.podman("secret", "create", f"{name}-tls", "-", stdin=secret)
        (self.scheduler,) = self._play("scheduler", 1, f"{name}-scheduler")
        self.workers = self._play("worker", 2)
        self.driver = self.start_driver()

    def _play(self, role: str, number: int, alias: str | None = None, suffix: str = "pod") -> list[str]:
        pods = as_pods(self._templates[role], f"{self._name}-{role}-{suffix}", number, self._data)
        return [self._machine.play(pod, self._settings, alias) for pod in pods]

    def start_driver(self) -> str:
        """The Job's next attempt."""
        self._attempts += 1
        (driver,) = self._play("driver", 1, suffix=f"pod{self._attempts}")
        return driver

    def committed(self) -> int:
        """Items committed so far."""
        return len(list((self._data / self._name / "commit").glob("*/*.json")))

    def wait(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self._machine.podman("logs", self.driver, check=False)
            time.sleep(0.05)

    def exit_code(self) -> int:
        """Wait for the driver's end."""
        self.wait(lambda: not self._machine.state(self.driver)["Running"], 120)
        return int(self._machine.state(self.driver)["ExitCode"])

    def stop(self) -> None:
        """Remove the pods."""
        for pod in self._machine.pods:
            self._machine.remove(pod)
        self._machine.pods.clear()
        self._machine.podman("secret", "rm", f"{self._name}-tls", check=False)


def kill_worker(machine: Machine, pods: Played) -> None:
    machine.kill(pods.workers[0])


def pause_worker(machine: Machine, pods: Played) -> None:
    machine.podman("pause", pods.workers[0])
    time.sleep(10)
    machine.podman("unpause", pods.workers[0])


def cut_worker(machine: Machine, pods: Played) -> None:
    machine.set_link(pods.workers[0], "down")


def kill_scheduler(machine: Machine, pods: Played) -> None:
    machine.kill(pods.scheduler)


FAULTS: dict[str, tuple[Callable[[Machine, Played], None] | None, list[int]]] = {
    "undisturbed": (None, [0]),
    "worker-killed": (kill_worker, [0]),
    "worker-paused": (pause_worker, [0]),
    "worker-cut": (cut_worker, [0]),
    "scheduler-killed": (kill_scheduler, [75, 0]),
}
"""What happens in the middle of the job, and the exit codes of the driver's attempts."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_no_byte(played: tuple[Machine, Path], fault: str) -> None:
    opened, data = played
    strike, codes = FAULTS[fault]
    pods = Played(opened, data, fault)
    try:
        pods.wait(lambda: pods.committed() >= 40, 120)
        started = time.monotonic()
        if strike is not None:
            strike(opened, pods)
        found = [pods.exit_code()]
        while found[-1] == 75 and len(found) < 3:  # as the Job does
            pods.driver = pods.start_driver()
            found.append(pods.exit_code())
        log.info("%s: exit codes %s, %.1f s from the fault to the end", fault, found, time.monotonic() - started)
        assert found == codes, opened.podman("logs", pods.driver, check=False)
    finally:
        pods.stop()
    assert unequal(Run(str(data / "local")), Run(str(data / fault))) == []


def test_the_container_may_write_nowhere_else_and_is_not_root(played: tuple[Machine, Path]) -> None:
    opened, _ = played
    script = "id -u; touch /opt/distcluster/x /etc/x 2>/dev/null && echo writable; python -c 'import pip' 2>/dev/null"
    printed = opened.podman("run", "--rm", "--network=none", "--read-only", IMAGE, "sh", "-c", script, check=False)
    assert printed.split() == [str(USER)]
