"""Play rendered manifests with podman: real containers of the real image, on one machine, without a cluster.

What podman's own player lacks is made up for: a Deployment's and a Job's template become Pods, a Service becomes a
network alias, a claim a directory, and volumes get names of their own, because it shares those of one name.
"""

import copy
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

NETWORK = "distcluster-test"

Object = dict[str, Any]

CONFIGURATION = """
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
"""


class Machine:
    """Network and mounts of their own, so that the machine's stay as they are, with podman inside."""

    def __init__(self, directory: Path) -> None:
        self._configuration = directory / "containers.conf"
        self._configuration.write_text(CONFIGURATION)
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sleep", "infinity"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.pods: list[str] = []

    def start(self) -> None:
        """Set up the network."""
        time.sleep(0.5)  # unshare has no way to say that it is done
        self.run("ip", "link", "set", "lo", "up")
        self.podman("network", "create", NETWORK)
        self._volumes = set(self.podman("volume", "ls", "--quiet").split())

    def run(self, *argv: str, check: bool = True, stdin: str | None = None) -> str:
        """Run a command inside; what it prints."""
        inside = ["nsenter", f"--target={self._process.pid}", "--net", "--mount", *argv]
        environ = os.environ | {"CONTAINERS_CONF": str(self._configuration)}
        done = subprocess.run(
            inside, capture_output=True, text=True, check=False, env=environ, input=stdin, timeout=300
        )
        assert done.returncode == 0 or not check, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout

    def podman(self, *argv: str, check: bool = True, stdin: str | None = None) -> str:
        """Run podman inside."""
        return self.run("podman", *argv, check=check, stdin=stdin)

    def play(self, pod: Object, settings: list[Object], alias: str | None = None) -> str:
        """Start a Pod with the ConfigMaps that it refers to; the name of its container."""
        name = pod["metadata"]["name"]
        self.pods.append(name)
        network = NETWORK if alias is None else f"{NETWORK}:alias={alias}"
        self.podman("kube", "play", f"--network={network}", "-", stdin=yaml.safe_dump_all([*settings, pod]))
        return f"{name}-{pod['spec']['containers'][0]['name']}"

    def state(self, container: str) -> dict[str, Any]:
        """What podman knows of a container's process."""
        state: dict[str, Any] = json.loads(self.podman("container", "inspect", container))[0]["State"]
        return state

    def kill(self, container: str) -> None:
        """End a container's first process as the kernel would."""
        os.kill(self.state(container)["Pid"], signal.SIGKILL)

    def set_link(self, container: str, state: str) -> None:
        """Cut a container off the network, or connect it again."""
        self.run("nsenter", f"--target={self.state(container)['Pid']}", "--net", "ip", "link", "set", "eth0", state)

    def remove(self, pod: str) -> None:
        """Remove a pod with its containers."""
        self.podman("pod", "rm", "--force", "--time", "2", pod, check=False)

    def close(self) -> None:
        """Remove all that was started."""
        for pod in self.pods:
            self.remove(pod)
        # ConfigMaps and Secrets become volumes that outlive their pods.
        for volume in set(self.podman("volume", "ls", "--quiet", check=False).split()) - self._volumes:
            self.podman("volume", "rm", "--force", volume, check=False)
        self.podman("network", "rm", "--force", NETWORK, check=False)
        self._process.kill()
        self._process.wait()


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """A machine for the time of a test."""
    opened = Machine(directory)
    try:
        opened.start()
        yield opened
    finally:
        opened.close()


def as_pods(template: Object, name: str, number: int, volume: Path) -> list[Object]:
    """The Pods that a Deployment's or Job's template stands for, as podman plays them."""
    return [_as_pod(template, name if number == 1 else f"{name}-{index}", volume) for index in range(number)]


def _as_pod(template: Object, name: str, directory: Path) -> Object:
    spec = copy.deepcopy(template["spec"])
    (container,) = spec["containers"]
    # A kubelet probes over HTTP; this player would run curl inside, which the image does not have.
    # It also publishes every port on the machine, where two workers would meet.
    for key in ("readinessProbe", "livenessProbe", "lifecycle", "ports"):
        container.pop(key, None)
    container["imagePullPolicy"] = "Never"
    # A kubelet replaces these from the environment.
    container["args"] = [each.replace("$(DASK_WORKER_NAME)", name) for each in container["args"]]
    renamed = {volume["name"]: f"{name}-{volume['name']}" for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        mount["name"] = renamed[mount["name"]]
    for volume in spec["volumes"]:
        volume["name"] = renamed[volume["name"]]
        if "persistentVolumeClaim" in volume:
            del volume["persistentVolumeClaim"]
            volume["hostPath"] = {"path": str(directory), "type": "Directory"}
        if "secret" in volume:
            volume["secret"]["optional"] = False
    labels = template["metadata"]["labels"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def as_stored(secret: Object) -> str:
    """A Secret as podman 4 mounts it: it does not decode base64, so the text lies there as it is."""
    metadata = {"name": secret["metadata"]["name"]}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret["stringData"]})
