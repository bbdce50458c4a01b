"""Commands as scripts use them: JSON, silence, logs, live status, a job without a file, and what is not imported."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr

import distcluster
from distcluster.cli.made_job import made_job
from distcluster.cli.tables import status_table
from distcluster.cli.terminal import open_console
from distcluster.execution.status import Pace, Status, read_status
from distcluster.stages.flow import own_keys
from distcluster.storage.run import Run

HEAVY = {"numba", "faiss", "sklearn", "scipy", "pandas", "dask", "distributed", "umap", "matplotlib"}
ARRAYS = {"zarr", "numcodecs", "pyarrow", "fsspec", "numpy.ma"}
CLUSTERS = {"yaml", "urllib.request", "tomllib", "psutil"}
SMALL = (
    "sample.rows=300", "sample.mixture_rows=300", "projection.views=[2]", "projection.n_epochs=30",
    "projection.n_components=2", "mixture.n_components=[2,3]", 'mixture.covariance_type=["diag"]', "mixture.n_init=1",
    "selection.replicates=0", "selection.refine=false", "assign.block_rows=64", "assign.partition_rows=64",
    "deploy.n_workers=1", "deploy.dashboard_address=127.0.0.1:0",
)  # fmt: skip


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "distcluster", *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with 640 rows in two groups, ``docs.zarr``."""
    directory = tmp_path_factory.mktemp("commands")
    random = np.random.default_rng(0)
    rows = random.normal(size=(640, 8)) + 8.0 * (np.arange(640) % 2)[:, None]
    group = zarr.open_group(str(directory / "docs.zarr"), mode="w")
    group.create_array("embeddings", data=rows.astype(np.float32), chunks=(64, 8))
    return directory


@pytest.fixture(scope="module")
def clustered(place: Path) -> subprocess.CompletedProcess[str]:
    """What ``distcluster cluster docs.zarr --json -v`` has said."""
    options = [word for each in SMALL for word in ("--set", each)]
    done = command("cluster", "docs.zarr", *options, "--json", "-v", cwd=place)
    assert done.returncode == 0, done.stderr
    return done


def test_a_script_gets_one_object_and_progress_on_the_error_stream(
    place: Path, clustered: subprocess.CompletedProcess[str]
) -> None:
    found = json.loads(clustered.stdout)
    assert (found["run"], found["worked"], found["finished"]) == (str(place / "runs/docs"), True, True)
    assert found["summary"]["n_rows"] == 640
    assert Path(found["report"]).is_file()
    lines = clustered.stderr.splitlines()
    assert any(line.startswith("label_rows: 640 rows in ") for line in lines)  # which -v adds
    events = [json.loads(line) for line in lines if line.startswith("{")]
    scanned = [each for each in events if each.get("stage") == "scan"]
    assert (scanned[0]["event"], scanned[0]["done"], scanned[0]["total"]) == ("start", 0, 640)
    assert (scanned[-1]["event"], scanned[-1]["done"], scanned[-1]["unit"]) == ("finish", 640, "rows")


def test_cluster_keeps_the_job_that_it_made_and_the_run_is_that_job_s(
    place: Path, clustered: subprocess.CompletedProcess[str]
) -> None:
    kept = json.loads(clustered.stdout)["job_file"]
    tables = tomllib.loads((place / kept).read_text())
    assert tables["input"] == {"url": "docs.zarr"}
    assert tables["output"] == {"url": "runs/docs"}
    assert tables["sample"] == {"rows": 300, "mixture_rows": 300}
    report = place / "runs/docs/report/index.html"
    written = report.stat().st_mtime_ns
    again = command("run", kept, cwd=place)
    assert again.returncode == 0, again.stderr
    assert "nothing was left to do" in again.stdout
    assert report.stat().st_mtime_ns == written
    quiet = command("run", kept, "-q", "--set", "report.item_column=title", cwd=place)
    assert "nothing was left to do" not in quiet.stdout
    assert "640 rows in" in quiet.stdout
    assert report.stat().st_mtime_ns > written  # another table of the report, so another report


