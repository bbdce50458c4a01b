"""The pods of one submission, played by podman."""

import time
from collections.abc import Callable
from pathlib import Path

from play import Machine, as_pod, as_stored

from distcluster.execution.connect import new_certificate
from distcluster.kubernetes.manifests import render, tls_secret
from distcluster.kubernetes.objects import Object, of_component
from distcluster.kubernetes.submit import prepare


class Played:
    """The pods of one submission."""

    def __init__(self, opened: Machine, job: Path, secret: dict[str, str] | None = None) -> None:
        self._machine, self._data, self._name, self._secret = opened, job.parent, job.stem, secret or {}
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
        self._wait(lambda: self._log_of(self.scheduler).count("Register worker") == 2, 120)
        self.attempts = 0
        self.driver = self.start_driver()

    def _play(self, role: str, suffix: str, alias: str | None = None) -> str:
        pod = as_pod(self._templates[role], f"{self._name}-{role}-{suffix}", self._data, self._secret)
        return self._machine.play(pod, self._settings, alias)

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
        self._wait(lambda: not any(self._machine.state(each)["Running"] for each in servers), 60)
        return [self._machine.state(each)["ExitCode"] for each in servers]

    def committed(self) -> int:
        """Items committed so far, on the volume."""
        return len(list((self._data / self._name / "commit").rglob("*/*.json")))

    def wait_until_half_done(self) -> None:
        """Wait until the grid is under way."""
        self._wait(lambda: self.committed() >= 40, 300)

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self._log_of(self.scheduler)
            time.sleep(0.1)

    def log(self) -> str:
        """What the driver says."""
        return self._log_of(self.driver)

    def _log_of(self, container: str) -> str:
        return self._machine.run("sh", "-c", f"podman logs {container} 2>&1", check=False)

    def exit_codes(self) -> list[int]:
        """Wait for the driver's end, and start it again on 75, as the Job does."""
        codes = []
        while True:
            codes.append(int(self._machine.podman("wait", self.driver)))
            if codes[-1] != 75 or len(codes) == 3:
                return codes
            self.driver = self.start_driver()

    def stop(self) -> None:
        """Remove the pods."""
        self._machine.remove_pods()
        self._machine.podman("secret", "rm", f"{self._name}-tls", check=False)
