"""What a stage is: declared once, and read by everything that runs, shows, verifies, plans or deletes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from distcluster.errors import CorruptError
from distcluster.stages.cost import Cost, Sizes
from distcluster.storage.array_store import Array
from distcluster.storage.layout import arrays
from distcluster.storage.records import Kept, Record, parsed, record_key
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE, ItemArray, RowArray

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class NoFacts:
    """The facts of a stage that has none."""


@dataclass(frozen=True, slots=True)
class Output(Generic[F]):
    """What a task gives to be committed: small facts, rows of its partition, arrays of its own."""

    facts: F
    rows: Mapping[RowArray, Array] = field(default_factory=dict)
    arrays: Mapping[ItemArray, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage(Generic[F]):
    """One stage of the flow.

    Attributes
    ----------
    name : str
        In records, in messages, and on the progress line.
    task : callable
        ``task(run, item)``, or ``task(run)`` where the stage is one task; reads what it needs from the run, computes
        in one thread, and returns what is to be committed. It can be repeated at any time, by anyone. None where the
        driver computes the stage as Dask collections.
    facts : type
        A frozen dataclass: the small values that an item commits.
    items : callable
        Of a run, all items of the stage, or None where earlier stages decide and have not run.
    reads : tuple of str
        The stages whose outputs its tasks read.
    cost : callable
        Of a job's sizes, what ``plan`` counts for it.
    unit : "rows" or "tasks"
        What its progress is counted in; "rows" where an item is a partition.
    priority : int
        Dask's: lower gives way.
    line : str
        The name that people see it under, where several stages are one thing to them; by default its own. A line's
        progress is that of its last stage.
    drops : tuple of str
        Paths that nobody needs once the stage is complete.
    is_result : bool
        A run is finished when all stages with results are complete.
    on_request : bool
        It is no part of a run that is to be finished: a person asks for it, on any day.
    commits : bool
        False: the stage only checks, and gives its facts back to the driver.
    reads_input : bool
        Each of its items is a partition, all of whose rows it reads in the input.
    """

    name: str
    task: Callable[..., Output[F]] | None
    facts: type[F]
    items: Callable[[Run], Sequence[Any] | None]
    reads: tuple[str, ...]
    cost: Callable[[Sizes], Cost]
    unit: Literal["rows", "tasks"] = "tasks"
    priority: int = 0
    line: str = ""
    drops: tuple[str, ...] = ()
    is_result: bool = False
    on_request: bool = False
    commits: bool = True
    reads_input: bool = False

    @property
    def shown_as(self) -> str:
        """The name of its progress line."""
        return self.line or self.name

    @property
    def writes(self) -> list[RowArray | ItemArray]:
        """The arrays that its tasks fill."""
        return [each for each in arrays() if each.stage == self.name]

    def find_facts(self, run: Run, item: object = ONE) -> F | None:
        """What an item committed, or None.

        Raises
        ------
        CorruptError
            When its record cannot be read or does not fit ``facts``.
        """
        record = run.records.read(self.name, str(item))
        return None if record is None else self.parse(record.facts, str(item))

    def facts_of(self, run: Run, item: object = ONE) -> F:
        """What an item committed.

        Raises
        ------
        CorruptError
            When it has committed nothing, or its record does not fit ``facts``.
        """
        found = self.find_facts(run, item)
        if found is None:
            raise CorruptError(f"{self.name} {item} is not committed", self.name, str(item))
        return found

    def committed(self, run: Run, under: str = "") -> dict[str, Kept]:
        """Records of the stage, or of its items ``under/...``, whose objects are all there and whose facts fit.

        One of a partition that rows were appended to since does not count.
        """
        found, parts = run.records.committed(self.name, under), run.holder(self.name).partitioning
        of_rows = {each.path for each in self.writes if isinstance(each, RowArray) and each.counts == "rows"}

        def reaches_to_the_end(record: Record, item: str) -> bool:
            if not (item.isdecimal() and int(item) < len(parts)):
                return True
            stop = parts[int(item)].stop
            return all(part.stop == stop for path, part in record.parts.items() if path in of_rows)

        return {
            item: each
            for item, each in found.items()
            if self.fits(each.record.facts, item) and reaches_to_the_end(each.record, item)
        }

    def fits(self, facts: Mapping[str, object], item: str) -> bool:
        """Whether a record's facts are this stage's."""
        try:
            self.parse(facts, item)
        except CorruptError:
            return False
        return True

    def all_facts(self, run: Run) -> dict[str, F]:
        """What all items have committed so far, by item."""
        return {item: self.parse(record.facts, item) for item, record in run.records.of_stage(self.name).items()}

    def facts_of_all(self, run: Run, items: Sequence[object]) -> list[F]:
        """What each of some items committed.

        Raises
        ------
        CorruptError
            When one has committed nothing, or its record does not fit ``facts``.
        """
        found = self.all_facts(run)
        missing = next((str(item) for item in items if str(item) not in found), None)
        if missing is not None:
            raise CorruptError(f"{self.name} {missing} is not committed", self.name, missing)
        return [found[str(item)] for item in items]

    def parse(self, facts: Mapping[str, object], item: str) -> F:
        """The facts of a record as the stage's own type.

        Raises
        ------
        CorruptError
            When they do not fit, naming the record's file and the keys.
        """
        try:
            return parsed(self.facts, json.dumps(facts).encode(), f"{record_key(self.name, item)}: facts")
        except ValueError as error:
            raise CorruptError(str(error), self.name, item) from error


def one(_run: Run) -> list[str]:
    """The items of a stage that is one task."""
    return [ONE]


def partitions(run: Run) -> range:
    """The items of a stage that has a task a partition."""
    return range(len(run.partitioning))
