"""Lance, a dataset of one version, as rows read where they lie: a column of vectors, and columns beside it."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import obstore
import pyarrow as pa

from distcluster.errors import ExpectedError, JobError, StorageError
from distcluster.storage.arrow_columns import BATCH_ROWS, ArrowEntries, ArrowVectors, first_length, only_list
from distcluster.storage.arrow_lists import is_list, value_type
from distcluster.storage.faults import of_storage
from distcluster.storage.object_file import has_pattern
from distcluster.storage.urls import local_path, object_store, reason_of, store_options
from distcluster.url import Url

_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "azure": "az", "abfss": "abfss"}  # ours, and Lance's
# Else it would have its store's client try for all its time again, eighteen times in a row.
_TRIES = {"lance_aimd_max_retries": "0", "download_retry_count": "0"}
_VERSIONS = "_versions"  # its folder of manifests
_WHERE = re.compile(r", /\S+\.rs:\d+:\d+|External error: |LanceError\(IO\): ")  # in its own source
_AWAY = re.compile(r"Generic (S3|GCS|MicrosoftAzure) error")


class _Column:
    """A column of a dataset; Lance reads of it no more than the rows that are asked for."""

    def __init__(self, dataset: Any, url: Url, name: str) -> None:
        self._dataset, self.url, self._name = dataset, url, name
        self.n_rows = int(dataset.count_rows())

    def parts(self, rows: slice) -> Iterator[Any]:
        """The values of some rows, as Arrow's arrays, in order."""
        start, stop, _ = rows.indices(self.n_rows)
        if start >= stop:
            return
        with _errors():
            # One after the other: many tasks read at a time.
            scanner = self._dataset.scanner(
                [self._name], offset=start, limit=stop - start, batch_size=BATCH_ROWS, fragment_readahead=1
            )
            for batch in scanner.to_batches():
                yield batch.column(0)

    def entries(self, rows: list[int]) -> list[Any]:
        """The entries of single rows, whose numbers rise."""
        with _errors():
            found: list[Any] = self._dataset.take(rows, [self._name]).column(0).to_pylist() if rows else []
        return found

    def place_of(self, row: int) -> str:
        """A row by its number: Lance has no names of files that a person would know."""
        return f"row {row:,} of {self.url}"


def is_lance(url: Url) -> bool:
    """Whether there is a Lance dataset at a URL."""
    path = local_path(url)
    if path is not None or has_pattern(url):
        return path is not None and (path / _VERSIONS).is_dir()
    return urlsplit(url).scheme in _SCHEMES and any(map(len, obstore.list(object_store(url), prefix=_VERSIONS)))


def refuse_other_stores(url: Url) -> None:
    """Refuse what is called a Lance dataset where Lance reads none.

    Raises
    ------
    JobError
    """
    parts = urlsplit(url)
    is_called_one = parts.path.rstrip("/").lower().endswith(".lance") and not has_pattern(url)
    if is_called_one and local_path(url) is None and parts.scheme not in _SCHEMES:
        known = ", ".join(f"{each}://" for each in _SCHEMES)
        raise JobError(f"{url}: Lance datasets are read from local paths, {known}. Copy it to one of these.")


def lance_vectors(url: Url, name: str, version: str | None) -> ArrowVectors:
    """The column of vectors of a dataset, as of a version of its objects: that of the name, or the only one.

    Raises
    ------
    JobError
        When there is none, or there are several and none has the name; when pylance is not installed.
    """
    dataset = _open(url, version)
    schema = dataset.schema
    name = only_list([field.name for field in schema if is_list(field.type)], name, url)
    dtype, kind = value_type(schema, name, str(url)), schema.field(name).type
    column = _Column(dataset, url, name)
    width = int(kind.list_size) if pa.types.is_fixed_size_list(kind) else first_length(column, name)
    return ArrowVectors(column, width, dtype)


def lance_column(url: Url, name: str, version: str | None) -> ArrowEntries | None:
    """A column of one entry a row; None where there is none of the name."""
    dataset = _open(url, version)
    fits = name in dataset.schema.names and not pa.types.is_nested(dataset.schema.field(name).type)
    return ArrowEntries(_Column(dataset, url, name), dataset.schema.field(name).type) if fits else None


@functools.lru_cache(maxsize=4)  # vectors and columns share it
def _open(url: Url, _version: str | None) -> Any:
    """The newest version of a dataset, which it stays, whatever is appended meanwhile."""
    if find_spec("lance") is None:
        raise JobError(f"{url} is a Lance dataset, which needs the package pylance: pip install 'distcluster[lance]'")
    import lance  # never before a worker is forked: it has threads of its own

    path = local_path(url)
    with _errors():
        if path is not None:
            return lance.dataset(path)
        parts = urlsplit(url.whole)
        place = parts._replace(scheme=_SCHEMES[parts.scheme]).geturl()
        return lance.dataset(place, storage_options=store_options(url) | _TRIES)


@contextmanager
def _errors() -> Iterator[None]:
    """Lance's exceptions told apart: it has OSError and ValueError for everything, a store that is away as well.

    Raises
    ------
    StorageError
        When a store is away.
    OSError
        When the dataset cannot be read; the caller knows what was to be.
    """
    try:
        yield
    except ExpectedError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        said = _WHERE.sub("", reason_of(error))
        if (fault := of_storage(error)) is not None:
            raise fault from None
        if _AWAY.search(said):
            raise StorageError(f"the storage failed: {said}. What was committed stays: run again to resume.") from None
        raise OSError(said) from None
