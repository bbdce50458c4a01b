"""Turn .npy, .npz and Parquet files into a Zarr array, a chunk at a time."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import ZstdCodec

from distcluster.errors import JobError
from distcluster.storage.inputs import INPUT_DTYPES

CHUNK_ROWS = 16_384
"""Rows of a chunk: a block of a run, so that no task reads a chunk that is mostly another's."""

Batch = npt.NDArray[Any]


def ingest(source: Path, target: Path, column: str | None = None) -> tuple[int, int]:
    """Write a file's vectors to a new Zarr v3 group, as its array ``embeddings``.

    Parameters
    ----------
    source : Path
        .npy (N, D); .npz with such an array; .parquet, or a directory of such files in order of their names, with a
        column of lists of equal length.
    target : Path
        A place that does not exist yet.
    column : str, optional
        The array of an .npz or the column of a Parquet file; may be left out where there is only one that fits.

    Returns
    -------
    N, D : int

    Raises
    ------
    JobError
        When the source cannot be read as (N, D) embeddings, or the target exists.
    """
    if target.exists():
        raise JobError(f"{target} exists: ingest writes a new store and replaces nothing.")
    with _open(source, column) as (shape, dtype, batches):
        if str(dtype) not in INPUT_DTYPES:
            raise JobError(f"{source} has dtype {dtype}; embeddings must be {', '.join(INPUT_DTYPES)}.")
        if len(shape) != 2 or 0 in shape:
            raise JobError(f"{source} has shape {shape}; embeddings must be (rows, features), both at least 1.")
        array = zarr.create_array(
            str(target),
            name="embeddings",
            shape=shape,
            dtype=dtype,
            chunks=(min(CHUNK_ROWS, shape[0]), shape[1]),
            compressors=[ZstdCodec(level=1)],
        )
        row = 0
        for batch in _rechunk(batches, CHUNK_ROWS):
            array[row : row + len(batch)] = batch
            row += len(batch)
    return int(shape[0]), int(shape[1])


@contextmanager
def _open(source: Path, column: str | None) -> Iterator[tuple[tuple[int, ...], np.dtype[Any], Iterator[Batch]]]:
    """Shape, dtype and row batches of a source."""
    if not source.exists():
        raise JobError(f"there is no file at {source}.")
    if source.suffix == ".npy":
        yield _npy(source)
    elif source.suffix == ".npz":
        with zipfile.ZipFile(source) as archive:
            yield _npz(archive, source, column)
    elif source.suffix == ".parquet" or source.is_dir():
        yield _parquet(source, column)
    else:
        raise JobError(f"{source}: known are .npy, .npz, .parquet and directories of .parquet files.")


def _npy(source: Path) -> tuple[tuple[int, ...], np.dtype[Any], Iterator[Batch]]:
    try:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise JobError(f"{source} cannot be read as .npy: {error}") from error
    batches = (np.asarray(array[i : i + CHUNK_ROWS]) for i in range(0, array.shape[0] if array.ndim else 0, CHUNK_ROWS))
    return array.shape, array.dtype, batches


def _npz(archive: zipfile.ZipFile, source: Path, column: str | None) -> tuple[Any, np.dtype[Any], Iterator[Batch]]:
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    headers = {name: _npz_header(archive, name) for name in names}
    fitting = [name for name, (shape, _, _) in headers.items() if len(shape) == 2]
    chosen = _choose(column, fitting, source, "arrays of two dimensions")
    shape, fortran, dtype = headers[chosen]
    if fortran:
        raise JobError(f"{chosen} in {source} is stored column by column: save it in C order first.")
    return shape, dtype, _npz_batches(archive, chosen, shape, dtype)


def _npz_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with archive.open(f"{name}.npy") as member:
        return _read_header(member)


def _read_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _npz_batches(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Batch]:
    """Stream a compressed member: it cannot be memory-mapped."""
    with archive.open(f"{name}.npy") as member:
        _read_header(member)
        for start in range(0, shape[0], CHUNK_ROWS):
            rows = min(CHUNK_ROWS, shape[0] - start)
            yield np.frombuffer(member.read(rows * shape[1] * dtype.itemsize), dtype).reshape(rows, shape[1])


def _parquet(source: Path, column: str | None) -> tuple[tuple[int, ...], np.dtype[Any], Iterator[Batch]]:
    paths = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    if not paths:
        raise JobError(f"the directory {source} holds no .parquet files.")
    files = [pq.ParquetFile(path) for path in paths]
    lists = [field.name for field in files[0].schema_arrow if _is_list(field.type)]
    chosen = _choose(column, lists, source, "columns of lists")
    batches = (
        _matrix(batch.column(0), source, chosen)
        for file in files
        for batch in file.iter_batches(CHUNK_ROWS, columns=[chosen])
        if len(batch)
    )
    first = next(batches, None)
    if first is None:
        raise JobError(f"{source} has no rows: there is nothing to cluster.")
    rows = sum(file.metadata.num_rows for file in files)

    def from_first() -> Iterator[Batch]:
        yield first
        for batch in batches:
            if batch.shape[1] != first.shape[1]:
                raise JobError(f"{chosen} in {source} has lists of {first.shape[1]} and of {batch.shape[1]} values.")
            yield batch

    return (rows, first.shape[1]), first.dtype, from_first()


def _is_list(type_: Any) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _matrix(column: Any, source: Path, name: str) -> Batch:
    """A batch of equal lists as (n, D)."""
    if column.null_count:
        raise JobError(f"{name} in {source} has {column.null_count} missing lists in one batch.")
    values = column.flatten()
    lengths = set(column.value_lengths().to_pylist())
    if len(lengths) != 1 or values.null_count:
        raise JobError(f"{name} in {source} has missing values, or lists of lengths {sorted(lengths)[:5]}.")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), -1)


def _choose(asked: str | None, fitting: list[str], source: Path, what: str) -> str:
    if asked is not None:
        if asked not in fitting:
            raise JobError(f"{source} has no {asked!r} among its {what}: {', '.join(fitting) or 'none'}.")
        return asked
    if len(fitting) != 1:
        raise JobError(f"{source} has {what}: {', '.join(fitting) or 'none'}. Name one with --column.")
    return fitting[0]


def _rechunk(batches: Iterator[Batch], rows: int) -> Iterator[Batch]:
    """Batches of exactly ``rows`` rows, the last one shorter: every chunk of the target is written once."""
    held: list[Batch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += len(batch)
        while count >= rows:
            together = np.concatenate(held)
            yield together[:rows]
            held, count = [together[rows:]], count - rows
    if count:
        yield np.concatenate(held)
