"""Where a command's words go: results to standard output, remarks to the error stream."""

import typer
from rich.console import Console

_PLAIN_COLUMNS = 110


def open_console() -> Console:
    """Standard output: the terminal as it is; in a file or a pipe, plain text of 110 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_COLUMNS)


def say(sentence: str) -> None:
    """Remark something on the error stream: standard output holds results, or a followed job's lines, alone."""
    typer.echo(f"distcluster: {sentence}", err=True)
