"""The output: make, resume, read and commit a run."""

import contextlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import numpy as np
import obstore
import zarr

from distcluster.errors import CorruptError, JobError
from distcluster.job import Job
from distcluster.job_file import parse_job
from distcluster.numerics.partition import Partitioning, RowRange
from distcluster.storage import lease
from distcluster.storage.array_store import READ_ERRORS, Array, ArrayStore, checksum, shard_key
from distcluster.storage.layout import (
    ERROR,
    FORMAT_VERSION,
    GROUPS,
    LEASE,
    ONE,
    PROBE,
    ROOT,
    ItemArray,
    RowArray,
)
from distcluster.storage.records import Part, Record, Records, parsed
from distcluster.storage.settings import ErrorNote, Root, RunRef, Settings
from distcluster.storage.urls import absolute_url, local_path
from distcluster.url import Url


class Run:
    """One output: a Zarr v3 group, its settings, and the records of what has been committed to it.

    ``commit/STAGE/ITEM.json`` says that an item of a stage is complete. It is written last, names every object
    that belongs to the item with its size, and the checksum of every array's decoded values.

    Parameters
    ----------
    url : str
    input_url : str, optional
        Where the input is now; absent: where it was when the run was made or last checked.
    token : int, optional
        Of the lease of the writer that this process works for; absent: the run can be read only.
    """

    def __init__(self, url: str, input_url: Url | None = None, token: int | None = None) -> None:
        self.url = absolute_url(url)
        path = local_path(self.url)
        if path is not None and path.is_file():
            raise JobError(f"the output {path} is a file: choose a directory that is empty or not there.")
        self.store = ArrayStore(self.url)
        self.records = Records(self.store, dropped=lambda: self.settings.dropped, before_change=self._require_lease)
        self._input_url = input_url
        self._token = token

    # -- settings

    @cached_property
    def settings(self) -> Settings:
        """The run's settings.

        Raises
        ------
        JobError
            When there is no run, something else, or a run of another format version.
        """
        found = self.find_settings()
        if found is None:
            raise JobError(f"there is no run at {self.url}.")
        return found

    def find_settings(self) -> Settings | None:
        """The settings, or None where nothing is yet.

        Raises
        ------
        JobError
            When the place holds something else, or a run of another format version.
        """
        if self.store.is_absent():
            return None
        content = self.store.get(ROOT)
        if content is None:
            other = next((key for key in self.store.keys_under("") if not key.startswith((PROBE, f"{LEASE}/"))), None)
            if other is not None:
                raise JobError(f"{self.url} holds something else ({other}): choose an empty place.")
            return None
        try:
            attributes = parsed(Root, content, f"{self.url}/{ROOT}").attributes.get("distcluster")
            if attributes is None:
                raise JobError(f"{self.url} is Zarr that distcluster did not make: choose another place.")
            version = attributes.get("format_version")
            if version != FORMAT_VERSION:
                raise JobError(
                    f"the run {self.url} has format version {version}, this distcluster writes {FORMAT_VERSION}: use "
                    f"the version that made it, or another output."
                )
            return parsed(Settings, json.dumps(attributes).encode(), f"{self.url}/{ROOT}")
        except JobError:
            raise
        except ValueError as error:
            raise JobError(
                f"{error}. The run's settings are damaged: restore that file, or choose another output."
            ) from error

    @cached_property
    def job(self) -> Job:
        """The job that the run was made for, with defaults for what is no part of its identity."""
        tables = {table: dict(keys) for table, keys in self.settings.job.items()}
        return parse_job(tables, name=f"{self.url}/{ROOT}")

    @property
    def partitioning(self) -> Partitioning:
        """How the run's rows are cut, as resolved when it was made."""
        return self.settings.partitioning

    @property
    def input_url(self) -> Url:
        """Where the input is."""
        return self._input_url or self.job.input.url

    @property
    def ref(self) -> RunRef:
        """What a task needs to open this run."""
        return RunRef(self.url, self.settings.run_id, self.input_url, self._token)

    # -- life

    @contextlib.contextmanager
    def writing(self, seconds: float) -> Iterator[None]:
        """Be the run's one writer, by a lease that lasts so long after it was last renewed.

        Raises
        ------
        RunHeldError
            When another process is.
        """
        with lease.held(self.store, seconds) as self._token:
            try:
                yield
            finally:
                self._token = None

    def _require_lease(self) -> None:
        """Before every change.

        Raises
        ------
        LeaseLostError
            When another writer has taken the run.
        """
        if self._token is None:
            raise RuntimeError("this run was opened for reading")
        lease.require(self.store, self._token)

    def create(self, settings: Settings) -> None:
        """Make the run by one conditional put of its root."""
        self._require_lease()
        root = {"zarr_format": 3, "node_type": "group", "attributes": {"distcluster": asdict(settings)}}
        obstore.put(self.store.objects, ROOT, json.dumps(root, indent=2).encode(), mode="create")

    def make_arrays(self, arrays: Iterable[RowArray], of: str = "") -> None:
        """Make the row arrays that are not there yet, in a run that is new or whose making was cut short."""
        self._require_lease()
        parts, job = self.partitioning, self.job
        sizes = {
            "n_neighbors": job.projection.n_neighbors, "d": job.projection.n_components, "top": job.assign.top,
        }  # fmt: skip
        for group in GROUPS:
            self.store.make_group(group)
        for each in arrays:
            length, chunk, shard = (
                (parts.n_rows, parts.block_rows, parts.partition_rows)
                if each.counts == "rows"
                else (parts.n_blocks, parts.partition_blocks, parts.partition_blocks)
            )
            path = each.path.format(of=of)
            self.store.make_array(path, (length, *each.tail(sizes)), each.dtype, each.fill_value, chunk, shard)

    def update(self, **changes: Any) -> None:
        """Replace single settings."""
        self._require_lease()
        self.__dict__["settings"] = replace(self.settings, **changes)
        self.__dict__.pop("job", None)
        zarr.open_group(self.store.zarr_store, mode="r+").attrs["distcluster"] = asdict(self.settings)

    def forget_settings(self) -> None:
        """Read the settings again when they are next asked for: another process may have changed them."""
        self.__dict__.pop("settings", None)
        self.__dict__.pop("job", None)

    def drop(self, path: str) -> None:
        """Delete what later stages no longer need: every object under a path but array metadata.

        The path is noted first, so that its absence does not make anyone do the work again. Should it be needed
        after all, reading it raises ``CorruptError`` and the one missing item is made again.
        """
        if path not in self.settings.dropped:
            self.update(dropped=(*self.settings.dropped, path))
        keys = (key for key in self.store.keys_under(path) if not key.endswith("zarr.json"))
        self.store.delete(keys, look=self._require_lease)

    def erase(self, own: re.Pattern[str]) -> None:
        """Delete the objects that are a run's own, the root last; what is not stays, and what a link leads to."""
        keys = (key for key in self.store.keys_under("") if key != ROOT and own.fullmatch(key))
        self.store.delete((key for key in keys if self.store.is_inside(key)), look=self._require_lease)
        self.store.delete([ROOT], look=self._require_lease)
        self.forget_settings()

    # -- reading

    def array(self, path: str) -> zarr.Array[Any]:
        """One of the run's arrays, as zarr opens it; nothing is checked."""
        return self.store.open_array(path)

    def read_rows(self, array: RowArray, partition: RowRange) -> Array:
        """A partition's rows (or a range of its blocks) of an array that many items fill.

        Raises
        ------
        CorruptError
            When a chunk is missing or fails its checksum.
        """
        item = str(partition.index)
        path = array.at(item)
        try:
            opened = self.array(path)
            if not self.store.has(shard_key(opened, partition.start)):  # zarr would read the fill value
                raise CorruptError(f"partition {item} of {path} is missing", array.stage, item)
            return np.asarray(opened[partition.rows])
        except CorruptError:
            raise
        except READ_ERRORS as error:
            raise CorruptError(f"partition {item} of {path} cannot be read back: {error}", array.stage, item) from error

    def read(self, array: ItemArray, item: str = ONE) -> Array:
        """An array that an item has published, checked against its record.

        Raises
        ------
        CorruptError
            When the item is not committed, or the array differs from what was committed.
        """
        record, path = self.records.read(array.stage, item), array.at(item)
        if record is None:
            raise CorruptError(f"{array.stage} {item} is not committed", array.stage, item)
        if path not in record.arrays:
            raise CorruptError(f"{path} is no part of what {array.stage} {item} committed", array.stage, item)
        try:
            values = np.asarray(self.array(path)[:])
        except READ_ERRORS as error:
            raise CorruptError(f"{path} cannot be read back: {error}", array.stage, item) from error
        if checksum(values) != record.arrays[path]:
            raise CorruptError(f"{path} is not what {array.stage} {item} committed", array.stage, item)
        return values

    def verify(self, stage: str, item: str) -> bool:
        """Whether everything that the item committed reads back with its checksum."""
        try:
            record = self.records.read(stage, item)
        except CorruptError:
            return False
        if record is None:
            return False
        written = [
            *((path, slice(None), expected) for path, expected in record.arrays.items()),
            *((path, slice(part.start, part.stop), part.checksum) for path, part in record.parts.items()),
        ]
        dropped = self.settings.dropped
        return all(self.store.reads_back(*each) for each in written if not each[0].startswith(dropped))

    # -- writing

    def commit(
        self,
        stage: str,
        item: str,
        facts: Mapping[str, Any],
        *,
        rows: Mapping[RowArray, Array] | None = None,
        arrays: Mapping[ItemArray, Array] | None = None,
        seconds: float = 0.0,
    ) -> Record:
        """Write everything that belongs to an item of a stage, then its record.

        The old record goes first, then the old objects, then everything is written and flushed, and the record comes
        last.

        Parameters
        ----------
        stage, item : str
            The record's name.
        facts : mapping
            Small JSON values kept in the record.
        rows : mapping of RowArray to array
            What the item's partition has in them: whole shards.
        arrays : mapping of ItemArray to array
            Arrays of this item alone; each is one chunk.
        seconds : float
            That they took to compute.
        """
        self.records.discard(stage, item)
        keys: list[str] = []
        parts: dict[str, Part] = {}
        checksums: dict[str, int] = {}
        for each, values in (rows or {}).items():
            index, path = int(item.rpartition("/")[2]), each.at(item)
            of_rows = each.counts == "rows"
            start = index * (self.partitioning.partition_rows if of_rows else self.partitioning.partition_blocks)
            self._require_lease()
            keys += self.store.write_part(path, start, values)
            parts[path] = Part(start, start + len(values), checksum(values))
        for array, values in (arrays or {}).items():
            path = array.at(item)
            self._require_lease()
            keys += self.store.write_array(path, values)
            checksums[path] = checksum(values)
        sizes = {key: self.store.size(key) for key in keys}
        self.store.flush(keys)
        record = Record(dict(facts), parts, checksums, sizes, seconds, uuid.uuid4().hex)
        self.records.write(stage, item, record)
        return record

    # -- for people and for other processes

    def note_error(self, message: str) -> None:
        """Keep the last error for ``status``; an empty message says that there is none."""
        self._require_lease()
        self.store.put(ERROR, json.dumps(asdict(ErrorNote(message))).encode())

    def last_error(self) -> str:
        """What ``note_error`` kept."""
        content = self.store.get(ERROR)
        try:
            return "" if content is None else parsed(ErrorNote, content, ERROR).error
        except ValueError as error:
            return str(error)
