"""The input, read and checked once, and the two draws from it."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from distcluster.environment import pin_to_one_thread
from distcluster.errors import InputChangedError
from distcluster.job import Job, subsample_sizes
from distcluster.numerics.partition import RowRange
from distcluster.numerics.prepared_rows import distinct_rows, prepare
from distcluster.numerics.sampling import invalid_rows, priority_bound, sampling_priority, select_subsamples
from distcluster.stages.context import ONE, RunRef, job_of, model_of, open_run, record_of, task
from distcluster.storage.inputs import checksum, open_input
from distcluster.storage.run import Run

Float32 = npt.NDArray[np.float32]


def as_float32(block: npt.NDArray[Any]) -> Float32:
    """Rows as float32, C order; a negative zero becomes zero, so that equal rows have equal bytes."""
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and so invalid
        return np.ascontiguousarray(block, np.float32) + np.float32(0.0)


def new_draw_bound(job: Job, n_rows: int) -> int:
    """The priority up to which the scan gathers rows: enough for both draws, were every row valid."""
    auto = (min(50_000, n_rows // 2), min(100_000, n_rows // 4))
    sample, mixture = (
        default if asked == "auto" else asked
        for default, asked in zip(auto, (job.sample.rows, job.sample.mixture_rows), strict=True)
    )
    return priority_bound(sample + mixture, n_rows)


def read_blocks(run: Run, partition: RowRange) -> Iterator[tuple[RowRange, Float32, npt.NDArray[np.bool_]]]:
    """The blocks of a partition: rows, and which are valid.

    Raises
    ------
    InputChangedError
        When a block is not what the scan saw.
    """
    job = job_of(run)
    array = open_input(job.input.url, job.input.array)
    first = partition.start // run.partitioning.block_rows
    n_blocks = -(-len(partition) // run.partitioning.block_rows)
    expected = run.read_rows("input/checksum", RowRange(partition.index, first, first + n_blocks), "scan")
    for block in run.partitioning.blocks(partition):
        raw = np.asarray(array[block.rows])
        if checksum(raw) != int(expected[block.index - first]):
            raise InputChangedError(
                f"rows {block.start:,} to {block.stop - 1:,} of {job.input.url} are not what the scan of this run "
                f"saw: the input was changed. Restore it, or choose another output."
            )
        rows = as_float32(raw)
        yield block, rows, ~invalid_rows(rows, job.projection.metric)


@task
def scan(run: Run, index: int) -> None:
    """Check every row of a partition, take the blocks' checksums, and gather its rows of the draws."""
    job, parts = job_of(run), run.partitioning
    array = open_input(job.input.url, job.input.array)
    bound = np.uint64(run.attributes["draw_bound"])
    checksums, invalid, rows_drawn, drawn = [], [], [], []
    for block in parts.blocks(parts[index]):
        raw = np.asarray(array[block.rows])
        checksums.append(checksum(raw))
        rows = as_float32(raw)
        wrong = invalid_rows(rows, job.projection.metric)
        invalid.append(block.start + np.flatnonzero(wrong))
        numbers = np.arange(block.start, block.stop)
        chosen = np.flatnonzero((sampling_priority(job.sample.seed, parts.n_rows, numbers) <= bound) & ~wrong)
        rows_drawn.append(numbers[chosen])
        drawn.append(rows[chosen])
    wrong_rows = np.concatenate(invalid)
    run.commit(
        "scan",
        str(index),
        {"n_invalid": len(wrong_rows), "first_invalid": wrong_rows[:5].tolist()},
        parts={"input/checksum": (index * parts.partition_blocks, np.array(checksums, np.uint64))},
        models={
            f"partial/scan/{index}/row": np.concatenate(rows_drawn),
            f"partial/scan/{index}/vector": np.concatenate(drawn),
        },
    )


@task
def check_input(run: Run, index: int) -> None:
    """Compare every block of a partition with what the scan saw."""
    for _ in read_blocks(run, run.partitioning[index]):
        pass


@task
def draw(run: Run) -> None:
    """Take the two draws from what the scan gathered."""
    job, parts = job_of(run), run.partitioning
    records = [record_of(run, "scan", str(index)) for index in range(len(parts))]
    n_valid = parts.n_rows - sum(record["facts"]["n_invalid"] for record in records)
    sizes = subsample_sizes(job, n_valid)
    gathered = [run.read_model("scan", str(index)) for index in range(len(parts))]
    rows = np.concatenate([arrays[f"partial/scan/{index}/row"] for index, arrays in enumerate(gathered)])
    vectors = np.concatenate([arrays[f"partial/scan/{index}/vector"] for index, arrays in enumerate(gathered)])
    if len(rows) < sizes.total:
        more_rows, more_vectors = _read_valid_rows_above(run, sizes.total - len(rows))
        rows, vectors = np.concatenate([rows, more_rows]), np.concatenate([vectors, more_vectors])
    priority = sampling_priority(job.sample.seed, parts.n_rows, rows)
    sample, mixture = select_subsamples(rows, priority, sizes)
    prepared = prepare(vectors[sample], job.projection.metric)
    distinct = distinct_rows(prepared)
    run.commit(
        "draw",
        ONE,
        {**asdict(sizes), "n_valid": n_valid, "n_judging": n_valid - sizes.total, "distinct": len(distinct)},
        models={
            "sample/row": rows[sample],
            "sample/mixture_row": rows[mixture],
            "model/sample": prepared[distinct],
            "partial/draw": prepare(vectors[mixture], job.projection.metric),
        },
    )


def _read_valid_rows_above(run: Run, missing: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """Valid rows whose priority lies above the scan's bound, lowest first, at least ``missing`` of them.

    Only where so many rows are invalid that the scan gathered too few: one more pass, in this one task.
    """
    job, parts = job_of(run), run.partitioning
    bound = np.uint64(run.attributes["draw_bound"])
    kept_rows = np.empty(0, np.int64)
    kept_vectors = np.empty((0, run.attributes["input"]["shape"][1]), np.float32)
    for index in range(len(parts)):
        for block, rows, valid in read_blocks(run, parts[index]):
            numbers = np.arange(block.start, block.stop)
            chosen = np.flatnonzero((sampling_priority(job.sample.seed, parts.n_rows, numbers) > bound) & valid)
            kept_rows = np.concatenate([kept_rows, numbers[chosen]])
            kept_vectors = np.concatenate([kept_vectors, rows[chosen]])
            best = np.argsort(sampling_priority(job.sample.seed, parts.n_rows, kept_rows), kind="stable")[:missing]
            kept_rows, kept_vectors = kept_rows[best], kept_vectors[best]
    return kept_rows, kept_vectors


def draw_parts(ref: RunRef) -> list[tuple[int, int]]:
    """Shapes of the parts, of a block's rows, in which both draws are read: the sample's, then the mixture draw's."""
    run = open_run(ref)
    size, D = run.partitioning.block_rows, run.attributes["input"]["shape"][1]
    facts = record_of(run, "draw")["facts"]
    return [(min(size, n - i), D) for n in (facts["distinct"], facts["mixture"]) for i in range(0, n, size)]


def read_draw_part(ref: RunRef, part: int) -> Float32:
    """One of ``draw_parts``, prepared rows."""
    pin_to_one_thread()  # and what follows on this worker: the decomposition's own tasks
    run = open_run(ref)
    size, models = run.partitioning.block_rows, model_of(run, "draw")
    starts = [(name, i) for name in ("model/sample", "partial/draw") for i in range(0, len(models[name]), size)]
    name, start = starts[part]
    return np.asarray(models[name][start : start + size])
