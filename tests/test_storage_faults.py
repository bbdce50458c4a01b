"""Storage that is away for a while costs time and nothing else; where it stays away, that is one sentence."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from conftest import BLOCK_ROWS, Command, planted_rows, write_input
from obstore.store import S3Store

from benchmarks import outages
from benchmarks.faulty_proxy import FaultyProxy, faulty_proxy
from distcluster.errors import DONE, TRY_AGAIN, WRONG
from distcluster.stages.flow import STAGES
from distcluster.storage.run import Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")

NAMES = ("label", "probability", "projection", "model/anchors", "selection/bic", "cluster/size")


@dataclass
class Remote:
    """A job from S3 to S3 by way of a proxy."""

    proxy: FaultyProxy
    argv: list[str]
    environ: dict[str, str]

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it, however it ends."""
        return subprocess.run(self.argv, env=self.environ, capture_output=True, text=True, timeout=300, check=False)


SETTINGS = {"mixture__n_components": [2, 4, 8], "projection__views": [], "assign__partition_rows": 4 * BLOCK_ROWS}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_input(tmp_path_factory.mktemp("source") / "input", planted_rows(4000, 4)[0])


@pytest.fixture(scope="module")
def expected(source: Path, new_command: Callable[..., Command]) -> Run:
    """The same job on a file system that does as it is told."""
    return new_command(source, **SETTINGS).run_to_the_end()


@pytest.fixture
def remote(s3: dict[str, str], source: Path, new_command: Callable[..., Command]) -> Iterator[Remote]:
    bucket = S3Store("bucket", client_options={"allow_http": True})
    for path in source.rglob("*"):
        if path.is_file():
            obstore.put(bucket, f"in/{path.relative_to(source)}", path.read_bytes())
    with faulty_proxy(s3["AWS_ENDPOINT_URL"]) as (proxy, address):
        command = new_command(
            environ={**s3, "AWS_ENDPOINT_URL": address, "DISTCLUSTER_STORE_SECONDS": "60"},
            **SETTINGS,
            deploy__n_workers=2,
            report__write="always",
        )
        command.settings |= {"input.url": "s3://bucket/in", "output.url": "s3://bucket/out"}
        argv = command.argv()
        job = Path(argv[4])
        job.write_text("\n".join(job.read_text().splitlines()[2:]))  # paths would make s3:// one slash short
        yield Remote(proxy, argv, command.process_environment())


def differing(run: Run, expected: Run) -> list[str]:
    return [name for name in NAMES if run.array(name)[:].tobytes() != expected.array(name)[:].tobytes()]


def test_a_store_that_fails_at_the_start_and_at_every_stage_costs_time_and_nothing_else(tmp_path: Path) -> None:
    outcome = outages.measure(tmp_path, outage_seconds=0.5)
    unasked = {"match_clusters", "sum_crosswalk"}  # by this job
    assert {stage.name for stage in STAGES if stage.is_result} - unasked <= outcome.struck.keys()
    assert len(outcome.struck) > 15
    assert outcome.refused > len(outcome.struck)
    assert outcome.differing == []


def test_a_store_that_stays_away_is_worth_another_try_and_the_next_run_goes_on(remote: Remote, expected: Run) -> None:
    remote.environ["DISTCLUSTER_STORE_SECONDS"] = "2"
    remote.proxy.start("unavailable", 1e9)
    refused = remote.run()
    assert refused.returncode == TRY_AGAIN, refused.stderr
    assert "the storage failed: " in refused.stderr
    remote.proxy.start("unavailable", 0)

    def strike(method: str, path: str) -> None:
        if method == "PUT" and "/out/commit/subsample/" in path:
            remote.proxy.start("unavailable", 1e9)

    remote.proxy.watch = strike
    cut = remote.run()
    assert cut.returncode == TRY_AGAIN, cut.stderr
    assert "What was committed stays: run again to resume." in " ".join(cut.stderr.split())
    assert "Traceback" not in cut.stderr
    remote.proxy.watch = lambda *_: None
    remote.proxy.start("unavailable", 0)
    assert "all" in Run("s3://bucket/out").records.committed("subsample")
    done = remote.run()
    assert done.returncode == DONE, done.stderr
    assert differing(Run("s3://bucket/out"), expected) == []


def on_small_disk(command: Command, options: str) -> subprocess.CompletedProcess[str]:
    """Run the command where its output's directory is a file system of its own, which goes when it ends."""
    command.output.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", mount, str(command.output), *command.argv()]
    return subprocess.run(
        argv, env=command.process_environment(), capture_output=True, text=True, timeout=300, check=False
    )


needs_mount = pytest.mark.skipif(
    shutil.which("unshare") is None
    or os.geteuid() != 0
    or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs root, to mount",
)


@needs_mount
def test_a_full_disk_is_said_in_a_sentence(new_command: Callable[..., Command]) -> None:
    done = on_small_disk(new_command(), "size=500k")
    assert done.returncode == TRY_AGAIN, done.stderr
    assert "the storage is full" in done.stderr
    assert "make room and run again" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@needs_mount
def test_a_disk_that_cannot_be_written_is_said_in_a_sentence(new_command: Callable[..., Command]) -> None:
    done = on_small_disk(new_command(), "ro")
    assert done.returncode == WRONG, done.stderr
    assert "the storage refuses: Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