@pytest.mark.usefixtures("clustered")
def test_a_run_keeps_the_log_of_its_session_and_everything_in_it_is_its_own(place: Path) -> None:
    (log,) = (place / "runs/docs/log").glob("*.log")
    lines = log.read_text().splitlines()
    assert f"distcluster {distcluster.__version__} on " in lines[0]
    assert any(re.search(r"label_rows: 640 rows in \d+\.\d s$", line) for line in lines)
    assert lines[-1].endswith(" done")
    others = [key for key in Run(str(place / "runs/docs")).store.keys_under("") if not own_keys().fullmatch(key)]
    assert [key for key in others if not key.startswith("commit/lease/")] == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["status", "nothing"], "there is no run at"),
        (["status"], "Missing argument 'RUN'"),
        (["run", "job.toml", "--wrong"], "No such option: --wrong"),
    ],
)
def test_a_failure_is_an_object_too(arguments: list[str], error: str, tmp_path: Path) -> None:
    done = command(*arguments, "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (2, 2)
    assert error in json.loads(done.stdout)["error"]


@pytest.mark.usefixtures("clustered")
def test_status_tells_who_works_how_fast_and_how_long_it_will_take(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(str(shutil.copytree(place / "runs/docs", tmp_path / "run")))
    records = sorted((tmp_path / "run/commit/label_rows").glob("*.json"))
    assert len(records) == 10
    for record in records[8:]:
        record.unlink()
    with run.writing(20):
        for second, record in enumerate(records[:8]):
            moment = datetime.now(UTC).timestamp() + second
            os.utime(record, (moment, moment))
        found = read_status(run.url)
        assert found.live is not None
        assert (found.live.pid, found.live.is_alive) == (os.getpid(), True)
        (pace,) = found.paces
        assert pace.stage == "label_rows"
        assert pace.per_second == pytest.approx(64, rel=0.01)
        assert pace.seconds_left == pytest.approx(2, rel=0.01)
        open_console().print(status_table(found, bars=False))
        shown = capsys.readouterr().out
        assert "alive, heard from" in shown
        assert "at label_rows, 64 rows/s, about 2 seconds left" in shown
    assert read_status(run.url).live is None


@pytest.mark.usefixtures("clustered")
def test_a_writer_elsewhere_that_has_not_renewed_its_lease_is_called_silent(place: Path, tmp_path: Path) -> None:
    run = Run(str(shutil.copytree(place / "runs/docs", tmp_path / "run")))
    with run.writing(20):
        (lease,) = (tmp_path / "run/commit/lease").iterdir()
        lease.write_text(lease.read_text().replace('"machine": "', '"machine": "another '))
        assert is_alive(read_status(run.url))
        assert not is_alive(read_status(run.url, now=datetime.now(UTC) + timedelta(seconds=30)))


def is_alive(status: Status) -> bool:
    assert status.live is not None
    assert status.paces == (Pace("label_rows", None, "rows", None),) or status.finished
    return status.live.is_alive


@pytest.mark.usefixtures("clustered")
@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (("--help",), HEAVY | ARRAYS | CLUSTERS),
        (("--version",), HEAVY | ARRAYS | CLUSTERS),
        (("status", "runs/docs", "--json"), HEAVY | ARRAYS | CLUSTERS),
        (("submit", "--help"), HEAVY | ARRAYS | CLUSTERS),
        (("plan", "runs/docs.toml", "--set", "output.url=runs/new"), HEAVY),
        (("submit", "runs/docs.toml", "--dry-run", "--image", "example.com/distcluster:1", "--set",
          "input.url=s3://bucket/docs.zarr", "--set", "output.url=s3://bucket/run", "--set", "deploy.kind=kubernetes"),
         HEAVY | ARRAYS),
    ],
    ids=lambda given: " ".join(given[:2]) if isinstance(given, tuple) else "",
)  # fmt: skip
def test_what_looks_at_a_run_imports_nothing_that_computes(
    arguments: Sequence[str], absent: set[str], place: Path
) -> None:
    code = (
        "import sys; from distcluster.cli.main import main; sys.argv[0] = 'distcluster'\n"
        "try: main()\n"
        "except SystemExit as leaving: assert not leaving.code, leaving.code\n"
        f"print(*sorted({absent!r} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=place, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr.split() == []


def test_the_text_column_of_an_input_becomes_the_report_s_items() -> None:
    job, written = made_job("s3://bucket/docs.parquet", None, text="body", id_column=None, overrides=["sample.seed=3"])
    assert (job.output.url, job.report.items, job.sample.seed) == ("runs/docs", "s3://bucket/docs.parquet/body", 3)
    assert tomllib.loads(written)["report"] == {"items": "input:body"}


def test_a_shell_can_complete_commands(tmp_path: Path) -> None:
    assert "--install-completion" in command("--help", cwd=tmp_path).stdout
