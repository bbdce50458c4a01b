"""Files of vectors become Zarr, and wrong ones are refused."""

import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import planted_rows

from distcluster import storage
from distcluster.deploy import DeployTable
from distcluster.errors import JobError
from distcluster.execution.ingesting import ingest
from distcluster.interactive.reporters import shown_progress
from distcluster.storage.array_store import ArrayStore
from distcluster.storage.ingest import CHUNK_ROWS, Ingest, begin, chunks_of, open_ingest, parts_of, write_chunks
from distcluster.storage.inputs import open_input
from distcluster.url import Url

ROWS = planted_rows(CHUNK_ROWS + 1000, 3, n_features=4)[0]


def ingested(source: Path | str, target: Path | str, **options: Any) -> tuple[int, int, int]:
    """Rows, features, and rows left out."""
    done = ingest(str(source), str(target), DeployTable(n_workers=2), shown_progress(False), **options)
    return done.rows, done.features, done.skipped


def save_npy(path: Path) -> Path:
    np.save(path / "x.npy", ROWS)
    return path / "x.npy"


def save_npz(path: Path) -> Path:
    np.savez_compressed(path / "x.npz", embeddings=ROWS, labels=np.zeros(len(ROWS)))
    return path / "x.npz"


def save_parquet(path: Path) -> Path:
    pq.write_table(
        pa.table({"id": np.arange(len(ROWS)), "vector": list(ROWS)}), path / "x.parquet", row_group_size=3000
    )
    return path / "x.parquet"


def save_parquets(path: Path) -> Path:
    (path / "x").mkdir()
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 4)
    for i, start in enumerate(range(0, len(ROWS), 5000)):
        pq.write_table(pa.table({"vector": fixed[start : start + 5000]}), path / "x" / f"part-{i:03}.parquet")
    return path / "x"


