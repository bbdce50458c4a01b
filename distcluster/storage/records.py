"""Records: what says that an item of a stage is complete, typed and checked when they are read."""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from distcluster.errors import CorruptError
from distcluster.storage.array_store import ArrayStore, at_once, entity_tag

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it lies in the store: with its entity tag, which the next that is written there does not have."""

    tag: str
    record: Record


_FEW = 16  # records that are read one by one
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


def collection_key(stage: str) -> str:
    """The object that holds copies of a stage's records.

    Examples
    --------
    >>> collection_key("scan")
    'commit/scan.json'
    """
    return f"commit/{stage}.json"


class Records:
    """The records of one run.

    Parameters
    ----------
    store : ArrayStore
    dropped : callable
        The paths that have been emptied since: what lay there is not missed.
    before_change : callable
        Called before a record is written or discarded; raises where that is not this process's to do.
    are_kept : bool
        A record that was found is not read again.
    elsewhere : callable, optional
        Of a stage, the records of the run that has its results, where that is another one.
    """

    def __init__(
        self,
        store: ArrayStore,
        dropped: Callable[[], Iterable[str]],
        before_change: Callable[[], None],
        *,
        are_kept: bool = False,
        elsewhere: Callable[[str], "Records | None"] = lambda _stage: None,
    ) -> None:
        self._store = store
        self._dropped = dropped
        self._before_change = before_change
        self._elsewhere = elsewhere
        self._found: dict[str, Record] | None = {} if are_kept else None
        self._stages: dict[tuple[str, str], dict[str, Kept]] | None = None
        self._listed: dict[str, set[str]] = {}  # of each stage, the items that had a record when it was last looked at

    @contextmanager
    def read_once(self) -> Iterator[None]:
        """While nobody writes to the run: what was found is not asked for again."""
        before, self._found, self._stages = self._found, {}, {}
        try:
            yield
        finally:
            self._found, self._stages = before, None

    def read(self, stage: str, item: str) -> Record | None:
        """What an item of a stage committed, or None.

        Raises
        ------
        CorruptError
            When the record cannot be read (torn by a machine that lost power) or is not one.
        """
        if (others := self._elsewhere(stage)) is not None:
            return others.read(stage, item)
        key = record_key(stage, item)
        if self._found is not None and key in self._found:
            return self._found[key]
        content = self._store.get(key)
        try:
            record = None if content is None else parsed(Record, content, key)
        except ValueError as error:
            raise CorruptError(str(error), stage, item) from error
        if self._found is not None and record is not None:
            self._found[key] = record
        return record

    def write(self, stage: str, item: str, record: Record) -> Kept:
        """Publish a record; whatever it names has been written and flushed before."""
        self._before_change()
        key = record_key(stage, item)
        tag = self._store.put(key, json.dumps(asdict(record)).encode())
        self._store.flush([key])
        if self._found is not None:
            self._found[key] = record
        return Kept(tag, record)

    def collect(self, stage: str, kept: Mapping[str, Kept]) -> None:
        """Keep a copy of a stage's many records in one object, for those who read them all."""
        if len(kept) >= _FEW:
            self._before_change()
            self._store.put(collection_key(stage), _reader(dict[str, Kept]).dump_json(kept))

    def kept(self, stage: str, under: str = "") -> dict[str, Kept]:
        """All records of a stage, or of its items ``under/...``; unreadable ones are left out, as if never written.

        A copy in the stage's collection counts where the record still has its entity tag.
        """
        if (others := self._elsewhere(stage)) is not None:
            return others.kept(stage, under)
        if self._stages is None:
            return self._read_stage(stage, under)
        if (stage, under) not in self._stages:
            found = self._stages[stage, under] = self._read_stage(stage, under)
            assert self._found is not None
            self._found |= {record_key(stage, item): each.record for item, each in found.items()}
        return self._stages[stage, under]

    def _read_stage(self, stage: str, under: str) -> dict[str, Kept]:
        folder = f"commit/{stage}"
        tags = {
            each["path"].removeprefix(f"{folder}/").removesuffix(".json"): entity_tag(each)
            for each in self._store.listed(f"{folder}/{under}".rstrip("/"))
            if each["path"].endswith(".json") and not each["path"].endswith("zarr.json")
        }
        self._listed.setdefault(stage, set()).update(tags)
        copies = self._collection(stage) if len(tags) >= _FEW and not under else {}

        found = {item: copies[item] for item, tag in tags.items() if item in copies and copies[item].tag == tag != ""}

        def find(item: str) -> Kept | None:
            try:
                record = self.read(stage, item)
            except CorruptError:
                return None
            return None if record is None else Kept(tags[item], record)

        missing = [item for item in tags if item not in found]
        found |= {item: each for item, each in zip(missing, at_once(find, missing), strict=True) if each}
        return {item: found[item] for item in tags if item in found}

    def _collection(self, stage: str) -> dict[str, Kept]:
        content = self._store.get(collection_key(stage))
        try:
            return {} if content is None else parsed(dict[str, Kept], content, collection_key(stage))
        except ValueError:  # torn by a machine that lost power
            return {}

    def of_stage(self, stage: str, under: str = "") -> dict[str, Record]:
        """As ``kept``, without the tags."""
        return {item: each.record for item, each in self.kept(stage, under).items()}

    def committed(self, stage: str, under: str = "") -> dict[str, Kept]:
        """Records whose every object exists with the size that was committed, or was dropped since."""
        if (others := self._elsewhere(stage)) is not None:
            return others.committed(stage, under)
        kept = self.kept(stage, under)
        objects = (key for each in kept.values() for key in each.record.objects)
        prefixes = {"/".join(key.split("/")[:2]).removesuffix("/c") for key in objects}
        # A listing is a request for each thousand, one after the other.
        sizes = {key: size for found in at_once(self._sizes_under, prefixes) for key, size in found.items()}
        dropped = tuple(f"{path}/" for path in self._dropped())
        return {
            item: each
            for item, each in kept.items()
            if all(sizes.get(key) == size for key, size in each.record.objects.items() if not key.startswith(dropped))
        }

    def _sizes_under(self, prefix: str) -> dict[str, int]:
        return {item["path"]: item["size"] for item in self._store.listed(prefix)}

    def discard(self, stage: str, *items: str) -> None:
        """Forget that items were committed, so that they are done again."""
        self._before_change()
        keys = [record_key(stage, item) for item in items]
        self._store.delete(keys)
        if self._found is not None:
            for key in keys:
                self._found.pop(key, None)

    def discard_stale(self, stage: str, items: Iterable[str]) -> None:
        """Discard those of some items that had a record when the stage was last looked at."""
        stale = self._listed.pop(stage, set()).intersection(items)
        if stale:
            self.discard(stage, *sorted(stale))

    def forget(self, stage: str) -> None:
        """Discard every item of a stage."""
        self._before_change()
        self._store.delete(self._store.keys_under(f"commit/{stage}"))
