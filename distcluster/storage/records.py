"""Records: what says that an item of a stage is complete, typed and checked when they are read."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from typing import TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from distcluster.errors import CorruptError
from distcluster.storage.array_store import ArrayStore

T = TypeVar("T")

_READERS = 16  # threads that read records: each is a small object, and a store answers in its own time


@dataclass(frozen=True, slots=True)
class Part:
    """What an item wrote to an array that many items fill: from which index to which, and the values' checksum."""

    start: int
    stop: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Record:
    """An item of a stage is complete.

    Attributes
    ----------
    facts : mapping
        The stage's own small values, as JSON; ``Stage.facts`` is their type.
    parts : mapping of str to Part
        By array of the run.
    arrays : mapping of str to int
        Checksums of the arrays that belong to the item alone, by path.
    objects : mapping of str to int
        Every object written, with its size in bytes.
    seconds : float
        That the task took, without its commit.
    id : str
        Of this commit.
    """

    facts: Mapping[str, object]
    parts: Mapping[str, Part]
    arrays: Mapping[str, int]
    objects: Mapping[str, int]
    seconds: float
    id: str


_reader = cache(TypeAdapter)


def parsed(kind: type[T], content: bytes, what: str) -> T:
    """JSON as a dataclass.

    Raises
    ------
    ValueError
        When it is no JSON or does not fit, naming ``what`` and every key that is wrong.
    """
    try:
        found: T = _reader(cast(Hashable, kind)).validate_json(content)
        return found
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in each['loc']) or 'all of it'}: {each['msg']}" for each in error.errors()
        )
        raise ValueError(f"{what} does not fit: {wrong}") from error


def record_key(stage: str, item: str) -> str:
    """The object that holds a record.

    Examples
    --------
    >>> record_key("refine_expect", "3/0")
    'commit/refine_expect/3/0.json'
    """
    return f"commit/{stage}/{item}.json"


class Records:
    """The records of one run.

    Parameters
    ----------
    store : ArrayStore
    dropped : callable
        The paths that have been emptied since: what lay there is not missed.
    before_change : callable
        Called before a record is written or discarded; raises where that is not this process's to do.
    """

    def __init__(
        self, store: ArrayStore, dropped: Callable[[], Iterable[str]], before_change: Callable[[], None]
    ) -> None:
        self._store = store
        self._dropped = dropped
        self._before_change = before_change

    def read(self, stage: str, item: str) -> Record | None:
        """What an item of a stage committed, or None.

        Raises
        ------
        CorruptError
            When the record cannot be read (torn by a machine that lost power) or is not one.
        """
        key = record_key(stage, item)
        content = self._store.get(key)
        try:
            return None if content is None else parsed(Record, content, key)
        except ValueError as error:
            raise CorruptError(str(error), stage, item) from error

    def write(self, stage: str, item: str, record: Record) -> None:
        """Publish a record; whatever it names has been written and flushed before."""
        self._before_change()
        key = record_key(stage, item)
        self._store.put(key, json.dumps(asdict(record)).encode())
        self._store.flush([key])

    def of_stage(self, stage: str, under: str = "") -> dict[str, Record]:
        """All records of a stage, or of its items ``under/...``; unreadable ones are left out, as if never written."""
        folder = f"commit/{stage}"

        def read(key: str) -> tuple[str, Record] | None:
            item = key.removeprefix(f"{folder}/").removesuffix(".json")
            try:
                record = self.read(stage, item)
            except CorruptError:
                return None
            return None if record is None else (item, record)

        keys = [key for key in self._store.keys_under(f"{folder}/{under}".rstrip("/")) if key.endswith(".json")]
        with ThreadPoolExecutor(_READERS) as threads:
            return dict(pair for pair in threads.map(read, keys) if pair)

    def committed(self, stage: str, under: str = "") -> dict[str, Record]:
        """Records whose every object exists with the size that was committed, or was dropped since."""
        records = self.of_stage(stage, under)
        objects = (key for record in records.values() for key in record.objects)
        prefixes = {key.removesuffix("/zarr.json").split("/c/")[0] for key in objects}
        sizes = {item["path"]: item["size"] for prefix in prefixes for item in self._store.listed(prefix)}
        dropped = tuple(f"{path}/" for path in self._dropped())
        return {
            item: record
            for item, record in records.items()
            if all(sizes.get(key) == size for key, size in record.objects.items() if not key.startswith(dropped))
        }

    def discard(self, stage: str, item: str) -> None:
        """Forget that an item was committed, so that it is done again."""
        self._before_change()
        self._store.delete([record_key(stage, item)])

    def forget(self, stage: str) -> None:
        """Discard every item of a stage."""
        self._before_change()
        self._store.delete(self._store.keys_under(f"commit/{stage}"))
