"""Where a command's words go: results to standard output, remarks to the error stream."""

import re

import typer
from rich.console import Console

from distcluster.kubernetes.json_log import is_json_wanted, json_line

_PLAIN_COLUMNS = 110


def open_console() -> Console:
    """Standard output: the terminal as it is; in a file or a pipe, plain text of 110 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_COLUMNS)


def say(sentence: str) -> None:
    """Remark something on the error stream: standard output holds results, or a followed job's lines, alone."""
    line = json_line("info", "distcluster", sentence) if is_json_wanted() else f"distcluster: {plain(sentence)}"
    typer.echo(line, err=True)


def tell(text: str) -> None:
    """Print a line of somebody else's words."""
    typer.echo(plain(text))


def plain(text: str) -> str:
    r"""A text without what a terminal would obey: items, names and logs come from strangers.

    Examples
    --------
    >>> plain("a\x1b[2Jb\tc\r")
    'a\ufffd[2Jb\tc\ufffd'
    """
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
