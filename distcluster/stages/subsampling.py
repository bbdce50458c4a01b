"""The input, read and checked once, and the two subsamples of its rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distcluster import numerics, storage
from distcluster.errors import InputChangedError
from distcluster.job import subsample_sizes
from distcluster.numerics.partition import RowRange
from distcluster.numerics.sampling import (
    SubsampleSizes,
    invalid_rows,
    sampling_priority,
    select_subsamples,
    spread,
    why_invalid,
)
from distcluster.stages.context import read_model
from distcluster.stages.cost import REDUCE_SECONDS, Cost, Sizes
from distcluster.stages.stage import Output, Stage, one, partitions
from distcluster.storage import layout
from distcluster.storage.array_store import checksum
from distcluster.storage.run import Run

Float32 = npt.NDArray[np.float32]

_SHOWN_ROWS = 5  # invalid rows that a message names
_SPREAD_ROWS = 1_000  # of the UMAP subsample

READ_SECONDS = 1.2e-8
"""Of reading a value of the input: decoded, checked, its checksum taken."""


def as_float32(block: npt.NDArray[Any]) -> Float32:
    """Rows as float32, C order; a negative zero becomes zero, so that equal rows have equal bytes."""
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and so invalid
        return np.ascontiguousarray(block, np.float32) + np.float32(0.0)


# --- reading ----------------------------------------------------------------------------------------------------


def _raw_blocks(run: Run, partition: RowRange) -> Iterator[tuple[RowRange, npt.NDArray[Any], bool]]:
    """The blocks of a partition as the input has them, and whether each is what the scan saw."""
    array = storage.inputs.open_input(run.input_url, run.job.input.array, run.job.input.raw)
    first = partition.start // run.partitioning.block_rows
    n_blocks = -(-len(partition) // run.partitioning.block_rows)
    expected = run.read_rows(layout.CHECKSUM, RowRange(partition.index, first, first + n_blocks))
    for block in run.partitioning.blocks(partition):
        raw = storage.inputs.read_block(array, run.input_url, block)
        yield block, raw, checksum(raw) == int(expected[block.index - first])


def read_blocks(run: Run, partition: RowRange) -> Iterator[tuple[RowRange, Float32, npt.NDArray[np.bool_]]]:
    """The blocks of a partition: rows, and which are valid.

    Raises
    ------
    InputChangedError
        When a block is not what the scan saw.
    """
    for block, raw, is_same in _raw_blocks(run, partition):
        if not is_same:
            raise changed(run, block.start)
        rows = as_float32(raw)
        yield block, rows, ~invalid_rows(rows, run.job.projection.metric)


def changed(run: Run, row: int, n_partitions: int = 1) -> InputChangedError:
    """The error for an input that is not what the scan saw, naming the first block that differs."""
    stop = min(row + run.partitioning.block_rows, run.partitioning.n_rows)
    more = f", and {n_partitions - 1:,} other partitions differ too" if n_partitions > 1 else ""
    return InputChangedError(
        f"rows {row:,} to {stop - 1:,} of {run.input_url} are not what the scan of this run saw{more}: "
        f"the input was changed. Restore it, or choose another output."
    )


# --- scan -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that cannot be clustered, and why."""

    row: int
    why: str


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """Invalid rows of a partition: how many, and the first five."""

    n_invalid: int
    first_invalid: tuple[InvalidRow, ...]


def scan(run: Run, index: int) -> Output[ScanFacts]:
    """Check every row of a partition, take the blocks' checksums, and gather its rows of the subsamples."""
    job, parts = run.job, run.partitioning
    array = storage.inputs.open_input(run.input_url, job.input.array, job.input.raw)
    bound = np.uint64(run.settings.priority_bound)
    checksums, rows_taken, taken = [], [], []
    n_invalid, first_invalid = 0, list[InvalidRow]()
    for block in parts.blocks(parts[index]):
        raw = storage.inputs.read_block(array, run.input_url, block)
        checksums.append(checksum(raw))
        rows = as_float32(raw)
        wrong = invalid_rows(rows, job.projection.metric)
        n_invalid += int(wrong.sum())
        for row in np.flatnonzero(wrong)[: _SHOWN_ROWS - len(first_invalid)]:
            why = why_invalid(raw[row], rows[row], job.projection.metric)
            first_invalid.append(InvalidRow(int(block.start + row), why))
        numbers = np.arange(block.start, block.stop)
        chosen = np.flatnonzero((sampling_priority(job.sample.seed, parts.n_rows, numbers) <= bound) & ~wrong)
        rows_taken.append(numbers[chosen])
        taken.append(rows[chosen])
    return Output(
        ScanFacts(n_invalid, tuple(first_invalid)),
        rows={layout.CHECKSUM: np.array(checksums, np.uint64)},
        arrays={layout.SCANNED_ROW: np.concatenate(rows_taken), layout.SCANNED_VECTOR: np.concatenate(taken)},
    )


