"""NumPy's .npy, one file or a folder of them, as one array whose rows are read where they lie."""

import tokenize
from typing import Any

import numpy as np
import obstore

from distcluster.errors import JobError
from distcluster.storage.array_store import ONE_HEADER, Array
from distcluster.storage.object_file import ObjectFile, objects_of
from distcluster.storage.vector_files import read_header
from distcluster.url import Url


class NpyVectors:
    """Arrays of as many features, one below the other, as one array (N, D).

    Attributes
    ----------
    shape, dtype, chunks
        As a Zarr array has them; only the bytes of the rows that are asked for are read.
    """

    def __init__(self, url: Url, store: Any, files: list[tuple[str, int]]) -> None:
        self._store, self._names = store, [name for name, _ in files]
        headers = [_header(url, store, *file) for file in files]
        (first, self.dtype, _), *others = headers
        for name, ((_, features), dtype, _) in zip(self._names[1:], others, strict=True):
            if (features, dtype) != (first[1], self.dtype):
                raise JobError(
                    f"{name} in {url} has {features:,} features of {dtype}, and {self._names[0]} {first[1]:,} of "
                    f"{self.dtype}: one input has one kind of rows."
                )
        self._begins = [begin for _, _, begin in headers]
        self._starts = np.cumsum([0, *(shape[0] for shape, _, _ in headers)])
        self.shape = (int(self._starts[-1]), first[1])
        self.chunks = (1, first[1])

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(self.shape[0])
        parts = [np.empty((0, self.shape[1]), self.dtype)]
        while start < stop:
            place = int(np.searchsorted(self._starts, start, "right")) - 1
            end = min(stop, int(self._starts[place + 1]))
            parts.append(self._read(place, start - int(self._starts[place]), end - start))
            start = end
        return np.concatenate(parts)

    def _read(self, place: int, row: int, count: int) -> Array:
        wide = self.shape[1] * self.dtype.itemsize
        begin = self._begins[place] + row * wide
        content = obstore.get_range(self._store, self._names[place], start=begin, length=count * wide)
        return np.frombuffer(memoryview(content), self.dtype).reshape(count, self.shape[1])


def open_npy(url: Url) -> NpyVectors | None:
    """The arrays at a URL; None where there are none.

    Raises
    ------
    JobError
        When a file is no array (N, D), or differs from the first in features or dtype.
    """
    store, files = objects_of(url, ".npy")
    return NpyVectors(url, store, files) if files else None


def _header(url: Url, store: Any, name: str, size: int) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and dtype of an array, and where its values begin."""
    file = ObjectFile(store, name, size)
    try:
        with ONE_HEADER:
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
    return shape, dtype, begin
