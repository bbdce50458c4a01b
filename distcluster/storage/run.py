"""The output: create, resume, read, write and commit a run."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import obstore
import zarr
from obstore.exceptions import AlreadyExistsError
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import ObjectStore

from distcluster.errors import CorruptError, JobError
from distcluster.numerics.partition import Partitioning, RowRange
from distcluster.storage.inputs import Array, absolute_url, checksum, local_path, object_store, public_url

FORMAT_VERSION = 2
"""Raised with every change of the run layout; a run of another version is refused."""

PERFORMANCE = "report/performance.html"
"""Dask's own report, where a job asks for it."""

_COMPRESSORS = (ZstdCodec(level=1), Crc32cCodec())
_PROBE = "commit/.probe-"
_ERROR = "commit/error.json"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """An array of a run that is written in parts: by partition of rows, or one entry a partition."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    fill_value: float
    chunk_rows: int
    shard_rows: int


class Run:
    """One output: a Zarr v3 group, its settings, and the records of what has been committed to it.

    ``commit/STAGE/ITEM.json`` says that an item of a stage is complete. It is written last, names every object
    that belongs to the item with its size, and the checksum of every array's decoded values.
    """

    def __init__(self, url: str) -> None:
        self.url = absolute_url(url)
        path = local_path(self.url)
        if path is not None and path.is_file():
            raise JobError(f"the output {path} is a file: choose a directory that is empty or not there.")

    @cached_property
    def objects(self) -> Any:
        """Obstore's store; a local directory is made on first use."""
        return object_store(self.url, create=True)

    @cached_property
    def _zarr(self) -> ObjectStore[Any]:
        return ObjectStore(self.objects)

    def _is_absent(self) -> bool:
        path = local_path(self.url)
        return path is not None and not path.exists()

    # -- life

    def create(self, attributes: Mapping[str, Any]) -> None:
        """Make the run by one conditional put of its root; whoever comes second adopts the winner's settings."""
        root = {"zarr_format": 3, "node_type": "group", "attributes": {"distcluster": dict(attributes)}}
        with contextlib.suppress(AlreadyExistsError):
            obstore.put(self.objects, "zarr.json", json.dumps(root, indent=2).encode(), mode="create")

    def ensure_arrays(self, specs: Iterable[ArraySpec]) -> None:
        """Make the arrays that are not there yet, in a run that is new or whose making was cut short."""
        for group in ("commit", "model", "sample", "selection", "cluster", "report"):
            zarr.open_group(self._zarr, path=group, mode="a")
        for spec in specs:
            if self.has_object(f"{spec.name}/zarr.json"):
                continue
            zarr.create_array(
                self._zarr,
                name=spec.name,
                shape=spec.shape,
                dtype=spec.dtype,
                chunks=(spec.chunk_rows, *spec.shape[1:]),
                shards=(spec.shard_rows, *spec.shape[1:]),
                compressors=_COMPRESSORS,
                fill_value=spec.fill_value,
                config={"write_empty_chunks": True},
            )

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The run's settings, as they were when it was made.

        Raises
        ------
        JobError
            When there is no run, something else, or a run of another format version.
        """
        found = self.read_attributes()
        if found is None:
            raise JobError(f"there is no run at {public_url(self.url)}.")
        return found

    def read_attributes(self) -> dict[str, Any] | None:
        """The settings, or None where nothing is yet.

        Raises
        ------
        JobError
            When the place holds something else, or a run of another format version.
        """
        shown = public_url(self.url)
        if self._is_absent():
            return None
        try:
            root = json.loads(bytes(obstore.get(self.objects, "zarr.json").bytes()))
        except FileNotFoundError:
            names = (item["path"] for batch in obstore.list(self.objects) for item in batch)
            other = next((name for name in names if not name.startswith(_PROBE)), None)
            if other is not None:
                raise JobError(f"{shown} holds something else ({other}): choose an empty place.") from None
            return None
        attributes = root.get("attributes", {}).get("distcluster")
        if attributes is None:
            raise JobError(f"{shown} is Zarr that distcluster did not make: choose another place.")
        if attributes["format_version"] != FORMAT_VERSION:
            raise JobError(
                f"the run {shown} has format version {attributes['format_version']}, this distcluster writes "
                f"{FORMAT_VERSION}: use the version that made it, or another output."
            )
        return dict(attributes)

    def update_attributes(self, **changes: Any) -> None:
        """Replace single settings."""
        self.__dict__["attributes"] = {**self.attributes, **changes}
        zarr.open_group(self._zarr, mode="r+").attrs["distcluster"] = self.attributes

    @cached_property
    def partitioning(self) -> Partitioning:
        """How the run's rows are cut, as resolved when it was made."""
        return Partitioning(**self.attributes["partitioning"])

    # -- reading

    def array(self, name: str) -> zarr.Array[Any]:
        """One of the run's arrays."""
        return zarr.open_array(self._zarr, path=name, mode="r+")

    def read_rows(self, name: str, partition: RowRange, stage: str) -> Array:
        """A partition's rows of an array that ``stage`` has written.

        Raises
        ------
        CorruptError
            When a chunk is missing or fails its checksum.
        """
        array = self.array(name)
        if not self.has_object(_shard_key(array, partition.start)):  # zarr would read the fill value
            raise CorruptError(f"partition {partition.index} of {name} is missing", stage, str(partition.index))
        try:
            return np.asarray(array[partition.rows])
        except (ValueError, RuntimeError, OSError) as error:
            raise CorruptError(
                f"partition {partition.index} of {name} cannot be read back: {error}", stage, str(partition.index)
            ) from error

    def read_model(self, stage: str, item: str, only: str | None = None) -> dict[str, Array]:
        """The arrays that an item of a stage has published, or one of them, checked against its record.

        Returns
        -------
        dict of str to array
            By path in the run.

        Raises
        ------
        CorruptError
            When the item is not committed, or an array differs from what was committed.
        """
        record = self.record(stage, item)
        if record is None:
            raise CorruptError(f"{stage} {item} is not committed", stage, item)
        arrays = {}
        for path, expected in record["models"].items():
            if only not in (None, path):
                continue
            try:
                arrays[path] = np.asarray(self.array(path)[:])
            except (ValueError, RuntimeError, OSError) as error:
                raise CorruptError(f"{path} cannot be read back: {error}", stage, item) from error
            if checksum(arrays[path]) != expected:
                raise CorruptError(f"{path} is not what {stage} {item} committed", stage, item)
        return arrays

    # -- records

    def record(self, stage: str, item: str) -> dict[str, Any] | None:
        """What an item of a stage committed, or None."""
        try:
            return dict(json.loads(bytes(obstore.get(self.objects, _record_key(stage, item)).bytes())))
        except FileNotFoundError:
            return None
        except ValueError as error:  # torn by a machine that lost power
            raise CorruptError(f"the record of {stage} {item} cannot be read", stage, item) from error

    def records(self, stage: str) -> dict[str, dict[str, Any]]:
        """All records of a stage, by item; unreadable ones are left out, as if never written."""

        def read(key: str) -> tuple[str, dict[str, Any]] | None:
            name = key.rpartition("/")[2].removesuffix(".json")
            try:
                record = self.record(stage, name)
            except CorruptError:
                return None
            return None if record is None else (name, record)

        with ThreadPoolExecutor(16) as threads:
            return dict(pair for pair in threads.map(read, self.keys(f"commit/{stage}")) if pair)

    def committed(self, stage: str) -> dict[str, dict[str, Any]]:
        """Records of a stage whose every object exists with the size that was committed, or was dropped since."""
        records = self.records(stage)
        objects = (key for record in records.values() for key in record["objects"])
        prefixes = {key.removesuffix("/zarr.json").split("/c/")[0] for key in objects}
        sizes = {
            item["path"]: item["size"]
            for prefix in prefixes
            for batch in obstore.list(self.objects, prefix=f"{prefix}/")
            for item in batch
        }
        dropped = tuple(f"{name}/" for name in self.attributes["dropped"])
        return {
            item: record
            for item, record in records.items()
            if all(sizes.get(key) == size for key, size in record["objects"].items() if not key.startswith(dropped))
        }

    def verify(self, stage: str, item: str) -> bool:
        """Whether everything that the item committed reads back with its checksum."""
        try:
            record = self.record(stage, item)
            if record is None:
                return False
            dropped = tuple(self.attributes["dropped"])
            for path, expected in record["models"].items():
                if not path.startswith(dropped) and checksum(np.asarray(self.array(path)[:])) != expected:
                    return False
            for name, part in record["parts"].items():
                if name.startswith(dropped):
                    continue
                values = np.asarray(self.array(name)[part["start"] : part["stop"]])
                if checksum(values) != part["checksum"]:
                    return False
        except (CorruptError, ValueError, RuntimeError, OSError):
            return False
        return True

    def discard(self, stage: str, item: str) -> None:
        """Forget that an item was committed, so that the next run does it again."""
        self._delete([_record_key(stage, item)])

    def forget(self, stage: str) -> None:
        """Discard every item of a stage."""
        self._delete(self.keys(f"commit/{stage}"))

    def erase(self) -> None:
        """Delete everything, the root last."""
        self._delete(sorted(self.keys(""), key=lambda key: key == "zarr.json"))
        self.__dict__.pop("attributes", None)
        self.__dict__.pop("partitioning", None)

    def commit(
        self,
        stage: str,
        item: str,
        facts: Mapping[str, Any] | None = None,
        *,
        parts: Mapping[str, tuple[int, Array]] | None = None,
        models: Mapping[str, Array] | None = None,
    ) -> dict[str, Any]:
        """Write everything that belongs to an item of a stage, then its record.

        The old record goes first, then the old objects (zarr would read a torn shard before replacing it), then
        everything is written and flushed, and the record comes last.

        Parameters
        ----------
        stage, item : str
            The record's name.
        facts : mapping
            Small JSON values kept in the record.
        parts : mapping of str to (int, array)
            For arrays made with the run: name to first index and values; whole shards only.
        models : mapping of str to array
            For arrays of this item alone: path in the run to values; each is one chunk.

        Returns
        -------
        dict
            The record.
        """
        self.discard(stage, item)
        keys: list[str] = []
        record: dict[str, Any] = {"facts": dict(facts or {}), "parts": {}, "models": {}}
        for name, (start, values) in (parts or {}).items():
            keys += self._write_part(name, start, values)
            record["parts"][name] = {"start": start, "stop": start + len(values), "checksum": checksum(values)}
        for path, values in (models or {}).items():
            keys += self._write_model(path, values)
            record["models"][path] = checksum(values)
        record["objects"] = {key: obstore.head(self.objects, key)["size"] for key in keys}
        record["id"] = uuid.uuid4().hex
        self._flush(keys)
        key = _record_key(stage, item)
        obstore.put(self.objects, key, json.dumps(record).encode())
        self._flush([key])
        return record

    def _write_part(self, name: str, start: int, values: Array) -> list[str]:
        array = self.array(name)
        shard_rows = (array.shards or array.chunks)[0]
        if start % shard_rows or (len(values) != shard_rows and start + len(values) != array.shape[0]):
            raise ValueError(f"{name}: {start} to {start + len(values)} is no whole shard of {shard_rows} rows")
        key = _shard_key(array, start)
        self._delete([key])
        array[start : start + len(values)] = values
        return [key]

    def _write_model(self, path: str, values: Array) -> list[str]:
        self._delete(self.keys(path))
        array = zarr.create_array(
            self._zarr,
            name=path,
            data=values,
            chunks=tuple(max(length, 1) for length in values.shape),
            compressors=_COMPRESSORS,
            config={"write_empty_chunks": True},
            overwrite=True,
        )
        keys = [f"{path}/zarr.json"]
        if values.size:
            keys.append(f"{path}/{array.metadata.encode_chunk_key((0,) * values.ndim)}")
        return keys

    def drop(self, name: str) -> None:
        """Delete what later stages no longer need: every object under a path but array metadata.

        The path is noted first, so that its absence does not make anyone do the work again. Should it be needed
        after all, reading it raises ``CorruptError`` and the one missing item is made again.
        """
        if name not in self.attributes["dropped"]:
            self.update_attributes(dropped=[*self.attributes["dropped"], name])
        self._delete([key for key in self.keys(name) if not key.endswith("zarr.json")])

    def keys(self, prefix: str) -> list[str]:
        """Every object under a path."""
        prefix = f"{prefix}/" if prefix else ""
        return [item["path"] for batch in obstore.list(self.objects, prefix=prefix) for item in batch]

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                obstore.delete(self.objects, key)
            except FileNotFoundError:
                continue

    def _flush(self, keys: Sequence[str]) -> None:
        """On a file system, make the objects and their names survive a power cut; elsewhere a put already does."""
        root = local_path(self.url)
        if root is None:
            return
        files = [root / key for key in keys]
        for path in [*files, *{file.parent for file in files}]:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    # -- for people and for other processes

    def note_error(self, message: str) -> None:
        """Keep the last error for ``status``; an empty message says that there is none."""
        obstore.put(self.objects, _ERROR, json.dumps({"error": message}).encode())

    def last_error(self) -> str:
        """What ``note_error`` kept."""
        try:
            return str(json.loads(bytes(obstore.get(self.objects, _ERROR).bytes()))["error"])
        except FileNotFoundError:
            return ""

    def put_probe(self) -> str:
        """Leave a mark that another process can look for; returns its name."""
        name = f"{_PROBE}{uuid.uuid4().hex}"
        obstore.put(self.objects, name, b"")
        return name

    def has_object(self, name: str) -> bool:
        """Whether an object of this name is visible from this process."""
        if self._is_absent():
            return False
        try:
            obstore.head(self.objects, name)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Delete one object."""
        self._delete([name])


def _shard_key(array: zarr.Array[Any], first_row: int) -> str:
    """The object that holds a row: parts are whole in every other axis."""
    shard_rows = (array.shards or array.chunks)[0]
    index = (first_row // shard_rows, *(0,) * (array.ndim - 1))
    return f"{array.path}/{array.metadata.encode_chunk_key(index)}"


def _record_key(stage: str, item: str) -> str:
    return f"commit/{stage}/{item}.json"
