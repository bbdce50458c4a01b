"""The commands that have something worked out: run, cluster, predict, choose, ingest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from distcluster.cli.options import (
    Append,
    ItemColumn,
    Items,
    JobFile,
    Json,
    Labels,
    ModelUrl,
    Overrides,
    Overwrite,
    Quiet,
    RunUrl,
    Scheduler,
    Verbose,
    Verify,
    report_table,
)
from distcluster.cli.tables import prediction_table, rows_table, summary_table
from distcluster.cli.terminal import plain
from distcluster.cli.voice import Voice, speaking
from distcluster.deploy import DeployTable
from distcluster.errors import JobError
from distcluster.job import Job, ReportTable
from distcluster.job_file import load_job, override, parse_job
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES

if TYPE_CHECKING:
    from distcluster.storage.run import Run

working_commands = typer.Typer()


@working_commands.command()
def run(
    job_file: JobFile,
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    verify: Verify = False,
    overwrite: Overwrite = False,
    append: Append = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a job, or resume it: the same command.

    Reads the embeddings, projects every row, fits the grid, chooses a mixture, and writes labels and probabilities to
    the output. Stop it at any time; run it again to go on. Results do not depend on the number of workers.

    [dim]distcluster run jobs/demo.toml --set mixture.n_components="[10, 20, 40]"[/dim]
    """
    with speaking(as_json=as_json, quiet=quiet, verbose=verbose) as voice:
        job = with_scheduler(load_job(job_file, overrides or []), scheduler)
        done, worked = _work_out(job, voice, verify=verify, overwrite=overwrite, append=append)
        _show(job, done, voice, worked=worked)


@working_commands.command()
def cluster(
    source: Annotated[str, typer.Argument(help="The embeddings, as input.url.", metavar="SRC", show_default=False)],
    text: Annotated[
        str | None, typer.Option(help="The column that a person reads as the row.", metavar="COL", show_default=False)
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="The column that names the row.", metavar="COL", show_default=False)
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="The run; by default runs/ and SRC's name.", metavar="RUN", show_default=False)
    ] = None,
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Cluster embeddings without a job file: makes one, prints it, keeps it beside a local run, and runs it.

    The same command resumes. What the options do not say is at its default; --set takes every key of a job file.

    [dim]distcluster cluster docs.parquet --text text --id id[/dim]
    """
    from distcluster.cli.made_job import keep_job, made_job

    with speaking(as_json=as_json, quiet=quiet, verbose=verbose) as voice:
        job, written = made_job(source, output, text=text, id_column=id_column, overrides=overrides or [])
        voice.remark(written)
        done, worked = _work_out(with_scheduler(job, scheduler), voice)
        kept = keep_job(job, written)
        _show(job, done, voice, worked=worked, job_file=kept, job_text=written)
        voice.remark(
            f"Job: {plain(kept)}"
            if kept
            else "Save what is above as JOB.toml: `distcluster run JOB.toml` goes on with it."
        )


@working_commands.command()
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
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Label new rows by a run's frozen model, or go on with it: the same command.

    Nothing is fitted: a row that the run has seen gets its label, probability and place again, bit for bit.
    --set takes keys of the tables input, assign and deploy.

    [dim]distcluster predict runs/demo tomorrow.zarr runs/tomorrow[/dim]
    """
    from distcluster.api import predict_rows
    from distcluster.predicting import prediction_job
    from distcluster.storage.run import Run

    with speaking(as_json=as_json, quiet=quiet, verbose=verbose) as voice:
        model = Run(model_url)
        job = with_scheduler(prediction_job(model, source, output, overrides or []), scheduler)
        with voice.reporter() as reporter:
            done = predict_rows(model, job, reporter, verify=verify, overwrite=overwrite)
        if not reporter.used:
            voice.remark("These rows are labelled; nothing was left to do.")
        voice.remark()
        _show_prediction(model, done, voice, worked=reporter.used)


