"""Rows at the end of an input that has grown: checked before anything changes, then given their place in the run."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from distcluster import storage
from distcluster.errors import JobError
from distcluster.numerics.partition import RowRange
from distcluster.numerics.sampling import invalid_rows, why_invalid
from distcluster.stages.cost import Cost
from distcluster.stages.stage import Output, Stage, one
from distcluster.stages.subsampling import InvalidRow, as_float32
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE, RowArray

_READ_ROWS = 16_384  # at a time


@dataclass(frozen=True, slots=True)
class NewRows:
    """An item of ``check_new_rows``: rows that are not in the run yet."""

    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.start}-{self.stop}"


@dataclass(frozen=True, slots=True)
class NewRowFacts:
    """The first of some rows that cannot be clustered, or None."""

    first_invalid: InvalidRow | None


def new_rows(run: Run, n_rows: int) -> list[NewRows]:
    """The rows that a run lacks of so many, as many at a time as a partition has."""
    first, size = run.partitioning.n_rows, run.partitioning.partition_rows
    return [NewRows(start, min(start + size, n_rows)) for start in range(first, n_rows, size)]


def check_new_rows(run: Run, item: NewRows) -> Output[NewRowFacts]:
    """Look for a row that cannot be clustered."""
    table, metric, size = run.job.input, run.job.projection.metric, _READ_ROWS
    array = storage.inputs.open_input(run.input_url, table.array, table.raw)
    for start in range(item.start, item.stop, size):
        raw = storage.inputs.read_block(array, run.input_url, RowRange(0, start, min(start + size, item.stop)))
        rows = as_float32(raw)
        wrong = invalid_rows(rows, metric)
        if wrong.any():
            row = int(wrong.argmax())
            return Output(NewRowFacts(InvalidRow(start + row, why_invalid(raw[row], rows[row], metric))))
    return Output(NewRowFacts(None))


CHECK_NEW_ROWS = Stage(
    "check_new_rows",
    check_new_rows,
    facts=NewRowFacts,
    items=lambda _run: [],
    reads=(),
    commits=False,
    cost=lambda _: Cost(tasks=0),  # only where rows are appended
)


def refuse_invalid(found: Collection[NewRowFacts]) -> None:
    """Refuse new rows that cannot be clustered; the run is as it was.

    Raises
    ------
    JobError
        Naming the first.
    """
    first = min((each.first_invalid for each in found if each.first_invalid), key=lambda each: each.row, default=None)
    if first is not None:
        raise JobError(
            f"row {first.row} cannot be clustered ({first.why}), one of those to be appended. Nothing was changed: "
            f'mend the input, or make a new run with input.on_invalid = "skip".'
        )


def grow(run: Run, n_rows: int, again: Collection[Stage[Any]], arrays: Collection[RowArray], **changes: Any) -> None:
    """Give more rows their place in a run; cut short at any point, the run can be opened and gone on with.

    What was made of a last partition that was not full does not count any more (``Stage.committed``): it is made again
    with what comes to it, the old rows' results with the same bytes.

    Parameters
    ----------
    run : Run
        Held by this process.
    n_rows : int
        That it is to have.
    again : collection of Stage
        Those whose records do not tell how many rows they are of, of the last partition or of all: made again.
    arrays : collection of RowArray
        Those of the run.
    **changes
        Other settings that change.

    Raises
    ------
    JobError
        When so many rows do not go into the run's partitions.
    """
    before = run.settings
    try:
        parts = replace(before.partitioning, n_rows=n_rows)
    except ValueError as error:
        raise JobError(f"{error}, in a new run.") from error
    is_full = before.partitioning.n_rows % before.partitioning.partition_rows == 0
    for stage in again:
        if stage.items is one:
            run.records.discard(stage.name, ONE)
        elif not is_full:
            run.records.discard(stage.name, str(len(before.partitioning) - 1))
    run.update(
        partitioning=parts,
        input=replace(before.input, shape=(n_rows, before.input.shape[1])),
        appended=(*before.appended, before.partitioning.n_rows),
        **changes,
    )
    run.make_arrays(arrays)
