"""The Dask dashboard of a submission on this machine, by kubectl's port-forward."""

import socket
import subprocess
from collections.abc import Callable

from distcluster.kubernetes.follow import Submitted
from distcluster.kubernetes.kubectl import Kubectl
from distcluster.kubernetes.submission import DASHBOARD_PORT


class DashboardForward:
    """A forwarded port that comes back when its pod does, until it is closed."""

    def __init__(self, kubectl: Kubectl, service: str, say: Callable[[str], None]) -> None:
        self._kubectl, self._service, self._say = kubectl, service, say
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def keep_open(self, seen: Submitted) -> None:
        """Forward once the scheduler runs, and again after it was lost."""
        running = any(pod.get("status", {}).get("phase") == "Running" for pod in seen.of_role("scheduler"))
        if not running or (self._process is not None and self._process.poll() is None):
            return
        self.close()
        port = self._port or _free_port()
        argv = self._kubectl.argv("port-forward", f"service/{self._service}", f"{port}:{DASHBOARD_PORT}")
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() and not self._port:  # it says where, or ends without a word
            self._port = port
            self._say(f"Dashboard: http://localhost:{port}/status")

    def close(self) -> None:
        """Stop forwarding."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


def _free_port() -> int:
    """Dask's usual port, or another one where that is taken."""
    for port in (DASHBOARD_PORT, 0):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise OSError("no free port on this machine")
