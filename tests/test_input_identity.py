"""The input is what the job names now: moved, copied, behind a signed URL, or another one of the same shape."""

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from conftest import FEW, Command, planted_rows, unequal, write_input
from test_resume import kill_at

from distcluster.storage.run import Run

SECRET = "c0ffee5ecre7"


@pytest.fixture
def source(planted: tuple[Path, np.ndarray], tmp_path: Path) -> Path:
    """A copy of the planted input, for a test to move or remove."""
    return Path(shutil.copytree(planted[0], tmp_path / "source"))


def test_a_run_whose_input_has_moved_goes_on_from_the_new_place(
    reference: Run, new_command: Callable[..., Command], source: Path
) -> None:
    command = new_command(source)
    assert kill_at(command, "find_neighbours", 1)
    command.source = source.rename(source.with_name("elsewhere"))
    run = command.run_to_the_end()
    assert unequal(reference, run) == []


def test_a_copy_of_the_input_serves_when_the_original_is_gone(
    reference: Run, new_command: Callable[..., Command], source: Path, tmp_path: Path
) -> None:
    command = new_command(source)
    assert kill_at(command, "find_neighbours", 1)
    # Read back and written anew, so that no object keeps its inode and time: the content has to be compared.
    command.source = write_input(tmp_path / "copy", planted_rows(reference.partitioning.n_rows, 8)[0])
    shutil.rmtree(source)
    done = command.run()
    assert done.returncode == 0, done.stderr
    assert "check_input" in done.stdout
    run = Run(str(command.output))
    assert unequal(reference, run) == []
    assert run.input_url == str(command.source)
    assert "nothing was left to do" in command.run().stdout  # it is known from now on


def test_another_input_of_the_same_shape_is_refused_by_its_first_differing_block(
    new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows = planted_rows(8000, 4)[0]
    command = new_command(write_input(tmp_path / "first", rows), **FEW)
    command.run_to_the_end()
    other = rows.copy()
    other[5000:] += 1.0  # from the tenth block of 512 on, in partitions 4 to 7
    command.source = write_input(tmp_path / "second", other)
    for _ in range(2):  # a refused input is not recorded as the run's own
        done = command.run()
        assert done.returncode == 2, done.stdout
        assert f"rows 4,608 to 5,119 of {command.source} are not what" in done.stderr
    assert "and 3 other partitions differ too" in done.stderr
    command.source = tmp_path / "first"
    assert "nothing was left to do" in command.run().stdout


class Signed(SimpleHTTPRequestHandler):
    """Gives files to those who have the signature, as a presigned URL does."""

    def do_GET(self) -> None:
        """As the handler's, for those alone."""
        if parse_qs(urlsplit(self.path).query).get("signature") == [SECRET]:
            super().do_GET()
        else:
            self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(planted: tuple[Path, np.ndarray]) -> Iterator[str]:
    """The planted input behind such a URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Signed, directory=str(planted[0].parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{planted[0].name}"
    server.shutdown()
    server.server_close()


def test_a_signed_url_reaches_the_tasks_and_is_stored_nowhere(
    served: str, reference: Run, new_command: Callable[..., Command]
) -> None:
    command = new_command(f"{served}?signature={SECRET}")
    done = command.run()
    assert done.returncode == 0, done.stderr
    run = Run(str(command.output))
    assert unequal(reference, run) == []
    assert run.input_url == served
    assert SECRET not in done.stdout + done.stderr
    assert [path for path in command.output.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []
