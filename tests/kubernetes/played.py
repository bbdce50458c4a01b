"""The pods of one submission, played by podman."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from play import Machine, as_pod, as_stored

from distcluster.execution.connect import new_certificate
from distcluster.kubernetes.manifests import render, tls_secret
from distcluster.kubernetes.objects import Object, of_component
from distcluster.kubernetes.submit import prepare


class Played:
    """The pods of one submission.

    Parameters
    ----------
    opened : Machine
    job : Path
    secret : dict of str to str
        The variables of the Secret that the job names.
    sidecars : mapping of str to str
        Containers that a mesh would inject beside the driver: what their shells run, by name.
    early : callable
        What happens when scheduler and workers are there, and no driver.
    """

    def __init__(
        self,
        opened: Machine,
        job: Path,
        secret: Mapping[str, str] = {},
        sidecars: Mapping[str, str] = {},
        early: Callable[["Played"], object] = lambda _: None,
    ) -> None:
        self._machine, self._data, self._name = opened, job.parent, job.stem
        self.secret, self._sidecars = dict(secret), sidecars
        objects = render(prepare(job, name=self._name))
        self._settings = [each for each in objects if each["kind"] == "ConfigMap"]
        self._templates: dict[str, Object] = {
            role: of_component(objects, role)["spec"]["template"] for role in ("scheduler", "worker", "driver")
        }
        (container,) = self._templates["worker"]["spec"]["containers"]
        self.hand_over: list[str] = container["lifecycle"]["preStop"]["exec"]["command"]
        certificate = as_stored(tls_secret(self._name, None, new_certificate()))
        opened.podman("secret", "create", f"{self._name}-tls", "-", stdin=certificate)
        self.scheduler = self._play("scheduler", "pod", f"{self._name}-scheduler")
        self.workers = [self._play("worker", f"pod{index}") for index in range(2)]
        # One alone may have done half of the job before the other is there for a fault to strike.
        self.wait(lambda: self._log_of(self.scheduler).count("Register worker") == 2, 120)
        self.attempts = 0
        early(self)
        self.driver = self.start_driver()

    def _play(self, role: str, suffix: str, alias: str | None = None) -> str:
        pod = as_pod(self._templates[role], f"{self._name}-{role}-{suffix}", self._data, self.secret)
        if role == "driver":
            (ours,) = pod["spec"]["containers"]
            alike = {"image": ours["image"], "imagePullPolicy": "Never", "command": ["sh", "-c"]}
            pod["spec"]["containers"] += [
                alike | {"name": name, "args": [script]} for name, script in self._sidecars.items()
            ]
        return self._machine.play(pod, self._settings, alias)

    def drivers_pod(self) -> Object:
        """The last driver's pod as a kubelet reports it, by what podman says of its containers."""
        name = self.driver.removesuffix("-driver")
        states = {each: self._machine.state(f"{name}-{each}") for each in ("driver", *self._sidecars)}
        reported = [{"name": each, "state": _reported(state)} for each, state in states.items()]
        labels = self._templates["driver"]["metadata"]["labels"]
        return {"metadata": {"name": name, "labels": labels}, "status": {"containerStatuses": reported}}

    def start_driver(self) -> str:
        """The Job's next attempt."""
        self.attempts += 1
        return self._play("driver", f"pod{self.attempts}")

    def replace_worker(self, index: int) -> None:
        """Another pod for a worker that has died, as its Job makes it."""
        self._machine.podman("wait", self.workers[index])
        self.workers[index] = self._play("worker", f"pod{index}-again")

    def leave(self) -> list[int]:
        """Wait until scheduler and workers have left, a minute at most; their exit codes."""
        servers = [self.scheduler, *self.workers]
        self.wait(lambda: not any(self._machine.state(each)["Running"] for each in servers), 60)
        return [self._machine.state(each)["ExitCode"] for each in servers]

    def committed(self) -> int:
        """Items committed so far, on the volume."""
        return len(list((self._data / self._name / "commit").rglob("*/*.json")))

    def wait_until_half_done(self) -> None:
        """Wait until the grid is under way."""
        self.wait(lambda: self.committed() >= 40, 300, pause=0.1)

    def wait(self, done: Callable[[], bool], seconds: float, pause: float = 0.5) -> None:
        """Wait for what pods do, so long at most; who asks podman each time takes a core while it does not pause."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self._log_of(self.scheduler)
            time.sleep(pause)

    def log(self) -> str:
        """What the driver says."""
        return self._log_of(self.driver)

    def _log_of(self, container: str) -> str:
        return self._machine.run("sh", "-c", f"podman logs {container} 2>&1", check=False)

    def exit_code(self) -> int:
        """Wait for the driver's end."""
        return int(self._machine.podman("wait", self.driver))

    def exit_codes(self) -> list[int]:
        """Wait for the driver's end, and start it again on 75, as the Job does."""
        codes = []
        while True:
            codes.append(self.exit_code())
            if codes[-1] != 75 or len(codes) == 3:
                return codes
            self.driver = self.start_driver()

    def stop(self) -> None:
        """Remove the pods."""
        self._machine.remove_pods()
        self._machine.podman("secret", "rm", f"{self._name}-tls", check=False)


def _reported(state: dict[str, Any]) -> Object:
    return {"running": {}} if state["Running"] else {"terminated": {"exitCode": state["ExitCode"]}}
