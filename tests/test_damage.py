"""Records, settings and metadata that are torn, emptied or of another shape: repaired, or told in a sentence."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, make_run, planted_rows, unequal, write_input
from test_input_identity import SECRET, Signed

from distcluster.errors import JobError
from distcluster.report.shown_items import ShownItems, kept_items
from distcluster.stages.flow import own_keys
from distcluster.storage import layout
from distcluster.storage.run import Run


def distcluster(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distcluster", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def change(path: Path, **changes: Any) -> None:
    """Replace keys of a record's facts."""
    record = json.loads(path.read_text())
    record["facts"] |= changes
    path.write_text(json.dumps(record))


def test_records_that_do_not_fit_in_a_finished_run_are_made_again(finished: Command) -> None:
    commits = finished.output / "commit"
    before = {name: (commits / name).read_text() for name in ("label_rows/3.json", "select_candidate/all.json")}
    change(commits / "select_candidate" / "all.json", n_components="many")
    (commits / "label_rows" / "3.json").write_text("{}")
    (finished.output / "label" / "c" / "3").unlink()
    (commits / "measure_projection" / "all.json").write_text("[1, 2")
    reference = Run(str(finished.output)).array("label")[:]
    shown = distcluster("status", str(finished.output))
    assert "not finished" in shown.stdout, shown.stderr
    run = finished.run_to_the_end()
    assert {name for name, text in before.items() if (commits / name).read_text() == text} == set()
    assert (run.array("label")[:][: 3 * run.partitioning.partition_rows] == reference[: 3 * 1024]).all()


def test_metadata_of_an_array_that_is_damaged_is_made_again(finished: Command, reference: Run) -> None:
    (finished.output / "projection" / "zarr.json").write_text("")
    (finished.output / "model" / "anchors" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    assert unequal(reference, finished.run_to_the_end("--verify")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "zarr.json does not fit"),
        ("[1]", "zarr.json does not fit"),
        ('{"attributes": null}', "zarr.json does not fit: attributes"),
        ('{"attributes": {"distcluster": "x"}}', "zarr.json does not fit: attributes.distcluster"),
        ('{"attributes": {"distcluster": {}}}', "has format version None"),
        (
            f'{{"attributes": {{"distcluster": {{"format_version": {layout.FORMAT_VERSION}}}}}}}',
            "does not fit: run_id: ",
        ),
        ("\udcff", "zarr.json does not fit"),
    ],
)
def test_damaged_settings_are_told_in_a_sentence(content: str, message: str, reference: Run, tmp_path: Path) -> None:
    output = Path(shutil.copytree(reference.url, tmp_path / "run"))
    (output / "zarr.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(JobError, match=message):
        Run(str(output)).find_settings()


@pytest.mark.parametrize("content", ["", "{}", "[]", "\udcff"])
def test_a_damaged_note_of_the_last_error_hides_nothing(content: str, reference: Run, tmp_path: Path) -> None:
    output = Path(shutil.copytree(reference.url, tmp_path / "run"))
    (output / "commit" / "error.json").write_bytes(content.encode(errors="surrogateescape"))
    assert "commit/error.json does not fit" in Run(str(output)).last_error()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"texts": 3}', b'{"images": {"1": "javascript:alert(1)"}}'])
def test_a_damaged_memory_of_the_last_report_is_as_none(content: bytes, reference: Run, tmp_path: Path) -> None:
    run = Run(str(shutil.copytree(reference.url, tmp_path / "run")))
    run.store.put(layout.SHOWN_ITEMS, content)
    assert kept_items(run) == ShownItems()


def test_an_erase_that_is_cut_short_leaves_a_place_for_a_new_run(finished: Command) -> None:
    run = Run(str(finished.output))
    with run.writing(20):
        run.erase(own_keys())
    left = [str(path.relative_to(finished.output)) for path in finished.output.rglob("*") if path.is_file()]
    assert [Path(path).parent for path in left] == [Path(layout.LEASE)]
    assert not own_keys().fullmatch("model/notes.txt")
    assert not own_keys().fullmatch("choice/mine.txt")


class Revoked(Signed):
    """A signature that expires when some requests have been answered."""

    left = 0

    def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
        """As the handler's, so many times."""
        type(self).left -= 1
        if self.left < 0:
            self.send_error(403)
        else:
            super().do_GET()


@pytest.fixture
def revoked(tmp_path: Path) -> Iterator[str]:
    write_input(tmp_path / "input.zarr", planted_rows(4000, 4)[0])
    handler: type[SimpleHTTPRequestHandler] = Revoked
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/input.zarr?signature={SECRET}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("requests", [0, 60])
def test_a_signature_that_has_expired_is_shown_and_stored_nowhere(
    requests: int, revoked: str, new_command: Callable[..., Command]
) -> None:
    Revoked.left = requests
    command = new_command(revoked)
    done = command.run()
    assert done.returncode == 2, done.stderr
    assert "403" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in command.output.rglob("*") if path.is_file()]
    assert (requests > 0) == bool(files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_a_finished_run_whose_subsample_is_lost_is_compared_and_not_scanned_anew(
    finished: Command, tmp_path: Path
) -> None:
    (finished.output / "commit" / "subsample" / "all.json").unlink()
    other = planted_rows(Run(str(finished.output)).partitioning.n_rows, 8, seed=1)[0]
    finished.source = write_input(tmp_path / "other", np.ascontiguousarray(other))
    done = finished.run()
    assert done.returncode == 2, done.stdout
    assert "are not what the scan of this run saw" in done.stderr


def test_preparing_the_same_job_twice_changes_nothing(finished: Command) -> None:
    from distcluster.job_file import load_job

    job = load_job(finished.argv()[4])
    before = (finished.output / "zarr.json").read_bytes()
    make_run(job)
    assert (finished.output / "zarr.json").read_bytes() == before
