"""Files of vectors become Zarr, and wrong ones are refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import planted_rows

from distcluster.errors import JobError
from distcluster.storage.ingest import CHUNK_ROWS, Ingested, ingest
from distcluster.storage.inputs import open_input

ROWS = planted_rows(CHUNK_ROWS + 1000, 3, n_features=4)[0]


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
    assert ingest(save(tmp_path), tmp_path / "out") == Ingested(*ROWS.shape, skipped=0)
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
            ingest(tmp_path / name, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_an_existing_target_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(JobError, match="exists"):
        ingest(save_npy(tmp_path), tmp_path / "out")


def save_broken(path: Path) -> Path:
    """Two good files, and rows that are no vectors in the second of three."""
    (path / "x").mkdir()
    good = [[1.0, 2.0], [3.0, 4.0]]
    for i, rows in enumerate((good, [[5.0, 6.0], None, [7.0], [8.0, None], [9.0, 10.0]], good)):
        pq.write_table(pa.table({"v": pa.array(rows, pa.list_(pa.float32()))}), path / "x" / f"part-{i}.parquet")
    return path / "x"


def test_rows_that_are_no_vectors_are_named_by_file_and_row_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        ingest(save_broken(tmp_path), tmp_path / "out")
    for reason in ("row 1 of part-1.parquet: no list", "row 2 of part-1.parquet: a list of 1 values, not 2",
                   "row 3 of part-1.parquet: a list with missing values"):  # fmt: skip
        assert reason in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_rows_that_are_no_vectors_can_be_left_out(tmp_path: Path) -> None:
    assert ingest(save_broken(tmp_path), tmp_path / "out", on_invalid="skip") == Ingested(6, 2, skipped=3)
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
    ingest(tmp_path / "x", tmp_path / "out")
    array = open_input(str(tmp_path / "out"), "embeddings")
    assert str(array.dtype) == stored
    assert array[:].tolist() == [*values[types[0]], *values[types[1]]]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot be written"):
        ingest(save_npy(tmp_path), tmp_path / "file" / "out")
