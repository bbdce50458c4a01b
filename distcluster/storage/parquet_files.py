"""Parquet, a file or a folder of them, as rows read where they lie: a column of vectors, and columns beside it."""

import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distcluster.errors import JobError
from distcluster.storage.arrow_columns import BATCH_ROWS, ArrowEntries, ArrowVectors, first_length, only_list
from distcluster.storage.arrow_lists import is_list, value_type
from distcluster.storage.object_file import ObjectFile, objects_of
from distcluster.url import Url

# Asked of a store at a time, so that a row group of gigabytes needs no more memory; where pyarrow reads ahead, which is
# its default, it takes a whole column of a row group.
_BUFFER_BYTES = 2**22


class ParquetFiles:
    """The files' footers: which rows lie in which row group.

    Attributes
    ----------
    url : Url
    schema : pyarrow.Schema
        Of the first file.
    starts : (groups + 1,) int64
        The first row of each row group, and the number of rows.
    n_rows : int
    """

    def __init__(self, url: Url, store: Any, files: Sequence[tuple[str, int]]) -> None:
        self.url, self._store, self._files = url, store, files
        self._metadata = [pq.read_metadata(self._open(place)) for place in range(len(files))]
        self.schema = self._metadata[0].schema.to_arrow_schema()
        self._groups = [(place, group) for place, of in enumerate(self._metadata) for group in range(of.num_row_groups)]
        sizes = [self._metadata[place].row_group(group).num_rows for place, group in self._groups]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.n_rows = int(self.starts[-1])

    def _open(self, place: int) -> Any:
        name, size = self._files[place]
        return ObjectFile(self._store, name, size)

    def schemas(self) -> Iterator[tuple[str, pa.Schema]]:
        """Every file's name and schema."""
        for (name, _), metadata in zip(self._files, self._metadata, strict=True):
            yield name, metadata.schema.to_arrow_schema()

    def widths(self, column: str) -> Iterator[tuple[str, int]]:
        """Every file's name and the values in each of its lists, where footers say that all have as many."""
        for (name, _), metadata in zip(self._files, self._metadata, strict=True):
            paths = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
            leaf = next((i for i, path in enumerate(paths) if path.rsplit(".", 2)[0] == column), None)
            if leaf is not None and metadata.num_rows:
                groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
                width, rest = divmod(sum(group.column(leaf).num_values for group in groups), metadata.num_rows)
                if width > 1 and not rest:  # a list that is missing counts as one value
                    yield name, width

    def vector_columns(self) -> list[str]:
        """The columns of lists."""
        return [field.name for field in self.schema if is_list(field.type)]

    def place_of(self, row: int) -> str:
        """A row by its file and its number there, for messages."""
        place = self._groups[self.group_of(row)][0]
        first = next(start for start, group in zip(self.starts, self._groups, strict=False) if group[0] == place)
        return f"row {row - first:,} of {self._files[place][0]}"

    def group_of(self, row: int) -> int:
        """The row group that holds a row, counted over all files."""
        return int(np.searchsorted(self.starts, row, "right")) - 1

    def stream(self, group: int, column: str) -> Iterator[tuple[int, Any]]:
        """A column's values in a row group, some rows at a time, each with its first row."""
        place, number = self._groups[group]
        options = {"metadata": self._metadata[place], "buffer_size": _BUFFER_BYTES, "pre_buffer": False}
        file = pq.ParquetFile(self._open(place), **options)
        first = int(self.starts[group])
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[number], columns=[column], use_threads=False):
            yield first, batch.column(0)
            first += len(batch)


class _Forward:
    """What a thread has decoded last of a column: reading on costs no second decoding of what lies before."""

    def __init__(self, files: ParquetFiles, column: str) -> None:
        self._files, self._column, self._group = files, column, -1
        self._batches: Iterator[tuple[int, Any]] = iter(())
        self._first, self._values = 0, pa.array([])

    def at(self, row: int) -> tuple[int, Any]:
        """The decoded batch that holds a row, and its first row."""
        group = self._files.group_of(row)
        try:
            if group != self._group or row < self._first:
                self._group, self._batches = group, self._files.stream(group, self._column)
                self._first, self._values = next(self._batches)
            while row >= self._first + len(self._values):
                self._first, self._values = next(self._batches)
        except BaseException:
            self._group = -1  # the next try begins anew
            raise
        return self._first, self._values


