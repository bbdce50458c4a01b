"""What tasks read from a run and commit to it: arrays with checksums, and the records that say they are complete."""

import itertools
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from distcluster.errors import CorruptError
from distcluster.numerics.partition import Partitioning, RowRange
from distcluster.storage.array_store import READ_ERRORS, READERS, Array, ArrayStore, at_once, begin, checksum
from distcluster.storage.dimensions import dimensions
from distcluster.storage.layout import in_object
from distcluster.storage.records import Kept, Part, Record, Records
from distcluster.storage.run_arrays import ONE, ItemArray, RowArray

if TYPE_CHECKING:
    import zarr

_Write = tuple[int, Callable[[], dict[str, int]]]  # bytes before they are encoded, and what writes them
_LARGE_BYTES = 2**23
_PARTITIONS = 16  # whose rows are read at a time


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
        """The same for some partitions, a few read at a time, in their order."""
        left = iter(partitions)
        while some := list(itertools.islice(left, _PARTITIONS)):
            yield from at_once(partial(self.read_rows, array), some)

    def read(self, array: ItemArray, item: str = ONE) -> Array:
        """An array that an item has published, checked against its record.

        Raises
        ------
        CorruptError
            When the item is not committed, or the array differs from what was committed.
        """
        return self.read_together([array], item)[0]

    def read_together(self, arrays: Sequence[ItemArray], item: str = ONE) -> list[Array]:
        """The same for arrays of one item, read at a time."""
        stage = arrays[0].stage
        record, store = self.records.read(stage, item), self.holder(stage).store
        if record is None:
            raise CorruptError(f"{stage} {item} is not committed", stage, item)

        def read(array: ItemArray) -> Array:
            path = array.at(item)
            if path not in record.arrays:
                raise CorruptError(f"{path} is no part of what {stage} {item} committed", stage, item)
            try:
                values = store.read_array(path, record.objects)
            except READ_ERRORS as error:
                raise CorruptError(f"{path} cannot be read back: {error}", stage, item) from error
            if checksum(values) != record.arrays[path]:
                raise CorruptError(f"{path} is not what {stage} {item} committed", stage, item)
            return values

        return at_once(read, arrays)

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
                values = store.get_arrays(key, [path.removeprefix(f"{key}/") for path in paths])
            except READ_ERRORS as error:
                raise CorruptError(f"{key} cannot be read back: {error}", stage, item) from error
            for path, each in zip(paths, values, strict=True):
                if checksum(each) != records[item].arrays.get(path):
                    raise CorruptError(f"{path} is not what {stage} {item} committed", stage, item)
            return values

        left = map(str, items)
        ahead = deque(begin(read, each) for each in itertools.islice(left, READERS))
        while ahead:
            values = ahead.popleft().result()
            ahead.extend(begin(read, each) for each in itertools.islice(left, 1))
            yield values

    def verify(self, stage: str, item: str) -> bool:
        """Whether everything that the item committed reads back with its checksum."""
        try:
            record = self.records.read(stage, item)
        except CorruptError:
            return False
        if record is None:
            return False
        reads: list[tuple[str, int, Callable[[], Array]]] = [
            (path, expected, partial(self.store.read_array, path, record.objects))
            for path, expected in record.arrays.items()
        ]
        for path, part in record.parts.items():
            reads.append((path, part.checksum, partial(self.store.read_rows, path, slice(part.start, part.stop))))
        try:
            return all(
                checksum(read()) == expected for path, expected, read in reads if not path.startswith(self.dropped)
            )
        except READ_ERRORS:
            return False

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
        is_new: bool = False,
    ) -> Kept:
        """Write everything that belongs to an item of a stage, then its record.

        The old record goes first, then everything is written and flushed, and the record comes last.

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
        is_new : bool
            The item has no record: the driver has seen to it for all of the stage.
        """
        if not is_new:
            self.records.discard(stage, item)
        writes: list[_Write] = []
        parts: dict[str, Part] = {}
        checksums: dict[str, int] = {}
        together: dict[str, dict[str, Array]] = {}
        for each, values in (rows or {}).items():
            index, path = int(item), each.path
            of_rows = each.counts == "rows"
            start = index * (self.partitioning.partition_rows if of_rows else self.partitioning.partition_blocks)
            writes.append((values.nbytes, partial(self.store.write_part, path, start, values)))
            parts[path] = Part(start, start + len(values), checksum(values))
        for array, values in (arrays or {}).items():
            path = array.at(item)
            checksums[path] = checksum(values)
            if inside := in_object(path):
                together.setdefault(inside[0], {})[inside[1]] = values
            else:
                named = dimensions(array, values.ndim)
                writes.append((values.nbytes, partial(self.store.write_array, path, values, named)))
        for key, own in together.items():
            writes.append((sum(each.nbytes for each in own.values()), partial(self.store.put_arrays, key, own)))
        sizes = self._written(writes)
        self.store.flush(list(sizes))
        return self.records.write(stage, item, Record(dict(facts), parts, checksums, sizes, seconds, uuid.uuid4().hex))

    def _written(self, writes: Sequence[_Write]) -> dict[str, int]:
        """Write objects, many at a time, for a store answers in its own time; gives their sizes.

        Large ones come one after the other: each is encoded in memory.
        """
        sizes: dict[str, int] = {}
        for n_bytes, write in writes:
            if n_bytes > _LARGE_BYTES:
                self.require_lease()
                sizes |= write()
        self.require_lease()
        for found in at_once(lambda write: write(), (write for n_bytes, write in writes if n_bytes <= _LARGE_BYTES)):
            sizes |= found
        return sizes
