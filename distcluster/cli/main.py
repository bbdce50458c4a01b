"""The command line: distcluster run, plan, status, predict and others on a run, and those for Kubernetes."""

import logging
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from distcluster.cli.comparing import comparing_commands
from distcluster.cli.curating import curating_commands
from distcluster.cli.options import ItemColumn, Items, JobFile, Json, Labels, ModelUrl, Overrides, RunUrl, report_table
from distcluster.cli.pods import Detached, kubernetes_commands
from distcluster.cli.tables import plan_table, prediction_table, status_table
from distcluster.cli.terminal import open_console, plain, say, tell
from distcluster.cli.voice import print_json, speaking
from distcluster.cli.working import working_commands
from distcluster.errors import DONE, FAILED, INTERRUPTED, TRY_AGAIN, WRONG, ExpectedError
from distcluster.job_file import load_job
from distcluster.kubernetes.json_log import JsonFormatter, is_json_wanted
from distcluster.storage.faults import storage_errors
from distcluster.url import without_secrets

app = typer.Typer(
    name="distcluster",
    help="Cluster millions of embedding vectors on Dask: UMAP, a grid of Gaussian mixtures, labels back to Zarr.",
    epilog=f"Exit codes: {DONE} done, {FAILED} failed for good, {WRONG} wrong job or input, {TRY_AGAIN} try again, "
    f"{INTERRUPTED} interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(working_commands)
app.add_typer(comparing_commands)
app.add_typer(curating_commands)
app.add_typer(kubernetes_commands)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"distcluster {installed('distcluster')}")
        raise typer.Exit