class _Column:
    """A column of the files, read forward by each thread."""

    def __init__(self, files: ParquetFiles, name: str) -> None:
        self.url, self.n_rows = files.url, files.n_rows
        self._files, self._name, self._own = files, name, threading.local()

    def parts(self, rows: slice) -> Iterator[Any]:
        """The values of some rows, as Arrow's arrays, in order."""
        start, stop, _ = rows.indices(self.n_rows)
        if not hasattr(self._own, "forward"):
            self._own.forward = _Forward(self._files, self._name)
        while start < stop:
            first, values = self._own.forward.at(start)
            part = values.slice(start - first, stop - start)
            yield part
            start += len(part)

    def entries(self, rows: list[int]) -> list[Any]:
        """The entries of single rows, whose numbers rise."""
        return [part[0].as_py() for row in rows for part in self.parts(slice(row, row + 1))]

    def place_of(self, row: int) -> str:
        """A row by its file and its number there."""
        return self._files.place_of(row)


@functools.lru_cache(maxsize=4)  # a folder has thousands of footers, which vectors and columns share
def open_parquet(url: Url, _version: str | None) -> ParquetFiles | None:
    """The Parquet at a URL, as of a version of it; None where there is none."""
    store, files = objects_of(url, ".parquet")
    return ParquetFiles(url, store, files) if files else None


def open_vectors_of(files: ParquetFiles, name: str, *, is_widest: bool = False) -> ArrowVectors:
    """The column of vectors: that of the name, or the only one.

    Parameters
    ----------
    files : ParquetFiles
    name : str
    is_widest : bool
        Files may have different types of values: the narrowest that holds all is taken. Else they are refused.

    Raises
    ------
    JobError
        When there is none, or there are several and none has the name; when files differ in width or type.
    """
    name = only_list(files.vector_columns(), name, files.url)
    dtype = np.result_type(*_types(files, name).values()) if is_widest else _one_type(files, name)
    column, kind = _Column(files, name), files.schema.field(name).type
    wide = int(kind.list_size) if pa.types.is_fixed_size_list(kind) else first_length(column, name)
    for file, width in [] if is_widest else files.widths(name):
        if width != wide:
            raise JobError(
                f"{name!r} in {file} of {files.url} has lists of {width:,} values, and of {wide:,} in the "
                f"files before it: one input has one kind of rows."
            )
    return ArrowVectors(column, wide, dtype, files.starts[:-1])


def open_column(files: ParquetFiles, name: str) -> ArrowEntries | None:
    """A column of one entry a row; None where there is none of the name.

    Raises
    ------
    JobError
        When a file lacks it, or has values of a type that does not go with the other files'.
    """
    fits = name in files.schema.names and not pa.types.is_nested(files.schema.field(name).type)
    return ArrowEntries(_Column(files, name), _common_type(files, name)) if fits else None


def _types(files: ParquetFiles, name: str) -> dict[str, np.dtype[Any]]:
    return {file: value_type(schema, name, file) for file, schema in files.schemas()}


def _one_type(files: ParquetFiles, name: str) -> np.dtype[Any]:
    types = _types(files, name)
    first = next(iter(types.values()))
    other = next((file for file, found in types.items() if found != first), None)
    if other is not None:
        raise JobError(f"{name!r} in {other} has values of {types[other]}, and of {first} in the files before it.")
    return first


def _common_type(files: ParquetFiles, name: str) -> pa.DataType:
    """The type that holds the values of all files: of a column without any entry, a file may not know the type."""
    found = pa.schema([files.schema.field(name)])
    for file, schema in files.schemas():
        if name not in schema.names:
            raise JobError(f"{file} of {files.url} has no column {name!r}, which the other files have.")
        try:
            found = pa.unify_schemas([found, pa.schema([schema.field(name)])], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            raise JobError(
                f"{name!r} in {file} of {files.url} has values of {schema.field(name).type}, and of "
                f"{found.field(name).type} in the files before it."
            ) from None
    return found.field(name).type
