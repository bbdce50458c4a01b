"""What a person reads in a terminal has bars; what is piped is plain text of the same figures."""

import io
import signal
import sys
from dataclasses import replace

import pytest
from conftest import Command
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from distcluster.cli import main as command_line
from distcluster.cli.main import app, main
from distcluster.cli.progress_bars import STAGE_COLUMNS, ProgressReporter
from distcluster.cli.tables import status_table, summary_table
from distcluster.errors import CorruptError, InputChangedError, JobError, JobFailedError, SchedulerLostError
from distcluster.execution.status import StageStatus, Status
from distcluster.job import ReportTable
from distcluster.kubernetes.kubectl import KubectlError
from distcluster.report.summary import summarise
from distcluster.stages.flow import lines
from distcluster.storage.run import Run

FULL, HALF = "█", "▌"


def printed(text: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=110)
    console.print(text)
    return console.file.getvalue()  # type: ignore[attr-defined]


def line(text: str, name: str) -> str:
    return next(each for each in text.splitlines() if each.split()[:1] == [name])


def test_a_stage_s_bar_is_as_long_as_its_share() -> None:
    stages = [StageStatus("scan", 4, 4), StageStatus("project_rows", 1, 4), StageStatus("extend_grid", 2, None)]
    shown = printed(status_table(Status(stages, finished=False, last_error="[red]no space"), bars=True))
    assert [line(shown, stage.name).count(FULL) for stage in stages] == [24, 6, 0]
    assert line(shown, "extend_grid").split() == ["extend_grid", "2", "?"]
    assert "last error: [red]no space" in shown


def test_a_cluster_s_bar_is_as_long_as_its_part_of_the_largest(reference: Run) -> None:
    found = summarise(reference, ReportTable())
    few = [replace(each, size=size) for each, size in zip(found.clusters, (1200, 650), strict=False)]
    shown = printed(summary_table(replace(found, clusters=few, sizes=(600, 650, 1200)), bars=True))
    first, second = (line(shown, str(each.label)) for each in few)
    assert first.count(FULL) == 12
    assert (second.count(FULL), second.count(HALF)) == (6, 1)


def test_a_job_that_wants_no_report_gets_none(finished: Command) -> None:
    page = finished.output / "report" / "index.html"
    page.unlink()
    assert "Report:" not in finished.run("--set", "report.write=never").stdout
    assert not page.exists()
    assert "Report:" in finished.run().stdout
    assert page.exists()


@pytest.mark.parametrize("what", ["status", "summary"])
def test_a_pipe_gets_plain_text(reference: Run, what: str) -> None:
    if what == "status":
        done = CliRunner().invoke(app, ["status", reference.url])
        assert done.exit_code == 0, done.output
        shown = done.output
        assert line(shown, "label_rows").split() == ["label_rows", "16", "16"]
        assert shown.endswith("finished\n")
    else:
        shown = printed(summary_table(summarise(reference, ReportTable()), bars=False))
        largest = reference.array("cluster/size")[:].max()
        assert f"{largest:,}" in shown
    assert shown.isascii()


def test_the_longest_stage_name_keeps_its_line_in_column() -> None:
    console = Console(file=io.StringIO(), width=110)
    with ProgressReporter(console) as reporter:
        for stage in ("scan", "summarise_clusters"):
            reporter.start(stage, 16, 0, "rows")
            reporter.advance(stage, 16)
            reporter.finish(stage, 2.0)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len({each.index("rows") for each in lines}) == 1
    assert all(each.endswith("8 rows/s") for each in lines)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobError("no"), 2), (InputChangedError("no"), 2), (KubectlError("no"), 2), (SchedulerLostError("no"), 75),
        (JobFailedError("no"), 1), (CorruptError("no", "scan", "3"), 1), (RuntimeError("no"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_a_failure_has_its_exit_code_and_only_an_unexpected_one_a_traceback(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command_line, "app", fail)
    monkeypatch.setattr("os._exit", sys.exit)  # which ends the process without waiting for threads
    try:
        with pytest.raises(SystemExit) as left:
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert left.value.code == code
    assert [record.exc_info is not None for record in caplog.records] == [True] * (type(error) is RuntimeError)


def test_every_stage_s_name_fits_its_column() -> None:
    assert max(map(len, lines())) <= STAGE_COLUMNS
