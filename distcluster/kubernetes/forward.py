"""The Dask dashboard of a submission on this machine, by kubectl's port-forward."""

import socket
from collections.abc import Callable

from distcluster.kubernetes.kubectl import Kubectl
from distcluster.kubernetes.streams import Ended, Streams
from distcluster.kubernetes.submission import DASHBOARD_PORT
from distcluster.kubernetes.submitted import Submitted


class DashboardForward:
    """A forwarded port that comes back when its pod does, until it is closed."""

    def __init__(self, kubectl: Kubectl, service: str, say: Callable[[str], None]) -> None:
        self._kubectl, self._service, self._say = kubectl, service, say
        self._streams = Streams()
        self._port, self._is_told = 0, False

    def keep_open(self, seen: Submitted) -> None:
        """Forward once the scheduler runs, and again after it was lost; to be called again and again."""
        for _, part in self._streams.take(0.0):
            if isinstance(part, Ended):
                self._port = self._port if self._is_told else 0  # another may be free
            elif not self._is_told:  # kubectl says where, or ends without a word
                self._is_told = True
                self._say(f"Dashboard: http://localhost:{self._port}/status")
        running = any(pod.get("status", {}).get("phase") == "Running" for pod in seen.of_role("scheduler"))
        if running and not self._streams.is_open(self._service):
            self._port = self._port or _free_port()
            argv = self._kubectl.argv("port-forward", f"service/{self._service}", f"{self._port}:{DASHBOARD_PORT}")
            self._streams.open(self._service, argv)

    def close(self) -> None:
        """Stop forwarding."""
        self._streams.close()


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
