"""NumPy's .npy, one file or a folder of them, as one array whose rows are read where they lie."""

import tokenize
from typing import Any

import numpy as np

from distcluster.errors import JobError
from distcluster.storage.npy_headers import read_header
from distcluster.storage.object_file import ObjectFile, objects_of
from distcluster.storage.row_files import RowFile, RowFiles
from distcluster.url import Url


def open_npy(url: Url) -> RowFiles | None:
    """The arrays at a URL, of as many features each, one below the other; None where there are none.

    Raises
    ------
    JobError
        When a file is no array (N, D), or differs from the first in features or dtype.
    """
    store, files = objects_of(url, ".npy")
    if not files:
        return None
    headers = [(name, *_header(url, store, name, size)) for name, size in files]
    first_name, (_, width), first_dtype, _ = headers[0]
    for name, (_, features), dtype, _ in headers:
        if (features, dtype) != (width, first_dtype):
            raise JobError(
                f"{name} in {url} has {features:,} features of {dtype}, and {first_name} {width:,} of {first_dtype}: "
                f"one input has one kind of rows."
            )
    parts = [RowFile(name, begin, n_rows) for name, (n_rows, _), _, begin in headers]
    return RowFiles(store, parts, width, first_dtype)


def _header(url: Url, store: Any, name: str, size: int) -> tuple[tuple[int, int], np.dtype[Any], int]:
    """Shape and dtype of an array, and where its values begin."""
    file = ObjectFile(store, name, size)
    try:
        shape, is_fortran, dtype = read_header(file)
    except (ValueError, EOFError, tokenize.TokenError) as error:
        raise JobError(f"{name} of {url} is no array that NumPy can read: {str(error).splitlines()[0]}.") from None
    if len(shape) != 2:
        raise JobError(f"{name} of {url} has the shape {shape}; embeddings must be (rows, features).")
    if is_fortran:
        raise JobError(f"{name} of {url} is stored column by column: save it in C order first.")
    begin = file.tell()
    if size < begin + shape[0] * shape[1] * dtype.itemsize:
        raise JobError(f"{name} of {url} is cut short: it has {size:,} bytes, and the shape {shape}.")
    return (shape[0], shape[1]), dtype, begin
