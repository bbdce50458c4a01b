"""Commands whose output is read as it comes, and that end with this process, however it ends."""

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

_KEEPER = """"$@" & exec >&- 2>&-; read -r _; trap "" TERM; kill 0; wait $!"""
"""Ends a command, and what it has started, when our end of its standard input is closed: by us, or by the kernel when
we are killed. In a session of its own, so that Ctrl-C leaves the end to us. Exits with the command's code."""


class Ended(NamedTuple):
    """A command is over."""

    code: int
    """Its exit code."""
    words: str
    """What it has written to its error stream."""
    seconds: float
    """How long it ran."""


class Streams:
    """Running commands, by name, whose output waits in one queue; close ends them."""

    def __init__(self) -> None:
        self._queue = queue.SimpleQueue[tuple[str, Any]]()
        self._running: dict[str, _Running] = {}

    def __enter__(self) -> "Streams":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, name: str, argv: Sequence[str], parts: Callable[[Iterable[str]], Iterable[Any]] = iter) -> None:
        """Start a command.

        Parameters
        ----------
        name : str
        argv : sequence of str
        parts : callable
            Makes what ``take`` gives, one by one, of the lines, whose ends they have; by default the lines.
        """
        self._running[name] = _Running(argv, parts, lambda part: self._queue.put((name, part)))

    def is_open(self, name: str) -> bool:
        """Whether its end has not been taken yet."""
        return name in self._running

    def take(self, seconds: float) -> Iterator[tuple[str, Any]]:
        """What has come, with the name of whose it is, an ``Ended`` last; waits for the first so long at most."""
        try:
            found = self._queue.get(timeout=seconds)
            while True:
                name, part = found
                if part is None:
                    part = self._running.pop(name).end()
                yield name, part
                found = self._queue.get_nowait()
        except queue.Empty:
            return

    def close(self) -> None:
        """End all that run; what they have written since is lost."""
        while self._running:
            self._running.popitem()[1].end()


class _Running:
    """A command, and the thread that reads it."""

    def __init__(
        self, argv: Sequence[str], parts: Callable[[Iterable[str]], Iterable[Any]], tell: Callable[[Any], None]
    ) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            ["sh", "-c", _KEEPER, "sh", *argv], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        self._begun, self._words = time.monotonic(), ""
        self._thread = threading.Thread(target=self._read, args=(parts, tell), daemon=True)
        self._thread.start()

    def _read(self, parts: Callable[[Iterable[str]], Iterable[Any]], tell: Callable[[Any], None]) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            for part in parts(self._process.stdout):
                tell(part)
            self._words = self._process.stderr.read()
        finally:
            tell(None)

    def end(self) -> Ended:
        """End it where it runs, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._thread.join()
        with self._process:  # closes the pipes
            return Ended(self._process.wait(), self._words.strip(), time.monotonic() - self._begun)
