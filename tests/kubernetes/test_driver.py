"""The driver in its pod: the ordinary `distcluster run`, its scheduler named by the environment."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Command, unequal

from benchmarks.servers import changed_environment
from distcluster.execution.connect import new_certificate
from distcluster.storage.run import Run


def tls_environment(directory: Path) -> dict[str, str | None]:
    """What the settings of k8s/base say, with the certificate in a directory of ours."""
    for name, content in new_certificate().items():
        (directory / name).write_text(content)
    prefix = "DASK_DISTRIBUTED__COMM__"
    named = {f"{prefix}TLS__CA_FILE": "ca.crt"}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        named |= {f"{prefix}TLS__{role}__CERT": "tls.crt", f"{prefix}TLS__{role}__KEY": "tls.key"}
    paths: dict[str, str | None] = {key: str(directory / name) for key, name in named.items()}
    return {**paths, f"{prefix}DEFAULT_SCHEME": "tls", f"{prefix}REQUIRE_ENCRYPTION": "True"}


IN_POD = [sys.executable, "-m", "distcluster.kubernetes.in_pod"]


@contextmanager
def pods(
    directory: Path, environ: dict[str, str | None], port: int, first: Sequence[str] = ()
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A scheduler and a worker as the manifests start them, without containers, each behind what runs first."""
    dask = [*first, sys.executable, "-m", "dask"]
    variables = changed_environment(environ)
    ports = ["--protocol", "tls", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]
    worker = [*dask, "worker", "--protocol", "tls", "--nthreads", "1", "--no-dashboard", "--local-directory"]
    ports += ["--preload", "distcluster.kubernetes.dismissal"]
    processes = [
        subprocess.Popen([*dask, "scheduler", *ports], env=variables, stderr=subprocess.DEVNULL),
        subprocess.Popen([*worker, str(directory)], env=variables, stderr=subprocess.DEVNULL),
    ]
    try:
        yield processes
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def test_without_a_scheduler_in_the_environment_nothing_is_written(new_command: Callable[..., Command]) -> None:
    command = new_command(environ={"DASK_SCHEDULER_ADDRESS": None}, deploy__kind="kubernetes")
    done = command.run()
    assert done.returncode == 2
    assert "no scheduler is known" in done.stderr
    assert not command.output.exists()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_environment_names_the_scheduler_and_a_lost_one_is_exit_75_over_tls(
    reference: Run, new_command: Callable[..., Command], tmp_path: Path, port: int
) -> None:
    environ = tls_environment(tmp_path) | {"DASK_SCHEDULER_ADDRESS": f"tls://127.0.0.1:{port}"}
    command = new_command(environ=environ, deploy__kind="kubernetes")
    with pods(tmp_path, environ, port) as (scheduler, _):
        driver = command.start()
        while not (command.output / "commit" / "find_neighbours").exists() and driver.poll() is None:
            time.sleep(0.01)
        scheduler.kill()
        killed = time.monotonic()
        _, errors = driver.communicate(timeout=60)
        assert driver.returncode == 75, errors
        assert time.monotonic() - killed < 30, "a Job that waits for a driver that hangs does not resume"
    with pods(tmp_path, environ, port):
        assert unequal(reference, command.run_to_the_end()) == []


def test_certificate_files_in_the_job_reach_any_scheduler_and_without_them_it_refuses(
    reference: Run, new_command: Callable[..., Command], tmp_path: Path, port: int
) -> None:
    environ = tls_environment(tmp_path) | {"DASK_SCHEDULER_ADDRESS": f"tls://127.0.0.1:{port}"}
    files = {"tls_ca_file": "ca.crt", "tls_client_cert": "tls.crt", "tls_client_key": "tls.key"}
    named = {f"deploy__{key}": str(tmp_path / file) for key, file in files.items()}
    address = {"deploy__kind": "address", "deploy__address": f"tls://127.0.0.1:{port}"}
    with pods(tmp_path, environ, port):
        assert unequal(reference, new_command(**address, **named).run_to_the_end()) == []
    stranger = new_command(**address).run()
    assert stranger.returncode == 2
    assert "wants certificates" in stranger.stderr


def serving(tmp_path: Path, port: int, lonely_seconds: int) -> dict[str, str | None]:
    """The environment of pods that leave when the job is over."""
    return tls_environment(tmp_path) | {
        "DASK_SCHEDULER_ADDRESS": f"tls://127.0.0.1:{port}",
        "DASK_TEMPORARY_DIRECTORY": str(tmp_path),
        "DISTCLUSTER_N_WORKERS": "1",
        "DISTCLUSTER_LONELY_SECONDS": str(lonely_seconds),
    }


def test_scheduler_and_workers_leave_when_the_driver_is_done_and_not_while_it_is_tried_again(
    tmp_path: Path, port: int
) -> None:
    environ = serving(tmp_path, port, 3600)
    drive = [*IN_POD, "drive", "sh", "-c"]
    with pods(tmp_path, environ, port, [*IN_POD, "serve"]) as processes:
        for code, left in ((75, False), (2, True)):
            done = subprocess.run([*drive, f"exit {code}"], env=changed_environment(environ), check=False)
            assert done.returncode == code
            if left:
                assert [each.wait(timeout=180) for each in processes] == [0, 0]
            assert [each.poll() is not None for each in processes] == [left, left]


def test_scheduler_and_workers_leave_when_no_driver_comes(tmp_path: Path, port: int) -> None:
    with pods(tmp_path, serving(tmp_path, port, 5), port, [*IN_POD, "serve"]) as processes:
        assert [each.wait(timeout=180) for each in processes] == [0, 0]


def test_what_is_told_to_leave_leaves_and_what_never_worked_is_seen(tmp_path: Path) -> None:
    environ = changed_environment({"DASK_TEMPORARY_DIRECTORY": str(tmp_path)})
    assert subprocess.run([*IN_POD, "serve", "sh", "-c", "exit 3"], env=environ, check=False).returncode == 3
    told = [*IN_POD, "serve", "sh", "-c", "echo begun; exec sleep 600"]
    with subprocess.Popen(told, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=60) == 130
