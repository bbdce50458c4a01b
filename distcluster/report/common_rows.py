"""The rows that two runs have in common, and how their labels meet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from distcluster.errors import JobError, StorageError
from distcluster.numerics.partition import RowRange
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.matching import block_checksums, equal_blocks
from distcluster.storage import layout
from distcluster.storage.array_store import checksum
from distcluster.storage.input_columns import open_input_column, readable_id
from distcluster.storage.inputs import input_version, open_input, read_block
from distcluster.storage.run import Run

Labels = npt.NDArray[np.int32]
RecognisedBy = Literal["position", "id"]


@dataclass(frozen=True, slots=True)
class CommonRows:
    """The rows of two runs that are the same, counted by both labels.

    Attributes
    ----------
    counts : (K, other K) int64
        Those that have a label in both.
    n_common : int
        All of them.
    recognised_by : "position" or "id"
    """

    counts: npt.NDArray[np.int64]
    n_common: int
    recognised_by: RecognisedBy


def count_common_rows(run: Run, other: Run) -> CommonRows:
    """Count the rows that two finished runs have in common by both labels.

    Runs of one input have the same rows at the same places. Otherwise rows with the same id are the same, where both
    jobs name a column of ids that can be read (an id that occurs twice in a run says nothing and counts as none), and
    without ids those in blocks with the same bytes under the same number: an input, and the same with rows at its end.

    Labels are read by partition. By position memory does not grow with N; by id it holds 12 bytes of every row of both.

    Raises
    ------
    JobError
        When there are none.
    CorruptError
        When a label cannot be read back.
    """
    blocks = _equal_blocks(run, other)
    is_one_input = sum(map(len, blocks)) == run.partitioning.n_rows == other.partitioning.n_rows
    ids = (None, None) if is_one_input else (readable_id(run), readable_id(other))
    is_by_id = None not in ids
    pairs = _by_id(run, other, ids) if is_by_id else _by_position(run, other, blocks)
    K, other_K = (SELECT_CANDIDATE.facts_of(each).n_components for each in (run, other))
    counts, n_common = np.zeros(K * other_K, np.int64), 0
    for label, other_label in pairs:
        n_common += len(label)
        both = (label >= 0) & (other_label >= 0)
        counts += np.bincount(label[both] * np.int64(other_K) + other_label[both], minlength=len(counts))
    if not counts.any():
        raise JobError(_no_common_rows(run, other, n_common, is_by_id=is_by_id))
    return CommonRows(counts.reshape(K, other_K), n_common, "id" if is_by_id else "position")


def _no_common_rows(run: Run, other: Run, n_common: int, *, is_by_id: bool) -> str:
    if n_common:
        return f"no row has a label both in {run.url} and in {other.url}: input.on_invalid left them out."
    if not is_by_id:
        return (
            f"{run.url} and {other.url} have no rows in common: no block of their inputs has the same bytes under the "
            f"same number, and not both jobs name a column of ids that can be read. Name one (input.id) in both."
        )
    return f"{run.url} and {other.url} have no rows in common: no id of one is an id of the other."


# --- by position ------------------------------------------------------------------------------------------------


def _equal_blocks(run: Run, other: Run) -> list[RowRange]:
    """The blocks of equal bytes, under the same number."""
    parts, others = run.partitioning, other.partitioning
    if (parts.block_rows, run.settings.input.dtype) != (others.block_rows, other.settings.input.dtype):
        return []
    is_equal = equal_blocks(block_checksums(run), block_checksums(other))
    shorter, longer = sorted((run, other), key=lambda each: each.partitioning.n_rows)
    fewer = shorter.partitioning
    if fewer.n_rows < longer.partitioning.n_rows and not is_equal[fewer.n_blocks - 1]:
        is_equal[fewer.n_blocks - 1] = _has_grown(shorter, longer)
    partitions = [fewer[index] for index in range(len(fewer))]
    return [block for partition in partitions for block in fewer.blocks(partition) if is_equal[block.index]]


def _has_grown(shorter: Run, longer: Run) -> bool:
    """Whether the last block of a run, which is not full, begins the block of a longer run's input."""
    parts = shorter.partitioning
    rows = RowRange(0, (parts.n_blocks - 1) * parts.block_rows, parts.n_rows)
    made = longer.around or longer
    try:
        if input_version(made.input_url) not in (None, made.settings.input_version):
            return False
        array = open_input(made.input_url, longer.job.input.array, longer.job.input.raw)
        found = checksum(read_block(array, made.input_url, rows))
    except (JobError, StorageError, OSError):  # it has gone: then those rows are not seen to be common
        return False
    return found == int(block_checksums(shorter)[-1])


def _by_position(run: Run, other: Run, blocks: list[RowRange]) -> Iterator[tuple[Labels, Labels]]:
    return zip(_labels(run, blocks), _labels(other, blocks), strict=True)


def _labels(run: Run, blocks: list[RowRange]) -> Iterator[Labels]:
    size = run.partitioning.partition_rows
    return run.read_partitions(layout.LABEL, [RowRange(each.start // size, each.start, each.stop) for each in blocks])


# --- by id ------------------------------------------------------------------------------------------------------


def _by_id(run: Run, other: Run, names: tuple[str | None, str | None]) -> Iterator[tuple[Labels, Labels]]:
    (key, label), (other_key, other_label) = map(_labelled_ids, (run, other), names)
    _, here, there = np.intersect1d(key, other_key, assume_unique=True, return_indices=True)
    yield label[here], other_label[there]


def _labelled_ids(run: Run, name: str | None) -> tuple[npt.NDArray[np.uint64], Labels]:
    """The hashes of the ids that occur once, and the labels of their rows."""
    assert name is not None
    column = open_input_column(run, name, "input.id")
    parts = [run.partitioning[index] for index in range(len(run.partitioning))]
    keys = np.concatenate([_hashes(np.asarray(column[partition.rows])) for partition in parts])
    labels = np.concatenate(list(run.read_partitions(layout.LABEL, parts)))
    key, first, count = np.unique(keys, return_index=True, return_counts=True)
    return key[count == 1], labels[first[count == 1]]


def _hashes(ids: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """64 bits of every id as a text: of a hundred million, any two have the same with a probability of 0.0003."""
    texts = np.array([str(each) for each in ids.tolist()], object)
    return np.asarray(pd.util.hash_array(texts, categorize=False), np.uint64)
