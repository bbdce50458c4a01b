"""Files beside the input, read wherever they lie: lines of text, bytes, and Zarr arrays of one entry a row."""

import functools
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

import obstore
import pyarrow as pa
import zarr
from obstore.exceptions import BaseError
from zarr.storage import ObjectStore

from distcluster.errors import JobError, StorageError
from distcluster.storage.arrow_columns import ArrowEntries
from distcluster.storage.faults import of_storage
from distcluster.storage.inputs import input_version
from distcluster.storage.lance_files import is_lance, lance_column
from distcluster.storage.object_file import may_exist
from distcluster.storage.parquet_files import open_column, open_parquet
from distcluster.storage.urls import (
    absolute_url,
    file_store,
    http_store,
    local_path,
    object_store,
    reason_of,
)
from distcluster.url import Url


def read_lines(url: Url, numbers: Iterable[int]) -> dict[int, str]:
    """Some lines of a text file, by number from 0; the file is streamed once and never held.

    Lines past its end are absent from the result.

    Raises
    ------
    JobError
        When there is no such file.
    """
    wanted = sorted(set(numbers))
    found: dict[int, str] = {}
    number, rest = 0, b""
    for chunk in _stream(url):
        *lines, rest = (rest + bytes(chunk)).split(b"\n")
        for wanted_number in wanted[bisect_left(wanted, number) : bisect_left(wanted, number + len(lines))]:
            found[wanted_number] = lines[wanted_number - number].decode(errors="replace").rstrip("\r")
        number += len(lines)
    if rest and number in wanted:
        found[number] = rest.decode(errors="replace")
    return found


def stream_lines(url: Url) -> Iterator[str]:
    """The lines of a text file, without their ends; the file is streamed and never held."""
    rest = b""
    for chunk in _stream(url):
        *lines, rest = (rest + bytes(chunk)).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def open_entries(url: Url, field: str, dimensions: tuple[int, ...] = (1,)) -> zarr.Array[Any] | ArrowEntries | None:
    """An array of one entry a row: Zarr's, or a column below Parquet or Lance (``docs.parquet/text``); None for a file.

    ``field`` is the job's, for messages.

    Raises
    ------
    JobError
        When there is neither, or the array has another shape.
    """
    try:
        obstore.head(*file_store(url))
    except (FileNotFoundError, BaseError):
        pass
    else:
        return None
    path = local_path(absolute_url(url))
    if path is not None and not path.is_dir():
        if (column := _column_of_files(url)) is not None:
            return column
        raise JobError(f"{field}: there is no file, no Zarr array and no column at {url}.")
    try:
        array = zarr.open_array(ObjectStore(object_store(absolute_url(url)), read_only=True), mode="r")
    except (FileNotFoundError, ValueError, BaseError) as error:
        if _away(error) is None and (column := _column_of_files(url)) is not None:
            return column
        raise _away(error) or JobError(f"{field}: there is no file, no Zarr array and no column at {url}.") from error
    if array.ndim not in dimensions:
        wanted = " or ".join({1: "(N,)", 2: "(N, m)"}[each] for each in dimensions)
        raise JobError(f"{field}: {url} has the shape {array.shape}; it must be {wanted}, one entry a row.")
    return array


def _column_of_files(url: Url) -> ArrowEntries | None:
    source, name = absolute_url(url).parted()
    if not may_exist(source):
        return None
    try:
        return _opened_column(source, name, input_version(source))
    except JobError:
        raise
    except (OSError, ValueError, BaseError, pa.ArrowException) as error:
        raise _away(error) or JobError(f"{source} cannot be read: {reason_of(error)}.") from error


@functools.lru_cache(maxsize=16)  # an export asks for each partition's rows
def _opened_column(source: Url, name: str, version: str | None) -> ArrowEntries | None:
    if is_lance(source):
        return lance_column(source, name, version)
    files = open_parquet(source, version)
    return None if files is None else open_column(files, name)


def read_http(url: str, seconds: float) -> bytes:
    """What a web server has at a URL, within so many seconds, asked without any credential.

    Raises
    ------
    obstore's BaseError
        When it does not answer so.
    """
    store, name = http_store(url, seconds)
    return bytes(obstore.get(store, name).bytes())


def count_labels(url: Url) -> int:
    """How many labels there are, by reading a text file once."""
    array = open_entries(url, "report.labels", dimensions=(1, 2))
    return sum(1 for _ in stream_lines(url)) if array is None else int(array.shape[0])


def require_file(url: Url, field: str) -> None:
    """Refuse a file that is not there, naming the job's field.

    Raises
    ------
    JobError
    """
    try:
        obstore.head(*file_store(url))
    except (FileNotFoundError, BaseError) as error:
        raise _away(error) or JobError(f"{field}: there is no file at {url}.") from error


def _stream(url: Url) -> Iterable[Any]:
    try:
        store, name = file_store(url)
        yield from obstore.get(store, name).stream()
    except (OSError, BaseError) as error:
        raise _away(error) or JobError(f"{url} cannot be read: {reason_of(error)}.") from None


def _away(error: Exception) -> StorageError | None:
    """The error of a store that is away; of one that has no such file, none."""
    fault = of_storage(error)
    return fault if isinstance(fault, StorageError) else None
