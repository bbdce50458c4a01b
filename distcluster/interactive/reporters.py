"""Who tells a person in Python how far a job is."""

from importlib.util import find_spec

from rich.console import Console

from distcluster.cli.progress_bars import ProgressReporter

_COLUMNS = 110  # of a line, where there is no terminal


def shown_progress(wanted: bool) -> ProgressReporter:
    """A reporter for a person: bars in a terminal and in a notebook, plain lines elsewhere; or a silent one."""
    if not wanted:
        return ProgressReporter(Console(quiet=True, force_jupyter=False))
    console = Console()
    has_bars = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    return ProgressReporter(console if has_bars else Console(width=_COLUMNS, force_jupyter=False))