SCAN = Stage(
    "scan",
    scan,
    facts=ScanFacts,
    items=partitions,
    reads=(),
    unit="rows",
    reads_input=True,
    cost=lambda sizes: Cost(
        tasks=sizes.partitions,
        seconds=sizes.n_rows * sizes.n_features * READ_SECONDS,
        bytes_read=sizes.n_rows * sizes.n_features * sizes.itemsize,
    ),
)


@dataclass(frozen=True, slots=True)
class CheckFacts:
    """First row of a partition's first block that is not what the scan saw, or None."""

    first_changed: int | None


def check_input(run: Run, index: int) -> Output[CheckFacts]:
    """Compare every block of a partition with what the scan saw."""
    differing = (block.start for block, _, is_same in _raw_blocks(run, run.partitioning[index]) if not is_same)
    return Output(CheckFacts(next(differing, None)))


CHECK_INPUT = Stage(
    "check_input",
    check_input,
    facts=CheckFacts,
    items=partitions,
    reads=("scan",),
    unit="rows",
    reads_input=True,
    commits=False,
    cost=lambda _: Cost(tasks=0),  # only where the input's objects are not those that were last checked
)


def n_valid(run: Run) -> int:
    """The number of rows that can be clustered."""
    return run.partitioning.n_rows - sum(each.n_invalid for each in SCAN.facts_of_all(run, partitions(run)))


# --- subsample --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SubsampleFacts:
    """Rows of the UMAP and the mixture subsample, of both, valid, in neither, and distinct in the UMAP subsample.

    ``spread`` is the mean squared distance of some of its rows to their mean; ``added`` the rows, in both, that topped
    them up.
    """

    sample: int
    mixture: int
    overlap: int
    n_valid: int
    n_held_out: int
    distinct: int
    spread: float
    added: int


@dataclass(frozen=True, slots=True)
class Draw:
    """Both subsamples as they are drawn: positions among ``rows``, whose ``vectors`` are as in the input."""

    sizes: SubsampleSizes
    n_valid: int
    rows: npt.NDArray[np.int64]
    vectors: Float32
    sample: npt.NDArray[np.int64]
    mixture: npt.NDArray[np.int64]


def draw(run: Run) -> Draw:
    """Draw the two subsamples from what the scan gathered."""
    job, parts, valid = run.job, run.partitioning, n_valid(run)
    sizes = subsample_sizes(job, valid)
    scanned = run.read_items([layout.SCANNED_ROW, layout.SCANNED_VECTOR], partitions(run))
    rows, vectors = map(np.concatenate, zip(*scanned, strict=True))
    if len(rows) < sizes.total:
        more_rows, more_vectors = _read_valid_rows_above(run, sizes.total - len(rows))
        rows, vectors = np.concatenate([rows, more_rows]), np.concatenate([vectors, more_vectors])
    sample, mixture = select_subsamples(rows, sampling_priority(job.sample.seed, parts.n_rows, rows), sizes)
    return Draw(sizes, valid, rows, vectors, sample, mixture)