@pytest.mark.parametrize("save", [save_npy, save_npz, save_parquet, save_parquets])
def test_every_source_gives_the_same_rows_in_the_same_order(save, tmp_path: Path) -> None:
    assert ingested(save(tmp_path), tmp_path / "out") == (*ROWS.shape, 0)
    assert (open_input(str(tmp_path / "out"), "embeddings")[:] == ROWS).all()


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "ints.npy", np.zeros((3, 2), np.int64))
    np.savez(tmp_path / "two.npz", a=ROWS, b=ROWS)
    pq.write_table(pa.table({"v": [[1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    (tmp_path / "x.csv").write_text("1,2")
    for name in ("two.npz", "ragged.parquet"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut{Path(name).suffix}").write_bytes(content[: len(content) // 2])
    (tmp_path / "fake.npy").write_text("no array")
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:  # a header that promises a million rows
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 4)})
        archive.writestr("x.npy", header.getvalue() + bytes(1000))
    pq.write_table(pa.table({"v": [["a", "b"]]}), tmp_path / "words.parquet")
    pq.write_table(pa.table({"v": pa.array([None, []], pa.list_(pa.float32()))}), tmp_path / "empty.parquet")
    for name, message in (
        ("ints.npy", "dtype int64"),
        ("two.npz", "a, b. Name one with --column"),
        ("ragged.parquet", r"row 1 of ragged.parquet: a list of 1 values, not 2. Mend them, or .* --on-invalid skip"),
        ("cut.npz", "cut.npz cannot be read"),
        ("cut.parquet", "cut.parquet cannot be read"),
        ("fake.npy", "fake.npy cannot be read"),
        ("short.npz", "short.npz cannot be read"),
        ("words.parquet", "'v' in .*words.parquet has lists of string; embeddings are numbers"),
        ("empty.parquet", "has no row with values"),
        ("x.csv", "known are"),
        ("none.npy", "there is no file"),
    ):
        with pytest.raises(JobError, match=message):
            ingested(tmp_path / name, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_an_existing_target_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(JobError, match="exists"):
        ingested(save_npy(tmp_path), tmp_path / "out")


def save_broken(path: Path) -> Path:
    """Two good files, and rows that are no vectors in the second of three."""
    (path / "x").mkdir()
    good = [[1.0, 2.0], [3.0, 4.0]]
    for i, rows in enumerate((good, [[5.0, 6.0], None, [7.0], [8.0, None], [9.0, 10.0]], good)):
        pq.write_table(pa.table({"v": pa.array(rows, pa.list_(pa.float32()))}), path / "x" / f"part-{i}.parquet")
    return path / "x"


def test_rows_that_are_no_vectors_are_named_by_file_and_row_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        ingested(save_broken(tmp_path), tmp_path / "out")
    for reason in ("row 1 of part-1.parquet: no list", "row 2 of part-1.parquet: a list of 1 values, not 2",
                   "row 3 of part-1.parquet: a list with missing values"):  # fmt: skip
        assert reason in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_rows_that_are_no_vectors_can_be_left_out(tmp_path: Path) -> None:
    source = save_broken(tmp_path)
    for _ in range(2):  # the second time nothing is left to do
        assert ingested(source, tmp_path / "out", on_invalid="skip") == (6, 2, 3)
    kept = open_input(str(tmp_path / "out"), "embeddings")[:]
    assert kept.tolist() == [[1, 2], [3, 4], [5, 6], [9, 10], [1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("types", "stored"),
    [(("int8", "float32"), "float32"), (("float32", "float64"), "float64"), (("int8", "uint8"), "float32")],
)
def test_the_widest_type_of_all_files_is_taken(types: tuple[str, str], stored: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    values = {"int8": [[1, -2]], "uint8": [[200, 255]], "float32": [[300.5, 2.0]], "float64": [[0.1, 1e-3]]}
    for i, each in enumerate(types):
        column = pa.array(values[each], pa.list_(pa.from_numpy_dtype(each)))
        pq.write_table(pa.table({"v": column}), tmp_path / "x" / f"part-{i}.parquet")
    ingested(tmp_path / "x", tmp_path / "out")
    array = open_input(str(tmp_path / "out"), "embeddings")
    assert str(array.dtype) == stored
    assert array[:].tolist() == [*values[types[0]], *values[types[1]]]


def content(place: str | Path) -> dict[str, bytes | None]:
    store = ArrayStore(str(place))
    return {key: store.get(key) for key in store.keys_under("")}


def test_workers_write_what_one_process_writes_and_nothing_that_is_there_again(
    tmp_path: Path, s3: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in sorted(save_parquets(tmp_path).iterdir()):
        ArrayStore("s3://bucket").put(f"docs/{file.name}", file.read_bytes())
    source, target, none = "s3://bucket/docs/part-*.parquet", "s3://bucket/made.zarr", np.empty(0, np.int64)
    assert ingested(source, tmp_path / "one.zarr") == (*ROWS.shape, 0)
    monkeypatch.setattr(storage.ingest, "PART_BYTES", 1)
    found = open_ingest(source, target)
    parts = parts_of(found, chunks_of(found, none))
    assert len(parts) == 2, "a part begins in another row group"
    assert begin(found) == set()
    assert write_chunks(found, parts[0]) == ""
    with pytest.raises(JobError, match="cannot open"):
        open_input(target, "embeddings")
    with pytest.raises(JobError, match="holds the beginning of another ingest"):
        ingested(source, target, on_invalid="skip")
    (written,) = (item["last_modified"] for item in ArrayStore(target).listed("embeddings/c"))
    ArrayStore("s3://bucket").put("docs/notes.txt", b"which the pattern leaves out")
    deploy, reporter = DeployTable(n_workers=2, dashboard_address="127.0.0.1:0"), shown_progress(False)
    assert ingest(source, target, deploy, reporter).rows == len(ROWS)
    assert reporter.used, "there were workers"
    assert content(target) == content(tmp_path / "one.zarr")
    assert written in (item["last_modified"] for item in ArrayStore(target).listed("embeddings/c"))
    save_one_group = tmp_path / "one.parquet"
    pq.write_table(pa.table({"v": list(ROWS)}), save_one_group)
    found = open_ingest(str(save_one_group), target)
    assert [len(part) for part in parts_of(found, chunks_of(found, none))] == [2], "a row group is decoded by one"


def test_an_ingest_that_is_killed_is_no_input_and_goes_on(tmp_path: Path) -> None:
    rows = np.resize(ROWS, (60 * CHUNK_ROWS, 4))
    np.save(tmp_path / "x.npy", rows)
    argv = [sys.executable, "-m", "distcluster", "ingest", tmp_path / "x.npy", tmp_path / "out"]
    process, chunks = subprocess.Popen(argv, stdout=subprocess.DEVNULL), tmp_path / "out" / "embeddings" / "c"
    while not (chunks.is_dir() and len(list(chunks.iterdir())) > 3):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    with pytest.raises(JobError, match=r"was not finished: `distcluster ingest` goes on"):
        open_input(str(tmp_path / "out"), "embeddings")
    there = {file: file.stat().st_mtime_ns for file in chunks.glob("*/0")}
    assert len(there) < 60
    done = subprocess.run([*argv, "--json"], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["rows"] == len(rows)
    assert np.array_equal(open_input(str(tmp_path / "out"), "embeddings")[:], rows)
    assert {file: file.stat().st_mtime_ns for file in there} == there
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(JobError, match="exists"):
        ingested(tmp_path / "x.npy", tmp_path / "out")


def test_every_chunk_is_full_of_rows_that_are_vectors() -> None:
    random = np.random.default_rng(0)
    for n_invalid in (0, 1, 5_000, 49_000):
        invalid = np.sort(random.choice(50_000, n_invalid, replace=False))
        found = Ingest(Url("a"), Url("b"), None, None, "skip", 50_000, 4, "float32", skipped=n_invalid)
        chunks, is_vector = chunks_of(found, invalid), ~np.isin(np.arange(50_000), invalid)
        sizes = [int(is_vector[chunk.start : chunk.stop].sum()) for chunk in chunks]
        assert sizes == [min(CHUNK_ROWS, found.rows - start) for start in range(0, found.rows, CHUNK_ROWS)]
        assert [chunk.stop for chunk in chunks] == [*(chunk.start for chunk in chunks[1:]), 50_000]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="Not a directory"):
        ingested(save_npy(tmp_path), tmp_path / "file" / "out")
