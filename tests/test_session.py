"""Run and choose hold the same session: a lost scheduler, damage and workers that differ end alike in both."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import Command, SilentReporter, unequal
from distributed import Client
from distributed.security import Security

from benchmarks.servers import dask_cluster
from distcluster.api import choose_candidate
from distcluster.deploy import DeployTable
from distcluster.errors import TRY_AGAIN, JobError, SchedulerLostError
from distcluster.execution import worker_check
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.storage.run import Run

WANTED = Candidate(6, "diag")


@pytest.fixture
def copied(reference: Run, tmp_path: Path) -> Run:
    """A finished run that a test may damage."""
    return Run(str(shutil.copytree(reference.url, tmp_path / "run")))


def at(address: str) -> DeployTable:
    return DeployTable(kind="address", address=address)


def choose(run: Run) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "distcluster",
        "choose",
        run.url,
        "--n-components",
        "6",
        "--covariance-type",
        "diag",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_scheduler_that_is_lost_during_a_choice_is_worth_another_try(copied: Run, tmp_path: Path) -> None:
    with dask_cluster(tmp_path, n_workers=1) as (address, _):

        def kill_the_scheduler() -> None:
            found = subprocess.run(
                ["pgrep", "-f", str(tmp_path / "scheduler.json")], capture_output=True, text=True, check=True
            )
            os.kill(int(found.stdout.split()[0]), signal.SIGKILL)

        with pytest.raises(SchedulerLostError, match="run again to resume"):
            choose_candidate(
                copied.url, WANTED, DeployTable(kind="address", address=address), SilentReporter(kill_the_scheduler)
            )
    assert SchedulerLostError.exit_code == TRY_AGAIN
    assert Run(f"{copied.url}/choice/{WANTED}").last_error().startswith("SchedulerLostError: ")
    assert choose(copied).returncode == 0  # what was committed stays


def test_a_worker_that_is_frozen_at_the_start_is_left_out(
    copied: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_check, "SILENT_SECONDS", 2.0)
    with dask_cluster(tmp_path, n_workers=2) as (address, _):
        with Client(address) as client:
            client.wait_for_workers(2)
            frozen = psutil.Process(next(iter(client.run(os.getpid).values())))
        frozen.suspend()
        try:
            choose_candidate(copied.url, WANTED, at(address), SilentReporter())
        finally:
            frozen.resume()
    assert Run(f"{copied.url}/choice/{WANTED}").last_error() == ""


def test_a_worker_with_other_kernels_may_not_choose(
    copied: Run, other_kernels: dict[str, str | None], tmp_path: Path
) -> None:
    with (
        dask_cluster(tmp_path, n_workers=1, environ=other_kernels) as (address, _),
        pytest.raises(JobError, match=r"OpenBLAS kernels: .* expected"),
    ):
        choose_candidate(copied.url, WANTED, at(address), SilentReporter())


def test_a_choice_does_not_need_the_input(reference: Run, new_command: Callable[..., Command], tmp_path: Path) -> None:
    source = Path(shutil.copytree(reference.input_url, tmp_path / "source"))
    run = new_command(source).run_to_the_end()
    shutil.rmtree(source)
    done = choose(run)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[0] for line in done.stdout.splitlines() if "rows/s" in line]
    assert lines == ["label_rows", "cross_labels"]
    assert unequal(reference, run) == []


# --- nobody else ------------------------------------------------------------------------------------------------


def greets(port: int, stranger: ssl.SSLContext | None) -> bool:
    """Whether one of Dask's servers begins to talk with a stranger: they say first what they can decompress."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as plain:
            if stranger is None:
                return b"compression" in plain.recv(4096)
            with stranger.wrap_socket(plain) as encrypted:
                return b"compression" in encrypted.recv(4096)
    except OSError:  # nothing is said, or the certificate is refused
        return False


def without_checks(security: Security | None = None) -> ssl.SSLContext:
    """TLS that takes any server, with a certificate or without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if security is not None:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(security.tls_client_cert + security.tls_client_key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


@pytest.mark.parametrize("tls", [True, False])
def test_no_other_user_of_the_machine_reaches_the_local_cluster(tls: bool, new_command: Callable[..., Command]) -> None:
    strangers = (None, without_checks(), without_checks(Security.temporary()))  # of another authority
    command = new_command(deploy__n_workers=2, deploy__tls=tls, projection__n_epochs=100_000)  # it would take an hour
    process = command.start()
    try:
        assert command.wait_for(process, "scan"), process.communicate()
        open_ports = psutil.Process(process.pid).net_connections()
        ports = {each.laddr.port for each in open_ports if each.status == psutil.CONN_LISTEN}
        assert len(ports) >= 4  # the scheduler, the dashboard, two nannies
        let_in = [port for stranger in strangers for port in ports if greets(port, stranger)]
        assert process.poll() is None, "it ended before the strangers came"
        assert bool(let_in) is not tls  # without certificates a stranger gets in: so this test can fail
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too, are in the middle of something
        process.communicate()


_TWO_CLUSTERS = """
import asyncio, os, psutil
from pathlib import Path
from distcluster.deploy import DeployTable
from distcluster.execution.connect import connect

async def main():
    before = dict(os.environ)
    for word in ("first", "second"):
        os.environ["SAID"] = word
        async with connect(DeployTable(n_workers=2, dashboard_address="127.0.0.1:0")) as client:
            said = await client.run(os.getenv, "SAID")
            (parent,) = {psutil.Process(pid).ppid() for pid in (await client.run(os.getpid)).values()}
            threads = [Path(f"/proc/{parent}/task/{each.id}/comm") for each in psutil.Process(parent).threads()]
            names = {each.read_text().strip() for each in threads if each.parent.name != str(parent)}
            print(*said.values(), *names - {"jemalloc_bg_thd"})  # pyarrow's allocator begins it anew after a fork
            print(*(await client.run(os.getenv, "NUMBA_NUM_THREADS")).values())
    print(*(name for name in os.environ if "THREADS" in name and os.environ[name] != before.get(name)))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_workers_are_forked_from_one_thread_and_see_the_environment_as_it_is_now() -> None:
    command = [sys.executable, "-c", _TWO_CLUSTERS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    # No thread but the main one: a lock that another one held would stay locked in what is forked.
    # The caller's own environment stays: numba would compile nothing more where it has begun with other threads.
    assert done.stdout.splitlines() == ["first first", "1 1", "second second", "1 1", ""]


_PINNED_TWICE = """
from threadpoolctl import threadpool_info
from distcluster.environment import pin_to_one_thread
pin_to_one_thread()
before = len(threadpool_info())
import sklearn.cluster
pin_to_one_thread()
print(len(threadpool_info()) - before, *{each["num_threads"] for each in threadpool_info()})
"""


def test_a_library_that_a_task_has_loaded_has_one_thread_in_the_next() -> None:
    command = [sys.executable, "-c", _PINNED_TWICE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    more, *threads = done.stdout.split()
    assert int(more) > 0
    assert threads == ["1"]
