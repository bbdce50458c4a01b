"""Files of vectors become Zarr, and wrong ones are refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import planted_rows

from distcluster.errors import JobError
from distcluster.storage.ingest import CHUNK_ROWS, ingest
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
    assert ingest(save(tmp_path), tmp_path / "out") == ROWS.shape
    assert (open_input(str(tmp_path / "out"), "embeddings")[:] == ROWS).all()


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "ints.npy", np.zeros((3, 2), np.int64))
    np.savez(tmp_path / "two.npz", a=ROWS, b=ROWS)
    pq.write_table(pa.table({"v": [[1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    (tmp_path / "x.csv").write_text("1,2")
    for name, message in (
        ("ints.npy", "dtype int64"),
        ("two.npz", "a, b. Name one with --column"),
        ("ragged.parquet", "lists of lengths"),
        ("x.csv", "known are"),
        ("none.npy", "there is no file"),
    ):
        with pytest.raises(JobError, match=message):
            ingest(tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_an_existing_target_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(JobError, match="exists"):
        ingest(save_npy(tmp_path), tmp_path / "out")
