"""Play rendered manifests with podman: real containers of the real image, on one machine, without a cluster.

What podman's own player lacks is made up for: a Job's template becomes Pods, a Service becomes a
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
from tempfile import TemporaryFile
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


STORAGE = """
[storage]
driver = "overlay"
graphroot = "{directory}/graph"
runroot = "{directory}/run"
[storage.options]
additionalimagestores = ["/var/lib/containers/storage"]
"""
"""Everything but the image itself is the test's own, so that nothing outlives a test, however it ends."""


class Machine:
    """Network, mounts and storage of their own, so that the machine's stay as they are, with podman inside."""

    def __init__(self, directory: Path) -> None:
        (directory / "containers.conf").write_text(CONFIGURATION)
        (directory / "storage.conf").write_text(STORAGE.format(directory=directory))
        self._environ = os.environ | {
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",  # podman's network wants iptables
        }
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sleep", "infinity"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.pods: list[str] = []

    def start(self) -> None:
        """Set up the network."""
        own = [Path(f"/proc/{process}/ns/net") for process in ("self", self._process.pid)]
        while own[0].readlink() == own[1].readlink():
            time.sleep(0.01)
        self.run("ip", "link", "set", "lo", "up")
        for directory in ("/run", "/etc/containers/networks"):  # where podman notes networks and what runs
            self.run("mkdir", "--parents", directory)
            self.run("mount", "-t", "tmpfs", "tmpfs", directory)
        self.podman("network", "create", NETWORK)

    def run(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        """Run a command inside; what it prints."""
        # Files, not pipes: what watches a container inherits them, and a pipe would only end with the container.
        with TemporaryFile("w+") as printed, TemporaryFile("w+") as errors:
            process = self.start_process(*argv, stdin=subprocess.PIPE, stdout=printed, stderr=errors)
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
            code = process.wait(timeout=1200)
            printed.seek(0)
            errors.seek(0)
            assert code == 0 or not check, f"{' '.join(argv)}: {errors.read()}"
            return printed.read()

    def start_process(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command inside."""
        return subprocess.Popen([*self.inside(), *argv], text=True, env=self._environ, **options)

    def inside(self) -> list[str]:
        """What to put before a command so that it runs inside."""
        return ["nsenter", f"--target={self._process.pid}", "--net", "--mount"]

    def podman(self, *argv: str, check: bool = True, stdin: str = "") -> str:
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

    def address(self, container: str) -> str:
        """A container's address on the network."""
        found = self.run(
            "nsenter", f"--target={self.state(container)['Pid']}", "--net", "hostname", "--all-ip-addresses"
        )
        return found.split()[0]

    def gateway(self) -> str:
        """Where containers reach what runs beside them in here."""
        (network,) = json.loads(self.podman("network", "inspect", NETWORK))
        return str(network["subnets"][0]["gateway"])

    def oom_kills(self, container: str) -> int:
        """How often the kernel has killed a process of a container for its memory limit."""
        lines = Path(f"/proc/{self.state(container)['Pid']}/cgroup").read_text().splitlines()
        groups = dict(line.split(":", 2)[1:] for line in lines)
        if "memory" in groups:  # the first version of control groups
            file = Path(f"/sys/fs/cgroup/memory{groups['memory']}/memory.oom_control")
        else:
            file = Path(f"/sys/fs/cgroup{groups['']}/memory.events")
        counts = dict(line.split() for line in file.read_text().splitlines())
        return int(counts["oom_kill"])

    def set_link(self, container: str, state: str) -> None:
        """Cut a container off the network, or connect it again."""
        self.run("nsenter", f"--target={self.state(container)['Pid']}", "--net", "ip", "link", "set", "eth0", state)

    def set_port(self, number: int, state: str) -> None:
        """Refuse what is sent to a port of what runs beside the containers, or take it again."""
        rule = ["INPUT", "--protocol", "tcp", "--dport", str(number), "--jump", "REJECT", "--reject-with", "tcp-reset"]
        self.run("iptables", {"down": "--insert", "up": "--delete"}[state], *rule)

    def remove_pods(self) -> None:
        """Remove all pods with their containers."""
        if self.pods:
            self.podman("pod", "rm", "--force", "--time", "0", *self.pods, check=False)
        self.pods.clear()

    def close(self) -> None:
        """Remove all that was started."""
        self.remove_pods()
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


def as_pod(template: Object, name: str, directory: Path, secret: dict[str, str]) -> Object:
    """The Pod that a Job's template stands for, as podman plays it.

    Claims are the directory, and Secrets that become variables hold what is given.
    """
    spec = copy.deepcopy(template["spec"])
    (container,) = spec["containers"]
    # A kubelet probes over HTTP; this player would run curl inside, which the image does not have.
    # It also publishes every port on the machine, where two workers would meet.
    for key in ("readinessProbe", "livenessProbe", "lifecycle", "ports"):
        container.pop(key, None)
    container["imagePullPolicy"] = "Never"
    container["envFrom"] = [source for source in container["envFrom"] if "secretRef" not in source]
    # A kubelet takes these from the pod's name and from Secrets.
    container["args"] = [each.replace("$(DASK_WORKER_NAME)", name) for each in container["args"]]
    container["env"] = [{"name": each["name"], "value": name} for each in container.get("env", [])]
    container["env"] += [{"name": key, "value": value} for key, value in secret.items()]
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
