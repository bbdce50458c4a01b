"""Who tells a person in Python how far a job is."""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec

from rich.console import Console

from distcluster.cli.progress_bars import ProgressReporter

_COLUMNS = 110  # of a line, where there is no terminal


class Silent:
    """A reporter that says nothing."""

    def __init__(self) -> None:
        self.used = False

    def dashboard(self, link: str) -> None:  # noqa: ARG002  a reporter
        """As ``Reporter``."""
        self.used = True

    def start(self, stage: str, total: int, done: int, unit: str) -> None:
        """As ``Reporter``."""

    def advance(self, stage: str, amount: int) -> None:
        """As ``Reporter``."""

    def finish(self, stage: str, seconds: float) -> None:
        """As ``Reporter``."""


@contextlib.contextmanager
def shown_progress(wanted: bool) -> Iterator[ProgressReporter | Silent]:
    """A reporter for a person: bars in a terminal and in a notebook, plain lines elsewhere."""
    if not wanted:
        yield Silent()
        return
    console = Console()
    has_bars = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    with ProgressReporter(console if has_bars else Console(width=_COLUMNS, force_jupyter=False)) as reporter:
        yield reporter
