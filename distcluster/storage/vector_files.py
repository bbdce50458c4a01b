"""Files of vectors, read a batch of rows at a time: .npy, .npz, Parquet."""

import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distcluster.errors import JobError

BATCH_ROWS = 16_384
"""Rows that are read at a time, at most."""

Batch = npt.NDArray[Any]

_SHOWN = 5  # rows that an error names
# The last is what numpy gives for a header that is no Python.
_READ_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, pa.ArrowException, tokenize.TokenError)


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch: the vectors that could be read, and the rows that could not, with the reason of each."""

    vectors: Batch
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vectors:
    """An opened source.

    Attributes
    ----------
    shape : tuple of int
        (rows, features), invalid rows included.
    dtype : numpy.dtype
        The narrowest that holds the values of all files.
    batches : iterator of Rows
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batches: Iterator[Rows]


@contextmanager
def open_vectors(source: Path, column: str | None) -> Iterator[Vectors]:
    """Open a file of vectors, or a directory of Parquet files in order of their names.

    Raises
    ------
    JobError
        When it cannot be read, here or at a later batch.
    """
    if not source.exists():
        raise JobError(f"there is no file at {source}.")
    try:
        if source.suffix == ".npy":
            yield _guarded(_npy(source), source)
        elif source.suffix == ".npz":
            with zipfile.ZipFile(source) as archive:
                yield _guarded(_npz(archive, source, column), source)
        elif source.suffix == ".parquet" or source.is_dir():
            yield _guarded(_parquet(source, column), source)
        else:
            raise JobError(f"{source}: known are .npy, .npz, .parquet and directories of .parquet files.")
    except JobError:
        raise
    except _READ_ERRORS as error:
        raise unreadable(source, error) from error


def unreadable(source: Path, error: Exception) -> JobError:
    """The error for a file that is not what its name says, or is cut short."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return JobError(f"{source} cannot be read: {reason}.")


def _guarded(vectors: Vectors, source: Path) -> Vectors:
    """The same, its batches' own errors in a sentence: whoever writes them has errors of the same types."""

    def batches() -> Iterator[Rows]:
        try:
            yield from vectors.batches
        except _READ_ERRORS as error:
            raise error if isinstance(error, JobError) else unreadable(source, error) from error

    return Vectors(vectors.shape, vectors.dtype, batches())


# --- NumPy ------------------------------------------------------------------------------------------------------


def _npy(source: Path) -> Vectors:
    array = np.load(source, mmap_mode="r", allow_pickle=False)
    batches = (
        Rows(np.asarray(array[i : i + BATCH_ROWS])) for i in range(0, array.shape[0] if array.ndim else 0, BATCH_ROWS)
    )
    return Vectors(array.shape, array.dtype, batches)


def _npz(archive: zipfile.ZipFile, source: Path, column: str | None) -> Vectors:
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    headers = {name: _npz_header(archive, name) for name in names}
    fitting = [name for name, (shape, _, _) in headers.items() if len(shape) == 2]
    chosen = _choose(column, fitting, source, "arrays of two dimensions")
    shape, fortran, dtype = headers[chosen]
    if fortran:
        raise JobError(f"{chosen} in {source} is stored column by column: save it in C order first.")
    return Vectors(shape, dtype, _npz_batches(archive, chosen, shape, dtype))


def _npz_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with archive.open(f"{name}.npy") as member:
        return read_header(member)


def read_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype of an array in NumPy's format; the file stands at its values then."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _npz_batches(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Rows]:
    """Stream a compressed member: it cannot be memory-mapped."""
    with archive.open(f"{name}.npy") as member:
        read_header(member)
        for start in range(0, shape[0], BATCH_ROWS):
            rows = min(BATCH_ROWS, shape[0] - start)
            content = member.read(rows * shape[1] * dtype.itemsize)
            yield Rows(np.frombuffer(content, dtype).reshape(rows, shape[1]))


# --- Parquet ----------------------------------------------------------------------------------------------------


