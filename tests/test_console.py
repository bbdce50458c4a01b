"""What a person reads in a terminal has bars; what is piped is plain text of the same figures."""

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from distcluster.cli.main import app
from distcluster.execution import status
from distcluster.execution.status import StageStatus, Status
from distcluster.job import ReportTable
from distcluster.report import summary
from distcluster.storage.run import Run

FULL, HALF = "█", "▌"


def printed(text: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=110)
    console.print(text)
    return console.file.getvalue()  # type: ignore[attr-defined]


def line(text: str, name: str) -> str:
    return next(each for each in text.splitlines() if each.split()[:1] == [name])


def test_a_stage_s_bar_is_as_long_as_its_share() -> None:
    stages = [StageStatus("scan", 4, 4), StageStatus("project", 1, 4), StageStatus("grid", 2, None)]
    shown = printed(status.render(Status(stages, finished=False, last_error="[red]no space"), bars=True))
    assert [line(shown, stage.name).count(FULL) for stage in stages] == [24, 6, 0]
    assert line(shown, "grid").split() == ["grid", "2", "?"]
    assert "last error: [red]no space" in shown


def test_a_cluster_s_bar_is_as_long_as_its_part_of_the_largest(reference: Run) -> None:
    found = summary.summarise(reference, ReportTable())
    few = [replace(each, size=size) for each, size in zip(found.clusters, (1200, 650), strict=False)]
    shown = printed(summary.render(replace(found, clusters=few, sizes=(600, 650, 1200)), bars=True))
    first, second = (line(shown, str(each.label)) for each in few)
    assert first.count(FULL) == 12
    assert (second.count(FULL), second.count(HALF)) == (6, 1)


@pytest.mark.parametrize("what", ["status", "summary"])
def test_a_pipe_gets_plain_text(reference: Run, what: str) -> None:
    if what == "status":
        done = CliRunner().invoke(app, ["status", reference.url])
        assert done.exit_code == 0, done.output
        shown = done.output
        assert line(shown, "label_rows").split() == ["label_rows", "16", "16"]
        assert shown.endswith("finished\n")
    else:
        shown = printed(summary.render(summary.summarise(reference, ReportTable()), bars=False))
        largest = reference.array("cluster/size")[:].max()
        assert f"{largest:,}" in shown
    assert shown.isascii()
