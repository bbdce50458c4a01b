"""What kubectl is asked: objects as JSON in and out, logs as text."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from distcluster.errors import WRONG, ExpectedError
from distcluster.kubernetes.objects import Object


class KubectlError(ExpectedError, RuntimeError):
    """kubectl is not there, or says no: its own words."""

    exit_code = WRONG


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with a context and a namespace; absent, those of its configuration."""

    context: str | None = None
    namespace: str | None = None

    def argv(self, *arguments: str) -> list[str]:
        """The command line, also for a person to copy."""
        command = ["kubectl"]
        if self.context is not None:
            command += ["--context", self.context]
        if self.namespace is not None:
            command += ["--namespace", self.namespace]
        return [*command, *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run it to its end; what it prints.

        Raises
        ------
        KubectlError
            When it fails, or is not on this machine.
        """
        if shutil.which("kubectl") is None:
            raise KubectlError("kubectl is not on this machine: install it, or use --dry-run")
        argv = self.argv(*arguments)
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KubectlError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
        return done.stdout

    def create(self, objects: Iterable[Object]) -> list[Object]:
        """Create objects, in their order; as the cluster stored them."""
        return [json.loads(self.run("create", "-f", "-", "-o", "json", stdin=json.dumps(each))) for each in objects]

    def get(self, kinds: str, *options: str) -> list[Object]:
        """Objects of some kinds (comma-separated); options such as --selector narrow them down."""
        return list(json.loads(self.run("get", kinds, "--output", "json", *options))["items"])

    def exists(self, kind: str, name: str) -> bool:
        """Whether an object is there, as far as we may know."""
        try:
            return bool(self.run("get", kind, name, "--ignore-not-found", "--output", "name"))
        except KubectlError as error:
            if "orbidden" in str(error):  # who may not read Secrets may still use them
                return True
            raise

    def patch(self, kind: str, name: str, change: Object) -> None:
        """Change some fields of an object."""
        self.run("patch", kind, name, "--type", "merge", "--patch", json.dumps(change))

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and, in the background, all that it owns."""
        self.run("delete", kind, name, "--ignore-not-found", "--wait=false")

    def log(self, pod: str, *options: str) -> str:
        """What a pod has printed; nothing while it has not started, or when it is gone."""
        try:
            return self.run("logs", pod, *options)
        except KubectlError:
            return ""
