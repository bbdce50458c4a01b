"""What tasks read from a run and commit to it: arrays with checksums, and the records that say they are complete."""

import itertools
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from distcluster.errors import CorruptError
from distcluster.numerics.partition import Partitioning, RowRange
from distcluster.storage.array_store import READ_ERRORS, Array, ArrayStore, checksum
from distcluster.storage.dimensions import dimensions
from distcluster.storage.layout import in_object
from distcluster.storage.records import READERS, Kept, Part, Record, Records
from distcluster.storage.run_arrays import ONE, ItemArray, RowArray

if TYPE_CHECKING:
    import zarr


class Content(ABC):
    """The arrays and the records of a run.

    ``commit/STAGE/ITEM.json`` says that an item of a stage is complete. It is written last, names every object
    that belongs to the item with its size, and the checksum of every array's decoded values.
    """

    store: ArrayStore
    records: Records

    @property
    @abstractmethod
    def partitioning(self) -> Partitioning:
        """How the run's rows are cut."""

    @property
    @abstractmethod
    def dropped(self) -> tuple[str, ...]:
        """The paths that have been emptied since they were committed."""

    @abstractmethod
    def holder(self, stage: str) -> "Content":
        """What holds the results of a stage: this, or the run around a choice."""

    @abstractmethod
    def require_lease(self) -> None:
        """Called before every change; raises where that is not this process's to do."""

    # -- reading

    def array(self, path: str) -> "zarr.Array[Any]":
        """One of the run's arrays, as zarr opens it; nothing is checked."""
        return self.store.open_array(path)

    def read_rows(self, array: RowArray, partition: RowRange) -> Array:
        """A partition's rows (or a range of its blocks) of an array that many items fill.

        Raises
        ------
        CorruptError
            When a chunk is missing or fails its checksum.
        """
        item, path = str(partition.index), array.path
        try:
            return self.holder(array.stage).store.read_rows(path, partition.rows)
        except READ_ERRORS as error:
            raise CorruptError(f"partition {item} of {path} cannot be read back: {error}", array.stage, item) from error

    def read_partitions(self, array: RowArray, partitions: Sequence[RowRange]) -> Iterator[Array]:
        """The same for some partitions, read at a time and given in their order."""
        with ThreadPoolExecutor(READERS) as threads:
            yield from threads.map(lambda partition: self.read_rows(array, partition), partitions)

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
            values = self.holder(array.stage).store.read_array(path)
        except READ_ERRORS as error:
            raise CorruptError(f"{path} cannot be read back: {error}", array.stage, item) from error
        if checksum(values) != record.arrays[path]:
            raise CorruptError(f"{path} is not what {array.stage} {item} committed", array.stage, item)
        return values

    def read_items(
        self, arrays: Sequence[ItemArray], items: Iterable[object], under: str = ""
    ) -> Iterator[list[Array]]:
        """The same for arrays of many items of one stage, in the items' order, many read at a time.

        Parameters
        ----------
        arrays : sequence of ItemArray
            All of them lie in one object an item.
        items : iterable
        under : str
            What nested items are all of.
        """
        stage = arrays[0].stage
        records, store = self.records.of_stage(stage, under), self.holder(stage).store

        def read(item: str) -> list[Array]:
            if item not in records:
                raise CorruptError(f"{stage} {item} is not committed", stage, item)
            paths = [array.at(item) for array in arrays]
            key, _ = in_object(paths[0]) or (paths[0], "")
            try:
                found = store.get_arrays(key)
                values = [found[path.removeprefix(f"{key}/")] for path in paths]
            except READ_ERRORS as error:
                raise CorruptError(f"{key} cannot be read back: {error}", stage, item) from error
            for path, each in zip(paths, values, strict=True):
                if checksum(each) != records[item].arrays.get(path):
                    raise CorruptError(f"{path} is not what {stage} {item} committed", stage, item)
            return values

        left = iter(items)
        with ThreadPoolExecutor(READERS) as threads:
            while some := list(itertools.islice(left, READERS)):
                yield from threads.map(read, map(str, some))

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
        return all(self.store.reads_back(*each) for each in written if not each[0].startswith(self.dropped))

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
    ) -> Kept:
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
        sizes: dict[str, int] = {}
        parts: dict[str, Part] = {}
        checksums: dict[str, int] = {}
        partial: dict[str, dict[str, Array]] = {}
        for each, values in (rows or {}).items():
            index, path = int(item), each.path
            of_rows = each.counts == "rows"
            start = index * (self.partitioning.partition_rows if of_rows else self.partitioning.partition_blocks)
            self.require_lease()
            sizes |= self.store.write_part(path, start, values)
            parts[path] = Part(start, start + len(values), checksum(values))
        for array, values in (arrays or {}).items():
            path = array.at(item)
            checksums[path] = checksum(values)
            self.require_lease()
            if inside := in_object(path):
                partial.setdefault(inside[0], {})[inside[1]] = values
            else:
                sizes |= self.store.write_array(path, values, dimensions(array, values.ndim))
        for key, own in partial.items():
            sizes |= self.store.put_arrays(key, own)
        self.store.flush(list(sizes))
        return self.records.write(stage, item, Record(dict(facts), parts, checksums, sizes, seconds, uuid.uuid4().hex))