def _parquet(source: Path, column: str | None) -> Vectors:
    paths = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    if not paths:
        raise JobError(f"the directory {source} holds no .parquet files.")
    files = {path: _open_parquet(path) for path in paths}
    lists = [field.name for field in files[paths[0]].schema_arrow if is_list(field.type)]
    chosen = _choose(column, lists, source, "columns of lists")
    types = {path: value_type(file.schema_arrow, chosen, str(path)) for path, file in files.items()}
    rows = sum(file.metadata.num_rows for file in files.values())
    width = next((found for file in files.values() if (found := _width(file, chosen))), 0)
    if not rows or not width:
        raise JobError(f"{source} has no row with values in {chosen!r}: there is nothing to cluster.")
    batches = (batch for path, file in files.items() for batch in _parquet_batches(file, chosen, path, width))
    return Vectors((rows, width), np.result_type(*types.values()), batches)


def _open_parquet(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except _READ_ERRORS as error:
        raise unreadable(path, error) from error


def value_type(schema: pa.Schema, name: str, path: str) -> np.dtype[Any]:
    """NumPy's type of the values of a column of lists.

    Raises
    ------
    JobError
        When the file has no such column, or its values are no numbers.
    """
    if name not in schema.names or not is_list(type_ := schema.field(name).type):
        raise JobError(f"{path} has no column of lists {name!r}, which the other files have.")
    value = type_.value_type
    if not (pa.types.is_integer(value) or pa.types.is_floating(value)):
        raise JobError(f"{name!r} in {path} has lists of {value}; embeddings are numbers.")
    found: np.dtype[Any] = np.dtype(value.to_pandas_dtype())
    return found


def _width(file: Any, name: str) -> int:
    """Values of the first row that has any."""
    for batch in file.iter_batches(BATCH_ROWS, columns=[name]):
        for length in batch.column(0).value_lengths():
            if length.is_valid and length.as_py() > 0:
                return int(length.as_py())
    return 0


def _parquet_batches(file: Any, name: str, path: Path, width: int) -> Iterator[Rows]:
    start = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=[name]):
        yield _matrix(batch.column(0), path, start, width)
        start += len(batch)


def is_list(type_: Any) -> bool:
    """Whether a column of this Arrow type holds vectors."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _matrix(column: Any, path: Path, start: int, width: int) -> Rows:
    """A batch of lists as (n, D), without those that are no vectors."""
    vectors, valid = lists_as_rows(column, width)
    lengths = _lengths(column)
    invalid = tuple(
        f"row {start + row:,} of {path.name}: {_reason(int(lengths[row]), width)}" for row in np.flatnonzero(~valid)
    )
    return Rows(vectors, invalid)


def lists_as_rows(column: Any, width: int) -> tuple[Batch, npt.NDArray[np.bool_]]:
    """The vectors of a batch of n lists, and which of them are vectors: (n', D), (n,).

    A list that is missing, has another length, or has missing values is none.
    """
    lengths = _lengths(column)
    of_rows = np.repeat(np.arange(len(column)), np.maximum(lengths, 0))
    values = column.flatten()
    missing = np.bincount(of_rows[values.is_null().to_numpy(zero_copy_only=False)], minlength=len(column))
    valid = (lengths == width) & (missing == 0)
    kept = values if valid.all() else values.filter(pa.array(valid[of_rows]))
    return np.asarray(kept.to_numpy(zero_copy_only=False)).reshape(-1, width), valid


def _lengths(column: Any) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    return found


def _reason(length: int, width: int) -> str:
    if length < 0:
        return "no list"
    return f"a list of {length:,} values, not {width:,}" if length != width else "a list with missing values"


def refuse(invalid: tuple[str, ...], name: str) -> JobError:
    """The error for rows that cannot be read, naming the first ones."""
    more = f" and {len(invalid) - _SHOWN:,} more nearby" if len(invalid) > _SHOWN else ""
    return JobError(
        f"{name} has rows that are no vectors: {'; '.join(invalid[:_SHOWN])}{more}. Mend them, or leave them out with "
        f"--on-invalid skip."
    )


def _choose(asked: str | None, fitting: list[str], source: Path, what: str) -> str:
    if asked is not None:
        if asked not in fitting:
            raise JobError(f"{source} has no {asked!r} among its {what}: {', '.join(fitting) or 'none'}.")
        return asked
    if len(fitting) != 1:
        raise JobError(f"{source} has {what}: {', '.join(fitting) or 'none'}. Name one with --column.")
    return fitting[0]
