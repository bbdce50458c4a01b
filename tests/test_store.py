"""Every kind of input, an S3 API, and what a commit promises."""

import ast
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import zarr
from conftest import BLOCK_ROWS, SMALL, Command, planted_rows, write_input

from benchmarks.servers import azure_api, s3_api
from distcluster.errors import CorruptError
from distcluster.job_file import parse_job
from distcluster.prepare import check_job, prepared_run
from distcluster.storage import layout
from distcluster.storage.array_store import READ_ERRORS, ArrayStore, checksum
from distcluster.storage.files import read_lines
from distcluster.storage.inputs import open_input
from distcluster.storage.records import Kept, Records
from distcluster.storage.run import Run
from distcluster.storage.urls import object_store

ROWS = planted_rows(400, 4)[0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_input_of_any_format_and_dtype_is_read(zarr_format: int, dtype: str, tmp_path: Path) -> None:
    values = np.abs(ROWS).astype(dtype)
    write_input(tmp_path / "group", values, zarr_format=zarr_format)
    zarr.create_array(str(tmp_path / "array"), data=values, zarr_format=zarr_format)
    for place in ("group", "array"):
        assert (open_input(str(tmp_path / place), "embeddings")[:] == values).all()


def test_a_zipped_and_a_sharded_input_are_read(tmp_path: Path) -> None:
    with zarr.storage.ZipStore(tmp_path / "input.zip", mode="w") as store:
        zarr.create_array(store, name="embeddings", data=ROWS)
    write_input(tmp_path / "sharded", ROWS, chunks=(50, 16), shards=(200, 16))
    for place in ("input.zip", "sharded"):
        assert (open_input(str(tmp_path / place), "embeddings")[:] == ROWS).all()


def test_lines_of_a_file_are_found_by_number(tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_bytes(b"first\r\nzweite Zeile\n\nlast")
    found = read_lines(str(tmp_path / "items.txt"), [3, 0, 1, 2, 9])
    assert found == {0: "first", 1: "zweite Zeile", 2: "", 3: "last"}


@pytest.fixture(params=["s3", "az"])
def bucket(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, dict[str, str]]]:
    """A bucket's URL at each kind of object store, and the environment that points at it."""
    if request.param == "az" and shutil.which("azurite-blob") is None and "CI" not in os.environ:
        pytest.skip("needs npm's package azurite")
    with s3_api() if request.param == "s3" else azure_api(tmp_path / "blobs") as environ:
        for key, value in environ.items():
            monkeypatch.setenv(key, value)
        yield f"{request.param}://bucket", environ


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
def test_a_job_in_an_object_store_gives_the_bytes_of_a_local_one(
    bucket: tuple[str, dict[str, str]], new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows, _ = planted_rows(4000, 4)
    local = write_input(tmp_path / "input", rows)
    url, environ = bucket
    for path in local.rglob("*"):
        if path.is_file():
            obstore.put(object_store(url), f"in/{path.relative_to(local)}", path.read_bytes())
    few: dict[str, Any] = {"mixture__n_components": [2, 4, 8]}  # the API is slow
    expected = new_command(local, **few).run_to_the_end()
    command = new_command(  # and the bytes the same
        environ=environ, **few, deploy__n_workers=2, assign__partition_rows=4 * BLOCK_ROWS, report__write="always"
    )
    # Paths would make a URL one slash short, in the first two lines.
    command.settings |= {"input.url": f"{url}/in", "output.url": f"{url}/out"}
    argv = command.argv()
    job = Path(argv[4])
    job.write_text("\n".join(job.read_text().splitlines()[2:]))
    for said in ("rows/s", "nothing was left to do"):
        done = subprocess.run(
            argv, env=command.process_environment(), capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    run = Run(f"{url}/out")
    for name in ("label", "probability", "projection", "model/anchors", "selection/bic"):
        assert run.array(name)[:].tobytes() == expected.array(name)[:].tobytes()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    source = write_input(tmp_path / "input", planted_rows(2000, 4)[0])
    tables = {"input": {"url": str(source)}, "output": {"url": str(tmp_path / "output")}}
    tables["assign"] = {"block_rows": 512, "partition_rows": 512}
    with prepared_run(check_job(parse_job(tables))) as run:
        yield run


def test_a_commit_is_seen_whole_or_not_at_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(512, dtype=np.int32)
    run.commit("label_rows", "1", {}, rows={layout.LABEL: labels})
    assert run.records.committed("label_rows").keys() == {"1"}
    # A writer that dies after its shard and before its record:
    monkeypatch.setattr(ArrayStore, "flush", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.commit("label_rows", "1", {}, rows={layout.LABEL: labels + 1})
    assert run.records.committed("label_rows") == {}


def test_a_missing_shard_is_an_error_and_never_the_fill_value(run: Run) -> None:
    with pytest.raises(CorruptError, match="partition 0 of label cannot be read back: label/c/0 is missing"):
        run.read_rows(layout.LABEL, run.partitioning[0])


def test_a_part_that_is_no_whole_shard_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="no whole shard of 512 rows"):
        run.commit("label_rows", "0", {}, rows={layout.LABEL: np.zeros(500, np.int32)})


def test_an_item_with_an_empty_array_stays_committed(run: Run) -> None:
    run.commit("build_index", "all", {}, arrays={layout.INDEX["components"]: np.zeros((16, 0), np.float32)})
    assert "all" in run.records.committed("build_index")


def test_a_model_that_was_changed_is_refused(run: Run) -> None:
    run.commit("subsample", "all", {}, arrays={layout.SAMPLE: np.zeros((4, 2), np.float32)})
    run.array("model/sample")[2, 1] = 1.0
    with pytest.raises(CorruptError, match="is not what subsample all committed"):
        run.read(layout.SAMPLE)


def test_checksums_see_every_byte_and_not_the_layout() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert checksum(values) == checksum(np.asfortranarray(values))
    changed = values.copy()
    changed[2, 3] += 1
    assert checksum(values) != checksum(changed)


def test_piped_output_is_plain_text_with_the_dashboard_first(undisturbed: Command) -> None:
    printed = (undisturbed.directory / "printed").read_text()
    assert re.search(r"[\x00-\x08\x0b-\x1f]", printed) is None
    assert printed.startswith("Dashboard: http://127.0.0.1:")
    stages = [line.split()[0] for line in printed.splitlines() if re.search(r"(/s|s/task)$", line)]
    assert stages[:3] == ["scan", "subsample", "build_index"]
    assert set(stages[-4:-1]) == {"measure_projection", "merge_components", "label_rows"}  # at the same time
    assert stages[-1] == "summarise_clusters"
    assert SMALL["deploy.n_workers"] == 2


def test_copies_of_records_are_taken_as_long_as_the_records_are_theirs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(item: int) -> Kept:
        return run.commit("sum_silhouettes", str(item), {}, arrays={layout.SILHOUETTE_SUMS: np.full(3, item + 0.5)})

    kept = {str(item): commit(item) for item in range(20)}
    run.records.collect("sum_silhouettes", kept)
    changed = commit(7)
    asked, read = [], Records.read
    monkeypatch.setattr(Records, "read", lambda self, stage, item: (asked.append(item), read(self, stage, item))[1])
    assert run.records.kept("sum_silhouettes") == kept | {"7": changed}
    assert asked == ["7"]
    found = [each[0] for (each,) in run.read_items([layout.SILHOUETTE_SUMS], range(20))]
    assert found == [item + 0.5 for item in range(20)]


def test_a_partial_result_that_is_compressed_or_damaged_is_refused(run: Run) -> None:
    key = run.commit("subsample", "all", {}, arrays={layout.COMPONENT_SUMS: np.zeros((4, 2))}).record.objects
    assert list(key) == ["partial/sum_components/all.npz"]
    path = Path(run.url, *key)
    whole = path.read_bytes()
    for content in (whole[:-10], whole.replace(b"\x00" * 64, b"\x01" * 64)):
        path.write_bytes(content)
        with pytest.raises(READ_ERRORS):
            run.store.get_arrays(*key, ["components"])
    np.savez_compressed(path, components=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="is compressed"):
        run.store.get_arrays(*key, ["components"])


def test_threads_do_not_parse_headers_of_arrays_at_the_same_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's parser fails by chance where they do, and a whole run with it."""
    keys = [f"partial/{n}.npz" for n in range(1_600, 1_616)]
    for n, key in enumerate(keys, 1_600):
        run.store.put_arrays(key, {"few": np.arange(n)})
    literal_eval, inside, most = ast.literal_eval, [], []

    def slow(text: str) -> object:
        inside.append(text)
        most.append(len(inside))
        time.sleep(0.005)
        inside.pop()
        return literal_eval(text)

    monkeypatch.setattr(ast, "literal_eval", slow)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda key: run.store.get_arrays(key, ["few"]), keys))
    assert [each.tolist() for (each,) in found] == [list(range(n)) for n in range(1_600, 1_616)]
    assert len(most) == 16
    assert max(most) == 1
