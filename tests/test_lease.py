"""One run has one writer, on a file system and in an object store, and one that has lost the run commits nothing."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import Command, unequal

from distcluster.errors import LeaseLostError, RunHeldError
from distcluster.execution.status import read_status
from distcluster.storage import layout, lease
from distcluster.storage.array_store import ArrayStore
from distcluster.storage.run import Run


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArrayStore:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return ArrayStore("s3://bucket/run")
    return ArrayStore(str(tmp_path / "run"))


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")


def key(token: int) -> str:
    return f"{layout.LEASE}/{token}.json"


def seen_from_elsewhere(store: ArrayStore, token: int) -> None:
    """Have the holder be on another machine, where nobody can look for its process."""
    holder = json.loads(store.get(key(token)) or b"")
    store.put(key(token), json.dumps(holder | {"machine": "another", "host": "far"}).encode())


def test_a_second_writer_is_told_who_the_first_is_and_tokens_grow(store: ArrayStore) -> None:
    with lease.held(store, 20) as first:
        with (
            pytest.raises(RunHeldError, match=r"process \d+ of \S+ on \S+, since 20\d\d-") as error,
            lease.held(store, 20),
        ):
            pass
        assert "one writer at a time" in str(error.value)
        lease.require(store, first)
    with lease.held(store, 20) as second:
        assert second == first + 1
        assert store.keys_under(layout.LEASE) == [key(second)]
        with pytest.raises(LeaseLostError, match="another writer has taken this run"):
            lease.require(store, first)
    assert lease.find_writer(store) is None


def test_a_writer_that_has_died_here_is_not_waited_for(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom distcluster.storage import lease\n"
        "from distcluster.storage.array_store import ArrayStore\n"
        "with lease.held(ArrayStore(sys.argv[1]), 3600):\n    os._exit(9)\n"
    )
    url = str(tmp_path / "run")
    assert subprocess.run([sys.executable, "-c", program, url], check=False).returncode == 9
    store = ArrayStore(url)
    (left,) = store.keys_under(layout.LEASE)
    assert lease.find_writer(store) is None
    with lease.held(store, 20) as token:
        assert key(token - 1) == left


def test_a_writer_elsewhere_that_renews_keeps_the_run_and_one_that_does_not_loses_it(store: ArrayStore) -> None:
    with lease.held(store, 4) as first:
        seen_from_elsewhere(store, first)
        with pytest.raises(RunHeldError), lease.held(store, 20):
            pass
    seen_from_elsewhere(store, first)
    holder = json.loads(store.get(key(first)) or b"")
    store.put(key(first), json.dumps(holder | {"is_over": False}).encode())
    with lease.held(store, 20) as second:
        assert second == first + 1


def test_a_number_is_not_given_twice_where_the_output_was_removed(tmp_path: Path) -> None:
    with lease.held(ArrayStore(str(tmp_path / "run")), 20) as first:
        shutil.rmtree(tmp_path / "run")
        with lease.held(ArrayStore(str(tmp_path / "run")), 20) as second:
            assert second > first
            with pytest.raises(LeaseLostError):
                lease.require(ArrayStore(str(tmp_path / "run")), first)


def test_a_process_that_cannot_be_seen_is_not_called_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = ArrayStore(str(tmp_path / "run"))
    with lease.held(store, 20):
        holder = lease.find_writer(store)
        assert holder is not None
        assert holder.lives() is True
        assert replace(holder, started=holder.started - 5).lives() is None  # the clock was set
        assert replace(holder, pid=2**22 - 1).lives() is False
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: (_ for _ in ()).throw(psutil.AccessDenied()))
        assert holder.lives() is None


def test_a_torn_lease_is_nobody_s(store: ArrayStore) -> None:
    store.put(key(7), b'{"user": ')
    with lease.held(store, 20) as token:
        assert token == 8


@pytest.fixture
def copied(finished: Command) -> Run:
    return Run(str(finished.output))


def test_the_commit_of_a_writer_that_has_lost_the_run_changes_nothing(copied: Run) -> None:
    before = {path: path.read_bytes() for path in Path(copied.url).rglob("*") if path.is_file()}
    labels = copied.read_rows(layout.LABEL, copied.partitioning[0]) + 1
    with copied.writing(20):
        copied.store.put(key(2**62), b"{}")
        changes: tuple[Callable[[], object], ...] = (
            lambda: copied.commit("label_rows", "0", {}, rows={layout.LABEL: labels}),
            lambda: copied.records.discard("label_rows", "0"),
            lambda: copied.records.forget("label_rows"),
            lambda: copied.update(input_version="another"),
            lambda: copied.drop("label"),
        )
        for change in changes:
            with pytest.raises(LeaseLostError):
                change()
    after = {path: path.read_bytes() for path in Path(copied.url).rglob("*") if path.is_file()}
    assert {path: after.get(path) for path in before if "lease" not in str(path)} == {
        path: content for path, content in before.items() if "lease" not in str(path)
    }


def test_a_run_that_was_opened_for_reading_cannot_be_changed(copied: Run) -> None:
    with pytest.raises(RuntimeError, match="opened for reading"):
        copied.commit("label_rows", "0", {})


# --- whole jobs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two(
    request: pytest.FixtureRequest, new_command: Callable[..., Command]
) -> Iterator[tuple[Command, subprocess.Popen[str]]]:
    """A command whose lease lasts so many seconds, and its process at work on the output."""
    command = new_command(deploy__n_workers=2, deploy__lease_seconds=request.param)
    process = command.start()
    try:
        assert command.wait_for(process, "scan")
        yield command, process
    finally:
        with contextlib.suppress(ProcessLookupError):  # its workers may be stopped, and hold the pipe of what it says
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("two", [60.0], indirect=True)  # a busy machine may keep a renewal waiting
def test_of_two_jobs_with_one_output_the_second_ends_at_once(
    two: tuple[Command, subprocess.Popen[str]], reference: Run
) -> None:
    command, first = two
    assert read_status(str(command.output)).writer.startswith(f"process {first.pid} of ")
    second = command.run()
    assert second.returncode == 75, second.stderr
    assert f"is being written by process {first.pid} of" in " ".join(second.stderr.split())
    _, said = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert unequal(reference, Run(str(command.output))) == []


@pytest.mark.parametrize("two", [2.0], indirect=True)
def test_a_stopped_job_that_is_continued_after_another_took_its_output_harms_nothing(
    two: tuple[Command, subprocess.Popen[str]], new_command: Callable[..., Command]
) -> None:
    command, first = two
    other = Command(command.directory, command.source, command.output, command.settings | {"sample.seed": 5})
    os.killpg(first.pid, signal.SIGSTOP)
    time.sleep(2.0)  # the lease ends
    taking = other.start("--overwrite")
    store = ArrayStore(str(command.output))
    try:
        while (writer := lease.find_writer(store)) is None or writer.pid != taking.pid:
            assert taking.poll() is None, taking.communicate()
            time.sleep(0.002)
        os.killpg(first.pid, signal.SIGCONT)
        _, said = taking.communicate(timeout=300)
        assert taking.returncode == 0, said
    finally:
        if taking.poll() is None:
            taking.kill()
            taking.communicate()
    _, said = first.communicate(timeout=300)
    assert first.returncode == 75, said
    assert f"another writer has taken this run, so nothing more of this one is committed: process {taking.pid} of" in (
        " ".join(said.split())
    )
    undisturbed = new_command(sample__seed=5).run_to_the_end()
    assert unequal(undisturbed, Run(str(command.output))) == []
