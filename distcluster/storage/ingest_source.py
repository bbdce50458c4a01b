"""What can be ingested: files of vectors whose rows are read by anyone who has a part of them to copy."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from distcluster.errors import ExpectedError, JobError
from distcluster.storage.array_store import Array
from distcluster.storage.arrow_columns import ArrowVectors
from distcluster.storage.faults import of_storage
from distcluster.storage.inputs import INPUT_DTYPES
from distcluster.storage.npy_files import open_npy
from distcluster.storage.npz_files import chosen, open_npz
from distcluster.storage.object_file import may_exist
from distcluster.storage.parquet_files import open_parquet, open_vectors_of
from distcluster.storage.urls import local_path, reason_of
from distcluster.url import Url

_MOST_ROWS = 10**10  # a chunk of each is listed in memory
_SHOWN = 5  # rows that an error names


class Vectors(Protocol):
    """What is copied."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some rows."""


@functools.lru_cache(maxsize=2)  # a process reads on from where it was
def open_vectors(source: Url, column: str | None, version: str | None) -> Vectors:
    """Open files of vectors, as of a version of them.

    Raises
    ------
    JobError
        When they are none, or cannot be read as (N, D) embeddings.
    """
    if not may_exist(source):
        raise JobError(f"there is no file at {source}.")
    try:
        found = _opened(source, column, version)
    except ExpectedError:
        raise
    except Exception as error:  # as in inputs
        raise _unreadable(source, error) from None
    if found is None:
        raise JobError(f"{source}: known are .npy, .npz and .parquet, one file, a folder or a pattern of them.")
    if str(stored_dtype(found)) not in INPUT_DTYPES:
        raise JobError(f"{source} has dtype {found.dtype}; embeddings must be {', '.join(INPUT_DTYPES)}.")
    if len(found.shape) != 2 or 0 in found.shape:
        raise JobError(f"{source} has shape {found.shape}; embeddings must be (rows, features), both at least 1.")
    if found.shape[0] > _MOST_ROWS:
        raise JobError(f"{source} says that it has {found.shape[0]:,} rows: that cannot be.")
    return found


def _opened(source: Url, column: str | None, version: str | None) -> Vectors | None:
    path = local_path(source)
    if path is not None and path.is_file() and path.suffix == ".npy":
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)  # in any order of the values
        return array
    files = open_parquet(source, version)
    if files is None:
        return open_npy(source) or open_npz(source, column)
    name = chosen(column, files.vector_columns(), source, "columns of lists")
    return open_vectors_of(files, name, is_widest=True)


def stored_dtype(vectors: Vectors) -> np.dtype[Any]:
    """The type in the machine's order of bytes; int16, which int8 and uint8 together need, fits float32 exactly."""
    dtype = vectors.dtype
    return np.dtype(np.float32) if dtype.kind in "iu" and dtype.itemsize == 2 else dtype.newbyteorder("=")


def read_vectors(source: Url, vectors: Vectors, rows: slice) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Those of n rows that are vectors, and which they are: (n', D), (n,)."""
    try:
        if isinstance(vectors, ArrowVectors):
            return vectors.vectors(rows)
        found = np.asarray(vectors[rows])
    except ExpectedError:
        raise
    except Exception as error:
        raise _unreadable(source, error) from None
    return found, np.ones(len(found), np.bool_)


def may_have_invalid_rows(vectors: Vectors) -> bool:
    """Whether rows may be no vectors: of Parquet's lists, any may."""
    return isinstance(vectors, ArrowVectors)


def why_invalid(vectors: Vectors, rows: Sequence[int]) -> str:
    """Where the first of some rows are that are no vectors, and what is wrong with them."""
    assert isinstance(vectors, ArrowVectors)
    more = f" and {len(rows) - _SHOWN:,} more nearby" if len(rows) > _SHOWN else ""
    return f"{'; '.join(vectors.why_no_vector(row) for row in rows[:_SHOWN])}{more}"


def _unreadable(source: Url, error: Exception) -> Exception:
    return of_storage(error) or JobError(f"{source} cannot be read: {reason_of(error)}.")
