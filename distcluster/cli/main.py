"""The command line: distcluster run, plan, status, predict and others on a run, and those for Kubernetes."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from distcluster.cli.options import (
    Append,
    ItemColumn,
    Items,
    JobFile,
    Labels,
    ModelUrl,
    Overrides,
    Overwrite,
    RunUrl,
    Scheduler,
    Verify,
)
from distcluster.cli.pods import Detached, kubernetes_commands
from distcluster.cli.progress_bars import ProgressReporter
from distcluster.cli.tables import plan_table, prediction_table, rows_table, status_table, summary_table
from distcluster.cli.terminal import open_console, plain, say, tell
from distcluster.deploy import DeployTable
from distcluster.errors import DONE, FAILED, INTERRUPTED, TRY_AGAIN, WRONG, ExpectedError, JobError
from distcluster.job import Job, ReportTable
from distcluster.job_file import load_job
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES
from distcluster.storage.faults import storage_errors
from distcluster.url import without_secrets

app = typer.Typer(
    name="distcluster",
    help="Cluster millions of embedding vectors on Dask: UMAP, a grid of Gaussian mixtures, labels back to Zarr.",
    epilog=f"Exit codes: {DONE} done, {FAILED} failed for good, {WRONG} wrong job or input, {TRY_AGAIN} try again, "
    f"{INTERRUPTED} interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(kubernetes_commands)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"distcluster {installed('distcluster')}")
        raise typer.Exit


@app.command()
def run(
    job_file: JobFile,
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    verify: Verify = False,
    overwrite: Overwrite = False,
    append: Append = False,
) -> None:
    """Run a job, or resume it: the same command.

    Reads the embeddings, projects every row, fits the grid, chooses a mixture, and writes labels and probabilities to
    the output. Stop it at any time; run it again to go on. Results do not depend on the number of workers.

    [dim]distcluster run jobs/demo.toml --set mixture.n_components="[10, 20, 40]"[/dim]
    """
    # Dask, scikit-learn and numba take seconds to import: only where a job runs.
    from distcluster.api import run_job
    from distcluster.report.summary import summarise
    from distcluster.storage.run import Run

    job = load_job(job_file, overrides or [])
    if scheduler is not None:
        job = _with_scheduler(job, scheduler)
    console = open_console()
    with ProgressReporter(console) as reporter:
        done = run_job(job, reporter, verify=verify, overwrite=overwrite, append=append)
    if not reporter.used:
        console.print("This job is finished; nothing was left to do.")
    console.print()
    if job.predict.model is not None:
        from distcluster.report.prediction import summarise_prediction

        console.print(prediction_table(summarise_prediction(Run(job.predict.model), done)), highlight=False)
        return
    console.print(summary_table(summarise(done, job.report), bars=console.is_terminal), highlight=False)
    if done.settings.appended:
        from distcluster.report.prediction import summarise_appended

        console.print(rows_table(summarise_appended(done), "appended rows"), highlight=False)
    if job.report.write == "never":
        return
    from distcluster.report.page import write_report  # after the work: it draws, and imports what draws

    console.print(f"Report: {plain(write_report(done, job.report))}", highlight=False, soft_wrap=True)


@app.command()
def plan(job_file: JobFile, overrides: Overrides = None) -> None:
    """Show what a job will cost: rows, tasks, bytes, memory of a worker, a rough time. Nothing is written."""
    from distcluster.predicting import with_model
    from distcluster.prepare import check_job
    from distcluster.storage.run import Run

    job = load_job(job_file, overrides or [])
    model = Run(job.predict.model) if job.predict.model is not None else None
    checked = check_job(job if model is None else with_model(job, model), model=model)
    open_console().print(plan_table(checked.plan, str(checked.array.dtype)), highlight=False)


@app.command()
def status(run_url: RunUrl) -> None:
    """Show how far a run is: its stages, partitions done, and the last error."""
    from distcluster.execution.status import read_status

    console = open_console()
    console.print(status_table(read_status(run_url), bars=console.is_terminal), highlight=False)


@app.command()
def predict(
    model_url: ModelUrl,
    source: Annotated[str, typer.Argument(help="The new rows, as input.url.", metavar="NEW", show_default=False)],
    output: Annotated[
        str, typer.Argument(help="Where their labels go, as output.url.", metavar="OUT", show_default=False)
    ],
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    verify: Verify = False,
    overwrite: Overwrite = False,
) -> None:
    """Label new rows by a run's frozen model, or go on with it: the same command.

    Nothing is fitted: a row that the run has seen gets its label, probability and place again, bit for bit.
    --set takes keys of the tables input, assign and deploy.

    [dim]distcluster predict runs/demo tomorrow.zarr runs/tomorrow[/dim]
    """
    from distcluster.api import predict_rows
    from distcluster.predicting import prediction_job
    from distcluster.report.prediction import summarise_prediction
    from distcluster.storage.run import Run

    model = Run(model_url)
    job = prediction_job(model, source, output, overrides or [])
    if scheduler is not None:
        job = _with_scheduler(job, scheduler)
    console = open_console()
    with ProgressReporter(console) as reporter:
        done = predict_rows(model, job, reporter, verify=verify, overwrite=overwrite)
    if not reporter.used:
        console.print("These rows are labelled; nothing was left to do.")
    console.print()
    console.print(prediction_table(summarise_prediction(model, done)), highlight=False)


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
def choose(
    run_url: RunUrl,
    n_components: Annotated[int, typer.Option(help="The candidate's number of components.", show_default=False)],
    covariance_type: Annotated[str, typer.Option(help="spherical, diag, tied or full.", show_default=False)],
    fit: Annotated[bool, typer.Option("--fit", help="Fit the candidate where the grid does not have it.")] = False,
    items: Items = None,
    item_column: ItemColumn = "text",
    labels: Labels = None,
    scheduler: Scheduler = None,
    verify: Verify = False,
) -> None:
    """Choose another candidate of a finished run's grid, beside the one that the run has.

    Gives all that the run's own has: refinement, labels of all rows, clusters, hierarchy and a report, and the
    crosswalk from the run's labels to these. It lies in RUN/choice/TYPE-K and is a run of its own: report, export,
    predict and status take it.

    [dim]distcluster choose runs/demo --n-components 8 --covariance-type full[/dim]
    """
    from distcluster.api import choose_candidate
    from distcluster.numerics.mixture.candidate import Candidate

    if covariance_type not in COVARIANCE_TYPES:
        raise JobError(f"--covariance-type {covariance_type}: must be one of {', '.join(COVARIANCE_TYPES)}.")
    wanted = Candidate(n_components, covariance_type)
    table = _report_table(items=items, item_column=item_column, labels=tuple(labels or ()))
    deploy = DeployTable(kind="address", address=scheduler) if scheduler else DeployTable()
    console = open_console()
    with ProgressReporter(console) as reporter:
        done = choose_candidate(run_url, wanted, deploy, reporter, fit=fit, verify=verify)
    if not reporter.used:
        console.print("This choice is finished; nothing was left to do.")
    console.print()
    from distcluster.report.page import write_report
    from distcluster.report.summary import summarise

    console.print(summary_table(summarise(done, table), bars=console.is_terminal), highlight=False)
    console.print(f"Report: {plain(write_report(done, table))}", highlight=False, soft_wrap=True)


@app.command()
def report(
    run_url: RunUrl,
    items: Items = None,
    item_column: ItemColumn = "text",
    remote_images: Annotated[
        bool, typer.Option("--remote-images", help="Show images that items name by URLs, as report.remote_images.")
    ] = False,
    labels: Labels = None,
    tsne: Annotated[bool, typer.Option("--tsne", help="Show t-SNE too, as report.tsne.")] = False,
    open_it: Annotated[bool, typer.Option("--open", help="Show the report in the browser.")] = False,
) -> None:
    """Write the report of a finished run again: RUN/report/index.html, one file that needs nothing else.

    [dim]distcluster report runs/demo --open[/dim]
    """
    from distcluster.report.page import write_report
    from distcluster.storage.run import Run

    table = _report_table(
        items=items, item_column=item_column, labels=tuple(labels or ()), remote_images=remote_images, tsne=tsne
    )
    url = write_report(Run(run_url), table)
    open_console().print(f"Report: {plain(url)}", highlight=False, soft_wrap=True)
    if open_it:
        typer.launch(url)


@app.command()
def export(
    run_url: RunUrl,
    target: Annotated[Path, typer.Argument(help="A place that is not there yet.", show_default=False)],
    form: Annotated[
        str, typer.Option("--to", help="parquet, anndata, model (directories), sklearn, atlas or atlas-labels (files).")
    ] = "parquet",
    items: Annotated[str | None, typer.Option(help="What a row is, as report.items: a column of its own.")] = None,
    item_column: ItemColumn = "text",
) -> None:
    """Write a finished run's results for other tools.

    parquet: labels at every level of the hierarchy, probabilities, coordinates and items, one file a partition, the
    rows in order. sklearn: the mixture as scikit-learn's GaussianMixture, by joblib. anndata: AnnData on Zarr, for
    scanpy. atlas: one Parquet file for Apple's embedding-atlas, with columns x, y, category and text. atlas-labels: its
    label table, clusters of all levels by name. model: all that distcluster predict needs of the run.

    [dim]distcluster export runs/demo demo-parquet[/dim]
    """
    from distcluster.export import export_run
    from distcluster.storage.run import Run

    table = _report_table(items=items, item_column=item_column)
    tell(str(export_run(Run(run_url), target, form, table)))


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help=".npy, .npz, .parquet or a directory of Parquet files.")],
    target: Annotated[Path, typer.Argument(help="The Zarr store to make.")],
    column: Annotated[str | None, typer.Option(help="The array of an .npz, or the column of Parquet.")] = None,
    on_invalid: Annotated[
        Literal["error", "skip"], typer.Option(help="Rows that are no vectors: stop, or leave them out.")
    ] = "error",
) -> None:
    """Convert a file of vectors to Zarr, a chunk at a time."""
    from distcluster.storage.ingest import ingest as convert

    done = convert(source, target, column, on_invalid)
    left_out = f"; {done.skipped:,} rows that are no vectors were left out" if done.skipped else ""
    tell(f"{target}: array embeddings, {done.rows:,} rows x {done.features:,} features{left_out}")


def _with_scheduler(job: Job, address: str) -> Job:
    deploy = job.deploy.model_copy(update={"kind": "address", "address": address})
    return job.model_copy(update={"deploy": deploy})


def _report_table(**options: Any) -> ReportTable:
    try:
        return ReportTable(**options)
    except ValidationError as error:
        wrong = "; ".join(f"--{each['loc'][0]}: {each['msg'].removeprefix('Value error, ')}" for each in error.errors())
        raise JobError(wrong.replace("_", "-")) from error


class _WithoutSecrets(logging.Formatter):
    """Messages and tracebacks, their URLs without what only the stores should see."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging's."""
        return plain(without_secrets(super().format(record)))


def main() -> None:
    """Run the command line; every expected failure is a message and an exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutSecrets("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a pod that is told to leave: as Ctrl-C
    try:
        with storage_errors():
            app()
    except SystemExit as leaving:
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