@app.command()
def plan(job_file: JobFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what a job will cost: rows, tasks, bytes, memory of a worker, a rough time. Nothing is written."""
    from distcluster.predicting import with_model
    from distcluster.prepare import check_job
    from distcluster.storage.run import Run

    with speaking(as_json=as_json) as voice:
        job = load_job(job_file, overrides or [])
        model = Run(job.predict.model) if job.predict.model is not None else None
        checked = check_job(job if model is None else with_model(job, model), model=model)
        dtype = str(checked.array.dtype)
        voice.show(plan_table(checked.plan, dtype))
        voice.answer(**asdict(checked.plan), dtype=dtype)


@app.command()
def status(run_url: RunUrl, as_json: Json = False) -> None:
    """Show how far a run is: its stages, who works on it and how fast, and the last error. Reads the store alone."""
    from distcluster.execution.status import read_status

    with speaking(as_json=as_json) as voice:
        found = read_status(run_url)
        voice.show(status_table(found, bars=voice.draws_bars))
        voice.answer(**asdict(found))


@app.command()
def drift(
    model_url: ModelUrl,
    output: Annotated[str, typer.Argument(help="What predict has written.", metavar="OUT", show_default=False)],
) -> None:
    """Say whether predicted rows are like those that the model was made from: as before, watch, or refit, and why.

    [dim]distcluster drift runs/demo runs/tomorrow[/dim]
    """
    from distcluster.report.prediction import summarise_prediction
    from distcluster.storage.run import Run

    summary = summarise_prediction(Run(model_url), Run(output))
    open_console().print(prediction_table(summary), highlight=False)


@app.command()
def report(
    run_url: RunUrl,
    items: Items = None,
    item_column: ItemColumn = "text",
    remote_images: Annotated[
        bool, typer.Option("--remote-images", help="Show images that items name by URLs, as report.remote_images.")
    ] = False,
    labels: Labels = None,
    points: Annotated[
        str, typer.Option(help="Rows that the map can draw at most, as report.points.", metavar="auto|ROWS")
    ] = "auto",
    tsne: Annotated[bool, typer.Option("--tsne", help="Show t-SNE too, as report.tsne.")] = False,
    names_model: Annotated[
        str | None, typer.Option(help="Have this language model name the clusters, as report.names.model.")
    ] = None,
    names_url: Annotated[str | None, typer.Option(help="Its API, as report.names.url.")] = None,
    names_function: Annotated[
        str | None, typer.Option(help="Have a function name them, as report.names.function.", metavar="MODULE:FUNCTION")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show the report in the browser.")] = False,
) -> None:
    """Write the report of a finished run again: RUN/report/index.html, one file that needs nothing else.

    [dim]distcluster report runs/demo --open[/dim]
    """
    from distcluster.report.page import write_report
    from distcluster.storage.run import Run

    names = {"model": names_model, "url": names_url, "function": names_function}
    table = report_table(
        items=items, item_column=item_column, labels=tuple(labels or ()), remote_images=remote_images, tsne=tsne,
        points=int(points) if points.isdecimal() else points,
        names={name: value for name, value in names.items() if value is not None} or None,
    )  # fmt: skip
    url = write_report(Run(run_url), table)
    open_console().print(f"Report: {plain(url)}", highlight=False, soft_wrap=True)
    if open_it:
        typer.launch(url)


@app.command()
def export(
    run_url: RunUrl,
    target: Annotated[Path, typer.Argument(help="A place that is not there yet.", show_default=False)],
    form: Annotated[
        str,
        typer.Option("--to", help="parquet, anndata, model (directories), csv, sklearn, atlas, atlas-labels (files)."),
    ] = "parquet",
    columns: Annotated[
        str, typer.Option(help="Columns of the input that parquet and csv are to have, too, with commas between them.")
    ] = "",
    items: Annotated[str | None, typer.Option(help="What a row is, as report.items: a column of its own.")] = None,
    item_column: ItemColumn = "text",
    balanced: Annotated[
        int | None, typer.Option(help="So many rows, balanced over the clusters.", metavar="N", show_default=False)
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(help="Balanced over the level with so many clusters, then over those within.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the rows that are drawn.")] = 0,
    without_duplicates: Annotated[
        float | None,
        typer.Option(help="Of duplicates within this distance the first alone.", metavar="D", show_default=False),
    ] = None,
) -> None:
    """Write a finished run's results for other tools, of all rows or of some.

    parquet: ids, labels at every level of the hierarchy, probabilities, coordinates and items, one file a partition,
    the rows in order. csv: the same as one file. sklearn: the mixture as scikit-learn's GaussianMixture, by joblib.
    anndata: AnnData on Zarr, for scanpy. atlas: one Parquet file for Apple's embedding-atlas, with columns x, y,
    category and text. atlas-labels: its label table, clusters of all levels by name. model: all that distcluster
    predict needs of the run. --balanced and --without-duplicates choose rows for parquet, csv, anndata and atlas.

    [dim]distcluster export runs/demo demo-parquet[/dim]
    """
    from distcluster.curation import Wanted
    from distcluster.export import export_run
    from distcluster.storage.run import Run

    wanted = Wanted(balanced, level, seed, without_duplicates)
    table = report_table(items=items, item_column=item_column)
    joined = [name.strip() for name in columns.split(",") if name.strip()]
    tell(str(export_run(Run(run_url), target, form, table, joined, wanted)))


class _WithoutSecrets(logging.Formatter):
    """Messages and tracebacks, their URLs without what only the stores should see."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging's."""
        return plain(without_secrets(super().format(record)))


def main() -> None:
    """Run the command line; every expected failure is a message and an exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if is_json_wanted() else _WithoutSecrets("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a pod that is told to leave: as Ctrl-C
    try:
        with storage_errors():
            app()
    except SystemExit as leaving:
        usage = getattr(leaving.__context__, "format_message", None)  # of a command line that typer has refused
        if usage is not None and "--json" in sys.argv:
            print_json({"error": without_secrets(usage()), "exit_code": leaving.code})
        if leaving.code == INTERRUPTED and not isinstance(leaving, Detached):
            say("Interrupted. What was committed stays: run the same command again to resume.")
        raise
    except ExpectedError as error:
        say(without_secrets(str(error)))
        # Other requests may still be under way, in threads that abort the interpreter where it ends before them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.exit_code)
    except Exception as error:
        logging.getLogger("distcluster").error("unexpected error", exc_info=error)
        sys.exit(FAILED)
