"""A plan, a run's status and its summary as rich text; with bars for a terminal, as plain columns for a pipe."""

from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from distcluster.cli.progress_bars import rate
from distcluster.cli.terminal import plain

if TYPE_CHECKING:  # each takes seconds to import, and comes with the command that needs it
    from distcluster.execution.status import Status
    from distcluster.plan import Plan
    from distcluster.report.prediction import PredictionSummary
    from distcluster.report.summary import Summary

_STAGE_BAR = 24  # columns
_CLUSTER_BAR = 12
_PREDICTED_CLUSTERS = 10


def plan_table(cost: "Plan", dtype: str) -> RenderableType:
    """What a job will cost, a figure a line.

    Parameters
    ----------
    cost : Plan
    dtype : str
        The input's.
    """
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in (
        ("rows x features", f"{cost.rows:,} x {cost.features:,} {dtype}"),
        ("UMAP subsample", f"{cost.sample_rows:,} rows"),
        ("mixture subsample", f"{cost.mixture_rows:,} rows"),
        ("partitions", f"{cost.partitions:,} of {cost.partition_rows:,} rows"),
        ("candidates", f"{cost.candidates:,}"),
        ("tasks", f"{cost.tasks:,}, and {cost.refine_tasks:,} for each iteration of the refinement"),
        ("read", f"{_bytes(cost.bytes_read)} (decoded)"),
        ("written", f"{_bytes(cost.bytes_written)} (before compression)"),
        ("peak memory", f"{_bytes(cost.memory_bytes)} a worker"),
        ("time", f"about {_duration(cost.seconds)} with {cost.workers} workers of one thread"),
    ):
        table.add_row(name, value)
    return Group(table, Text(), Text(cost.advice)) if cost.advice else table


def status_table(status: "Status", *, bars: bool) -> RenderableType:
    """How far a run is, a stage a line, and the last error.

    Parameters
    ----------
    status : Status
    bars : bool
        The share of each stage's items as a bar.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage")
    if bars:
        table.add_column("", width=_STAGE_BAR)
    table.add_column("done", justify="right")
    table.add_column("of", justify="right")
    for stage in status.stages:
        share = stage.done / stage.total if stage.total else 0.0
        bar = [Bar(1.0, 0.0, share, width=_STAGE_BAR, color="green" if share >= 1.0 else "blue")] if bars else []
        table.add_row(stage.name, *bar, f"{stage.done:,}", "?" if stage.total is None else f"{stage.total:,}")
    return Group(
        table,
        Text("finished" if status.finished else "not finished: run the job again to go on"),
        *([Text(plain(f"being written by {status.writer}"))] if status.writer else []),
        *(map(Text, _live_lines(status)) if status.live else []),
        *([Text(plain(f"last error: {status.last_error}"))] if status.last_error else []),
    )


def _live_lines(status: "Status") -> list[str]:
    """Whether the writer is alive, and how fast its stages are."""
    assert status.live is not None
    heard = "" if status.live.heard_seconds is None else f", heard from {_duration(status.live.heard_seconds)} ago"
    state = "alive" if status.live.is_alive else "silent: it may have died, and the job can be run again"
    lines = [f"{state}{heard}"]
    for pace in status.paces:
        speed = "" if pace.per_second is None else f", {rate(pace.per_second, pace.unit)}"
        left = "" if pace.seconds_left is None else f", about {_duration(pace.seconds_left)} left"
        lines.append(f"at {pace.stage}{speed}{left}")
    return lines


def summary_table(summary: "Summary", *, bars: bool) -> RenderableType:
    """What a run found: the verdict, the largest clusters, how far to trust them, where everything lies.

    Parameters
    ----------
    summary : Summary
    bars : bool
        Each cluster's rows as a bar, beside the largest cluster's.
    """
    smallest, median, largest = summary.sizes
    shown = len(summary.clusters)
    which = f"The largest {shown} of {summary.n_clusters}" if shown < summary.n_clusters else f"All {shown}"
    return Group(
        Text(plain(summary.advice), style="bold"),
        Text(),
        Text(plain(summary.reason)),
        Text(),
        Text(
            f"{summary.n_rows:,} rows in {summary.n_clusters} clusters of {smallest:,} to {largest:,} rows, "
            f"median {median:,}. {which}:"
        ),
        Text(),
        _cluster_table(summary, bars=bars),
        Text(plain(summary.quality)),
        *([Text(summary.lineage)] if summary.lineage else []),
        Text(),
        *(Text(plain(f"Warning: {warning}")) for warning in summary.warnings),
        Text(
            f"Run: {plain(summary.url)}\n"
            f"  label, probability, stability, top_label, top_probability, log_density, support: one entry a row\n"
            f"  projection, view_2d, view_3d: coordinates; selection/: every candidate; cluster/: every cluster"
        ),
    )


def prediction_table(summary: "PredictionSummary") -> RenderableType:
    """What other rows are under a model: the largest clusters beside the model's own, and what it does not represent.

    Parameters
    ----------
    summary : PredictionSummary
    """
    return Group(
        rows_table(summary),
        Text(),
        Text(
            f"Prediction: {plain(summary.url)}\n"
            f"  label, probability, stability, top_label, top_probability, log_density, support: one entry a row\n"
            f"  projection and views: coordinates"
        ),
    )


def rows_table(summary: "PredictionSummary", what: str = "rows") -> RenderableType:
    """New rows beside those that the model was made from.

    Parameters
    ----------
    summary : PredictionSummary
    what : str
        To call them.
    """
    from distcluster.report.prediction import drift_lines

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("cluster", "rows", "share", "before"):
        table.add_column(name, justify="right", no_wrap=True)
    order = sorted(range(len(summary.size)), key=lambda k: -summary.size[k])[:_PREDICTED_CLUSTERS]
    for k in order:
        before = "?" if summary.before is None else f"{summary.before[k] / summary.before.sum():.1%}"
        table.add_row(str(k), f"{summary.size[k]:,}", f"{summary.size[k] / max(summary.n_rows, 1):.1%}", before)
    invalid = f", {summary.n_invalid:,} invalid ones without (label -1)" if summary.n_invalid else ""
    return Group(
        Text(
            f"{summary.n_rows:,} {what} with a label{invalid}; {summary.n_unsure:,} with a probability below 0.5. "
            f"The largest {len(order)} of {len(summary.size)} clusters, beside the model's own rows:"
        ),
        Text(),
        table,
        Text(),
        *map(Text, drift_lines(summary.drift)),
    )


def _cluster_table(summary: "Summary", *, bars: bool) -> Table:
    *_, largest = summary.sizes
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cluster", justify="right", no_wrap=True, min_width=7)
    table.add_column("rows", justify="right", no_wrap=True, min_width=9)
    if bars:
        table.add_column("", width=_CLUSTER_BAR)
    table.add_column("probability", justify="right", no_wrap=True, min_width=11)
    table.add_column("most typical items", overflow="ellipsis", no_wrap=True)
    for each in summary.clusters:
        items = "\n".join(escape(plain(item)) for item in each.items)
        bar = [Bar(largest, 0, each.size, width=_CLUSTER_BAR, color="blue")] if bars else []
        table.add_row(str(each.label), f"{each.size:,}", *bar, f"{each.mean_probability:.2f}", items)
    return table


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:,.1f} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
