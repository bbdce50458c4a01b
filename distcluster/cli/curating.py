"""The command that lists near duplicates."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distcluster.cli.options import Json, Quiet, RunUrl, Scheduler, Verbose
from distcluster.cli.terminal import plain
from distcluster.cli.voice import speaking
from distcluster.deploy import DeployTable
from distcluster.errors import JobError

if TYPE_CHECKING:
    from distcluster.report.near_duplicates import DuplicateSummary

curating_commands = typer.Typer()


@curating_commands.command()
def duplicates(
    run_url: RunUrl,
    distance: Annotated[
        float, typer.Option(help="Cosine distance within which rows are duplicates; 0: equal rows only.")
    ] = 0.01,
    csv: Annotated[Path | None, typer.Option(help="Write the rows in groups to this file.", show_default=False)] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Write them to this file, as Parquet.", show_default=False)
    ] = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the near duplicates of a finished run, or go on looking for them: the same command.

    Groups are connected by pairs of rows within the distance; every such pair is found. A group's representative is its
    first row: export --without-duplicates leaves the others out.

    [dim]distcluster duplicates runs/demo --distance 0.05 --csv near.csv[/dim]
    """
    from distcluster import curation
    from distcluster.api import find_duplicates
    from distcluster.report import near_duplicates

    with speaking(as_json=as_json, quiet=quiet, verbose=verbose) as voice:
        targets = [target for target in (csv, parquet) if target is not None]
        if csv is not None and csv == parquet:
            raise JobError("--csv and --parquet: each needs a file of its own.")
        for target in targets:
            curation.refuse_target(target)
        deploy = DeployTable(kind="address", address=scheduler) if scheduler else DeployTable()
        with voice.reporter() as reporter:
            run = find_duplicates(run_url, distance, deploy, reporter)
        if not reporter.used:
            voice.remark("These duplicates are known; nothing was left to do.")
        voice.remark()
        table = near_duplicates.duplicates(run, distance)
        summary = near_duplicates.summarise_duplicates(run, distance, table)
        voice.show(duplicates_table(summary))
        for target in targets:
            curation.write_rows(table, target, is_parquet=target == parquet)
            voice.show(f"Rows: {plain(str(target))}")
        voice.answer(run=run.url, worked=reporter.used, summary=summary, csv=csv, parquet=parquet)


def duplicates_table(summary: "DuplicateSummary") -> RenderableType:
    """How many rows are duplicates, and the largest groups.

    Parameters
    ----------
    summary : DuplicateSummary
    """
    within = f"within a cosine distance of {summary.distance:g}"
    if not summary.n_groups:
        what = f"lie {within}" if summary.distance else "are equal"
        return Text(f"No two of {summary.n_rows:,} rows {what}.")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("group", "rows", "first row", "farthest from it", "clusters"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in summary.largest:
        more = f" and {len(each.clusters) - 5} more" if len(each.clusters) > 5 else ""
        clusters = ", ".join(map(str, each.clusters[:5])) + more
        table.add_row(str(each.group), f"{each.rows:,}", f"{each.representative:,}", f"{each.farthest:.2g}", clusters)
    shown, n = len(summary.largest), summary.n_rows
    which = f"The largest {shown} of {summary.n_groups:,}" if shown < summary.n_groups else f"All {shown}"
    return Group(
        Text(
            f"{summary.n_groups:,} groups of {summary.n_grouped:,} rows "
            f"{within if summary.distance else 'that are equal'}. With the first row of each kept, "
            f"{summary.n_removable:,} of {n:,} rows "
            f"({summary.n_removable / n:.1%}) could go. {which}:"
        ),
        Text(),
        table,
    )