def subsample(run: Run) -> Output[SubsampleFacts]:
    """Take the two subsamples from what the scan gathered, topped up where the job asks for it."""
    drawn, metric = draw(run), run.job.projection.metric
    more_rows, more_vectors = _rare_rows(run, drawn)
    # By turns, so that neither subsample gets the other's rows.
    sample_row, mixture_row = (
        np.concatenate([drawn.rows[own], more_rows[i::2]]) for i, own in enumerate((drawn.sample, drawn.mixture))
    )
    sample, mixture = (
        numerics.prepared_rows.prepare(np.concatenate([drawn.vectors[own], more_vectors[i::2]]), metric)
        for i, own in enumerate((drawn.sample, drawn.mixture))
    )
    distinct = numerics.prepared_rows.distinct_rows(sample)
    return Output(
        SubsampleFacts(
            sample=len(sample),
            mixture=len(mixture),
            overlap=drawn.sizes.overlap,
            n_valid=drawn.n_valid,
            n_held_out=drawn.n_valid - drawn.sizes.total - len(more_rows),
            distinct=len(distinct),
            spread=spread(sample[:_SPREAD_ROWS]),
            added=len(more_rows),
        ),
        arrays={
            layout.SAMPLE_ROW: sample_row,
            layout.MIXTURE_ROW: mixture_row,
            layout.SAMPLE: sample[distinct],
            layout.MIXTURE_SAMPLE: mixture,
        },
    )


def _rare_rows(run: Run, drawn: Draw) -> tuple[npt.NDArray[np.int64], Float32]:
    """Rows of rare groups that are in neither subsample, the first of the permutation."""
    if not run.job.sample.top_up:
        return np.empty(0, np.int64), np.empty((0, drawn.vectors.shape[1]), np.float32)
    found = run.read_items([layout.RARE_ROW, layout.RARE_VECTOR], partitions(run))
    rows, vectors = map(np.concatenate, zip(*found, strict=True))
    priority = sampling_priority(run.job.sample.seed, run.partitioning.n_rows, rows)
    first = np.lexsort((rows, priority))[: most_rare_rows(drawn.sizes.sample)]
    return rows[first], vectors[first]


def most_rare_rows(sample_rows: int) -> int:
    """Rows that a top-up adds at most, to both subsamples together."""
    return sample_rows // 5


def _read_valid_rows_above(run: Run, missing: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """Valid rows whose priority lies above the scan's bound, lowest first, at least ``missing`` of them.

    Only where so many rows are invalid that the scan gathered too few: one more pass, in this one task.
    """
    job, parts = run.job, run.partitioning
    bound = np.uint64(run.settings.priority_bound)
    kept_rows = np.empty(0, np.int64)
    kept_vectors = np.empty((0, run.settings.input.shape[1]), np.float32)
    for index in range(len(parts)):
        for block, rows, valid in read_blocks(run, parts[index]):
            numbers = np.arange(block.start, block.stop)
            chosen = np.flatnonzero((sampling_priority(job.sample.seed, parts.n_rows, numbers) > bound) & valid)
            kept_rows = np.concatenate([kept_rows, numbers[chosen]])
            kept_vectors = np.concatenate([kept_vectors, rows[chosen]])
            best = np.argsort(sampling_priority(job.sample.seed, parts.n_rows, kept_rows), kind="stable")[:missing]
            kept_rows, kept_vectors = kept_rows[best], kept_vectors[best]
    return kept_rows, kept_vectors


def _subsample_cost(sizes: Sizes) -> Cost:
    row_bytes = 4 * sizes.n_features
    both = sizes.sample_rows + sizes.mixture_rows
    return Cost(
        tasks=1,
        seconds=sizes.partitions * REDUCE_SECONDS,
        bytes_written=both * row_bytes,
        memory_bytes=3 * both * row_bytes,  # as gathered, side by side, chosen
    )


SUBSAMPLE = Stage(
    "subsample",
    subsample,
    facts=SubsampleFacts,
    items=one,
    reads=("scan",),
    cost=_subsample_cost,
    drops=(layout.SCANNED,),
)


def part_shapes(run: Run) -> list[tuple[int, int]]:
    """Shapes of the parts, of a block's rows, in which both subsamples are read: UMAP's, then the mixtures'."""
    size, D = run.partitioning.block_rows, run.settings.input.shape[1]
    facts = SUBSAMPLE.facts_of(run)
    return [(min(size, n - i), D) for n in (facts.distinct, facts.mixture) for i in range(0, n, size)]


def read_part(run: Run, part: int) -> Float32:
    """One of ``part_shapes``, prepared rows."""
    size = run.partitioning.block_rows
    both = [read_model(run, array) for array in (layout.SAMPLE, layout.MIXTURE_SAMPLE)]
    starts = [(vectors, i) for vectors in both for i in range(0, len(vectors), size)]
    vectors, start = starts[part]
    return np.asarray(vectors[start : start + size])
