"""Columns of lists in Arrow's terms, as rows of vectors, and why a list is none."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distcluster.errors import JobError
from distcluster.storage.array_store import Array


def is_list(type_: Any) -> bool:
    """Whether a column of this Arrow type holds vectors."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


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


def lists_as_rows(column: Any, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
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


def why_no_vector(entry: Any, width: int) -> str:
    """What is wrong with an entry that is no list of so many values."""
    length = -1 if entry is None else len(entry)
    if length < 0:
        return "no list"
    return f"a list of {length:,} values, not {width:,}" if length != width else "a list with missing values"


def _lengths(column: Any) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    return found
