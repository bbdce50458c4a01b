"""The command that shows two runs side by side."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from distcluster.cli.options import Json
from distcluster.cli.terminal import plain
from distcluster.cli.voice import speaking

if TYPE_CHECKING:
    from distcluster.report.run_comparison import RunComparison, Side

_ITEM_COLUMNS = 40

comparing_commands = typer.Typer()


@comparing_commands.command()
def compare(
    first: Annotated[str, typer.Argument(help="A finished run, choice or prediction.", metavar="RUN_A")],
    second: Annotated[str, typer.Argument(help="Another one.", metavar="RUN_B")],
    html: Annotated[
        Path | None, typer.Option(help="Write the comparison as a page to this file, too.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two runs by the rows that both have: agreement, and which clusters were kept, split or merged.

    Rows are the same at the same place of one input, or of one that has grown; otherwise where they have the same id.

    [dim]distcluster compare runs/demo runs/demo/choice/full-8 --html demo-and-8.html[/dim]
    """
    from distcluster.report.run_comparison import compare_runs, refuse_file
    from distcluster.storage.run import Run

    with speaking(as_json=as_json) as voice:
        if html is not None:
            refuse_file(html)
        found = compare_runs(Run(first), Run(second))
        voice.show(comparison_table(found))
        if html is not None:
            found.write_html(html)
            voice.show(f"Page: {plain(str(html))}")
        voice.answer(**asdict(found), html=html)


def comparison_table(found: "RunComparison") -> RenderableType:
    """Agreement and events in sentences, then the clusters of both runs.

    Parameters
    ----------
    found : RunComparison
    """
    return Group(
        Text(plain(f"First: {found.before.url}\nSecond: {found.after.url}")),
        Text(),
        *map(Text, found.lines),
        Text(),
        _clusters(found.before, "first", "second"),
        Text(),
        _clusters(found.after, "second", "first"),
    )


def _clusters(side: "Side", of: str, other: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(of, justify="right", no_wrap=True, min_width=6)
    table.add_column("rows", justify="right", no_wrap=True, min_width=9)
    table.add_column("event", no_wrap=True, min_width=6)
    table.add_column(f"in clusters of the {other}", min_width=24)
    if side.items:
        table.add_column("typical", overflow="ellipsis", no_wrap=True, max_width=_ITEM_COLUMNS)
    for each in side.clusters:
        items = [escape(plain("; ".join(side.items[each.label])))] if side.items else []
        table.add_row(str(each.label), f"{each.n_common:,}", each.event, each.line, *items)
    return table