@working_commands.command()
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
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Choose another candidate of a finished run's grid, beside the one that the run has.

    Gives all that the run's own has: refinement, labels of all rows, clusters, hierarchy and a report, and the
    crosswalk from the run's labels to these. It lies in RUN/choice/TYPE-K and is a run of its own: report, export,
    predict and status take it.

    [dim]distcluster choose runs/demo --n-components 8 --covariance-type full[/dim]
    """
    from distcluster.api import choose_candidate
    from distcluster.numerics.mixture.candidate import Candidate

    with speaking(as_json=as_json, quiet=quiet, verbose=verbose) as voice:
        if covariance_type not in COVARIANCE_TYPES:
            raise JobError(f"--covariance-type {covariance_type}: must be one of {', '.join(COVARIANCE_TYPES)}.")
        wanted = Candidate(n_components, covariance_type)
        table = report_table(items=items, item_column=item_column, labels=tuple(labels or ()))
        deploy = DeployTable(kind="address", address=scheduler) if scheduler else DeployTable()
        with voice.reporter() as reporter:
            done = choose_candidate(run_url, wanted, deploy, reporter, fit=fit, verify=verify)
        if not reporter.used:
            voice.remark("This choice is finished; nothing was left to do.")
        voice.remark()
        _show_run(done, table, voice, worked=reporter.used)


@working_commands.command()
def ingest(
    source: Annotated[
        str,
        typer.Argument(help=".npy, .npz or Parquet: a file, a folder or a pattern.", metavar="SRC", show_default=False),
    ],
    target: Annotated[str, typer.Argument(help="The Zarr group to make.", metavar="DST", show_default=False)],
    column: Annotated[
        str | None, typer.Option(help="The array of an .npz, or the column of Parquet.", show_default=False)
    ] = None,
    on_invalid: Annotated[
        Literal["error", "skip"], typer.Option(help="Rows that are no vectors: stop, or leave them out.")
    ] = "error",
    overrides: Overrides = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Convert files of vectors to Zarr, or go on with it: the same command.

    On worker processes of this machine or, as --scheduler or --set deploy.address say, on another cluster. Nothing can
    be opened at DST until it is whole.

    [dim]distcluster ingest "s3://bucket/docs/*.parquet" s3://bucket/docs.zarr[/dim]
    """
    from distcluster.execution.ingesting import ingest as convert

    with speaking(as_json=as_json, quiet=quiet, verbose=verbose) as voice:
        job = with_scheduler(_ingest_job(source, target, overrides or []), scheduler)
        with voice.reporter() as reporter:
            done = convert(job.input.url, job.output.url, job.deploy, reporter, column=column, on_invalid=on_invalid)
        left_out = f"; {done.skipped:,} rows that are no vectors were left out" if done.skipped else ""
        shape = f"{done.rows:,} rows x {done.features:,} features"
        voice.show(f"{plain(str(done.target))}: array embeddings, {shape}{left_out}")
        voice.answer(url=done.target, rows=done.rows, features=done.features, dtype=done.dtype, skipped=done.skipped)


def _ingest_job(source: str, target: str, overrides: Sequence[str]) -> Job:
    """Where to read, to write and to work, checked as a job's."""
    tables: dict[str, Any] = {"input": {"url": source}, "output": {"url": target}}
    for each in overrides:
        if each.partition(".")[0].strip() != "deploy":
            raise JobError(f"--set {each}: only keys of deploy can be set.")
        override(tables, each)
    return parse_job(tables, name="the options")


def with_scheduler(job: Job, address: str | None) -> Job:
    """The job on a Dask scheduler that is named on the command line, if one is."""
    if address is None:
        return job
    deploy = job.deploy.model_copy(update={"kind": "address", "address": address})
    return job.model_copy(update={"deploy": deploy})


def _work_out(job: Job, voice: Voice, **options: bool) -> tuple["Run", bool]:
    """Run a job; gives the run, and whether anything was left to do."""
    from distcluster.api import run_job  # Dask takes half a second to import: only where a job runs

    with voice.reporter() as reporter:
        done = run_job(job, reporter, **options)
    if not reporter.used:
        voice.remark("This job is finished; nothing was left to do.")
    voice.remark()
    return done, reporter.used


def _show(job: Job, done: "Run", voice: Voice, *, worked: bool, **facts: str | None) -> None:
    """Show what came of a job."""
    if job.predict.model is None:
        _show_run(done, job.report, voice, worked=worked, **facts)
        return
    from distcluster.storage.run import Run

    _show_prediction(Run(job.predict.model), done, voice, worked=worked, **facts)


def _show_run(done: "Run", table: ReportTable, voice: Voice, *, worked: bool, **facts: str | None) -> None:
    """Show what a run has found, and write its report, unless the one that is there would be the same."""
    from distcluster.report.made import current_report
    from distcluster.report.summary import summarise

    summary, appended = summarise(done, table), None
    voice.show(summary_table(summary, bars=voice.draws_bars))
    if done.settings.appended and done.around is None:
        from distcluster.report.prediction import summarise_appended

        appended = summarise_appended(done)
        voice.show(rows_table(appended, "appended rows"))
    report = None
    if table.write == "always":
        report = current_report(done, table, worked=worked)
        voice.show(f"Report: {plain(report)}")
    voice.answer(run=done.url, finished=True, worked=worked, summary=summary, appended=appended, report=report, **facts)


def _show_prediction(model: "Run", done: "Run", voice: Voice, *, worked: bool, **facts: str | None) -> None:
    """Show what other rows are under a model."""
    from distcluster.report.prediction import summarise_prediction

    summary = summarise_prediction(model, done)
    voice.show(prediction_table(summary))
    voice.answer(run=done.url, finished=True, worked=worked, summary=summary, **facts)
