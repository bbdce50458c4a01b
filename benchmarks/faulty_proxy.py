"""A store that misbehaves: a proxy in front of an S3 API that answers 503, slows down, or cuts uploads short."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
FAULTS = ("unavailable", "slow down", "slow", "cut")


class FaultyProxy:
    """Hands requests on to a server, unless a fault is on.

    Attributes
    ----------
    fault : str or None
        One of ``FAULTS``.
    refused : int
        Requests that were not answered as the server would.
    watch : callable
        Called with the method and the path of every request that was answered well.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.fault: str | None = None
        self.refused = 0
        self.watch: Callable[[str, str], None] = lambda _method, _path: None
        self._until = 0.0

    def start(self, fault: str, seconds: float) -> None:
        """Misbehave for a while."""
        self.fault, self._until = fault, time.monotonic() + seconds

    def current(self) -> str | None:
        """The fault that is on now."""
        return self.fault if time.monotonic() < self._until else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no news."""


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # a body that waits for the header's receipt waits 40 ms

        def answer(self) -> None:
            fault = proxy.current()
            if fault == "cut":  # in the middle of what is sent
                self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
                proxy.refused += 1
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if fault in ("unavailable", "slow down"):
                proxy.refused += 1
                self.reply(503, {}, SLOW_DOWN if fault == "slow down" else b"")
                return
            if fault == "slow":
                proxy.refused += 1
                time.sleep(1)
            upstream = http.client.HTTPConnection(proxy.upstream, timeout=60)
            try:
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                self.reply(answer.status, dict(answer.getheaders()), answer.read())
            finally:
                upstream.close()
            proxy.watch(self.command, self.path)

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            length = headers.pop("Content-Length", None)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: a test's output is pytest's."""

    return Handler


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[tuple[FaultyProxy, str]]:
    """A proxy at work: what controls it, and its address."""
    proxy = FaultyProxy(upstream)
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
