"""Embeddings written as people hold them: Parquet, Lance, .npy, raw values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distcluster.job import RawLayout

ROWS = np.random.default_rng(0).normal(size=(5_000, 6)).astype(np.float32)


def fixed(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def lists(rows: np.ndarray) -> pa.Array:
    return pa.array(rows.tolist(), pa.list_(pa.from_numpy_dtype(rows.dtype)))


def write_parquets(place: Path, rows: np.ndarray, vectors: Callable[[np.ndarray], Any], files: int, group: int) -> Path:
    """As a Hugging Face repository has them, with ids and texts beside; numbers without leading zeros."""
    (place / "data").mkdir(parents=True)
    row = np.arange(len(rows))
    for i, part in enumerate(np.array_split(row, files)):
        columns = {"id": [f"a{r}" for r in part], "text": [f"item {r}" for r in part], "emb": vectors(rows[part])}
        pq.write_table(pa.table(columns | {"kind": part % 7}), place / "data" / f"train-{i}.parquet", group)
    return place


def write_lance(place: str, rows: np.ndarray, vectors: Callable[[np.ndarray], Any], files: int, **options: Any) -> Path:
    """In several fragments, with ids beside; some rows and a fragment between them were deleted again."""
    row = np.sort(np.r_[: len(rows), : len(rows) : 50])
    columns = {"id": [f"a{r}" for r in row], "emb": vectors(rows[row]), "is_old": np.diff(row, append=-1) == 0}
    size, whole = -(-len(row) // files), pa.table(columns)
    parts = [whole.slice(start, size) for start in range(0, len(row), size)]
    for i, part in enumerate([parts[0], parts[0].set_column(2, "is_old", [[True] * size]), *parts[1:]]):
        lance.write_dataset(part, place, mode="append" if i else "create", **options)
    lance.dataset(place, **options).delete("is_old")
    return Path(place)


def write_npys(place: Path, rows: np.ndarray, files: int) -> Path:
    place.mkdir()
    for i, part in enumerate(np.array_split(rows, files)):
        np.save(place / f"img_emb_{i}.npy", part)
    return place


RAW = RawLayout("float32", 6, 16)


def write_raws(place: Path, rows: np.ndarray, files: int, offset: int) -> Path:
    place.mkdir()
    for i, part in enumerate(np.array_split(rows, files)):
        (place / f"rows-{i}.f32").write_bytes(bytes(offset) + part.tobytes())
    return place
