"""How a command speaks: to a person, with bars and tables, or to a script, with JSON."""

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
from rich.console import Console, RenderableType

from distcluster.cli.progress_bars import ProgressReporter
from distcluster.cli.terminal import open_console
from distcluster.errors import FAILED, INTERRUPTED, ExpectedError
from distcluster.kubernetes.json_log import is_json_wanted
from distcluster.storage.faults import storage_errors
from distcluster.url import without_secrets

_SECONDS = 0.5  # between two lines of a stage


@dataclass(frozen=True, slots=True)
class Voice:
    """What a command says goes through here.

    Attributes
    ----------
    as_json : bool
        One object on standard output, progress as lines of JSON on the error stream.
    quiet : bool
        Nothing but errors and the result.
    console : Console
    """

    as_json: bool
    quiet: bool
    console: Console

    @property
    def draws_bars(self) -> bool:
        """Whether tables may hold bars."""
        return self.console.is_terminal

    def reporter(self) -> "ProgressReporter | JsonReporter":
        """What tells progress."""
        if self.as_json:
            return JsonReporter(is_quiet=self.quiet)
        return ProgressReporter(Console(quiet=True) if self.quiet else self.console)

    def remark(self, sentence: str = "") -> None:
        """Say what is no result."""
        if not (self.as_json or self.quiet):
            self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def show(self, result: RenderableType) -> None:
        """Print a part of the result for people."""
        if not self.as_json:
            self.console.print(result, markup=False, highlight=False, soft_wrap=isinstance(result, str))

    def answer(self, **facts: Any) -> None:
        """Print the result for scripts: once, at the end."""
        if self.as_json:
            print_json(facts)


@contextlib.contextmanager
def speaking(*, as_json: bool, quiet: bool = False, verbose: bool = False) -> Iterator[Voice]:
    """Yield a voice; a script gets its object whatever happens.

    ``{"error": ..., "exit_code": ...}`` is that of a command that has failed.
    """
    if verbose:
        logging.getLogger("distcluster").setLevel(logging.INFO)
    try:
        with storage_errors():
            yield Voice(as_json, quiet, open_console())
    except Exception as error:
        if as_json:
            code = error.exit_code if isinstance(error, ExpectedError) else FAILED
            print_json({"error": without_secrets(str(error) or type(error).__name__), "exit_code": code})
        raise
    except KeyboardInterrupt:
        if as_json:
            print_json({"error": "interrupted", "exit_code": INTERRUPTED})
        raise


class JsonReporter:
    """Progress as lines of JSON on the error stream, a stage's at most twice a second."""

    def __init__(self, *, is_quiet: bool) -> None:
        self.used = False
        self._is_quiet = is_quiet
        self._stages: dict[str, dict[str, Any]] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> "JsonReporter":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left open."""

    def dashboard(self, link: str) -> None:
        """As ``Reporter``."""
        self.used = True
        self._tell({"event": "dashboard", "url": link})

    def start(self, stage: str, total: int, done: int, unit: str) -> None:
        """As ``Reporter``."""
        self._stages[stage] = {"stage": stage, "done": done, "total": total, "unit": unit}
        self._told[stage] = time.monotonic()
        self._tell({"event": "start"} | self._stages[stage])

    def advance(self, stage: str, amount: int) -> None:
        """As ``Reporter``."""
        self._stages[stage]["done"] += amount
        if time.monotonic() - self._told[stage] >= _SECONDS:
            self._told[stage] = time.monotonic()
            self._tell({"event": "progress"} | self._stages[stage])

    def finish(self, stage: str, seconds: float) -> None:
        """As ``Reporter``."""
        self._tell({"event": "finish"} | self._stages[stage] | {"seconds": round(seconds, 3)})

    def _tell(self, event: Mapping[str, Any]) -> None:
        if not self._is_quiet:
            sys.stderr.write(f"{json.dumps(event)}\n")
            sys.stderr.flush()


def print_json(facts: Mapping[str, Any]) -> None:
    """Print facts as one object on standard output, indented for those who look, or on a line where logs are."""
    sys.stdout.write(f"{json.dumps(_plain(facts), indent=None if is_json_wanted() else 2)}\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """What JSON has: no arrays, no records, and null for what is no number."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | bool | None) else str(value)  # a Url's str hides its secrets
