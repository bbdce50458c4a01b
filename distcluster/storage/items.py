"""What a row is for a person: lines of text, JSON Lines, a Parquet column, or a Zarr array of strings."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from distcluster.errors import JobError
from distcluster.storage.arrow_columns import ArrowEntries
from distcluster.storage.faults import of_storage
from distcluster.storage.files import open_entries, read_lines, require_file, stream_lines
from distcluster.storage.urls import absolute_url, reason_of
from distcluster.url import Url

_JSON_LINES = (".jsonl", ".ndjson")


def read_items(url: Url, rows: Iterable[int], column: str) -> dict[int, str]:
    """The items of some rows, by row; rows past the end are absent.

    Only what holds these rows is kept: text and JSON Lines are streamed, of Parquet the row groups, of Zarr the chunks
    that hold them are read.

    Parameters
    ----------
    url : Url
        ``.jsonl`` or ``.ndjson``: JSON Lines; ``.parquet``: Parquet; a Zarr array (N,); anything else: lines of text.
    rows : iterable of int
    column : str
        The field of JSON Lines, the column of Parquet.

    Raises
    ------
    JobError
        When there is no such file or column, or a line is not JSON.
    """
    wanted = sorted(set(rows))
    suffix = _suffix(url)
    if suffix in _JSON_LINES:
        return {row: _field(line, row, column, url) for row, line in read_lines(url, wanted).items()}
    if suffix == ".parquet":
        return _read_parquet(url, wanted, column)
    array = open_entries(url, "report.items")
    if array is None:
        return read_lines(url, wanted)
    inside = [row for row in wanted if row < array.shape[0]]
    if not inside:
        return {}
    values = np.asarray(array.oindex[np.array(inside, np.int64)])
    return {row: str(value) for row, value in zip(inside, values, strict=True)}


def stream_items(url: Url, sizes: Iterable[int], column: str) -> Iterator[list[str | None]]:
    """All items, so many at a time; None past the end. A file of lines is streamed once, never held."""
    lines = enumerate(stream_lines(url)) if _is_lines(url) else None
    start = 0
    for size in sizes:
        rows = range(start, start + size)
        if lines is None:
            found = read_items(url, rows, column)
        else:
            is_json = _suffix(url) in _JSON_LINES
            found = {i: _field(line, i, column, url) if is_json else line for i, line in islice(lines, size)}
        yield [found.get(row) for row in rows]
        start += size


def _is_lines(url: Url) -> bool:
    return _suffix(url) != ".parquet" and (_suffix(url) in _JSON_LINES or open_entries(url, "report.items") is None)


def open_column(source: Url, name: str, field: str) -> zarr.Array[Any] | ArrowEntries:
    """A column beside the vectors of an input, (N,).

    Parameters
    ----------
    source : Url
        The input: Parquet, or a Zarr group.
    name : str
        The column, or the array.
    field : str
        Where the name was given, for messages.

    Raises
    ------
    JobError
        When there is none of the name.
    """
    array = open_entries(source.joined(name), field)
    if array is None:
        raise JobError(f"{field}: {source} has no column {name!r}.")
    return array


def require_items(url: Url, column: str) -> None:
    """Refuse items that cannot be read, on the first row.

    Raises
    ------
    JobError
    """
    if _suffix(url) in (*_JSON_LINES, ".parquet"):
        require_file(url, "report.items")
    read_items(url, [0], column)


def _suffix(url: Url) -> str:
    return PurePosixPath(urlsplit(url).path if "://" in url else url).suffix.lower()


def _field(line: str, row: int, column: str, url: Url) -> str:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise JobError(f"report.items: row {row} of {url} is not JSON: {error}.") from error
    if not isinstance(found, dict) or column not in found:
        has = f"the fields {', '.join(found)}" if isinstance(found, dict) else "no fields"
        raise JobError(f"report.items: row {row} of {url} has {has}, not {column!r}: set report.item_column.")
    return str(found[column])


def _read_parquet(url: Url, wanted: list[int], column: str) -> dict[int, str]:
    try:
        return _taken_from_parquet(url, wanted, column)
    except JobError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        fault = of_storage(error)
        raise fault or JobError(f"report.items: {url} cannot be read: {reason_of(error)}.") from None


def _taken_from_parquet(url: Url, wanted: list[int], column: str) -> dict[int, str]:
    found: dict[int, str] = {}
    with fsspec.open(absolute_url(url).whole, "rb") as file:
        table = pq.ParquetFile(file)
        if column not in table.schema_arrow.names:
            names = ", ".join(table.schema_arrow.names)
            raise JobError(f"report.items: {url} has the columns {names}, not {column!r}: set report.item_column.")
        start = 0
        for group in range(table.num_row_groups):
            stop = start + table.metadata.row_group(group).num_rows
            here = wanted[bisect_left(wanted, start) : bisect_left(wanted, stop)]
            if here:
                values = table.read_row_group(group, columns=[column]).column(0)
                taken = values.take([row - start for row in here]).to_pylist()
                found |= {row: str(value) for row, value in zip(here, taken, strict=True)}
            start = stop
    return found
