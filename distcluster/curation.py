"""Rows of a run for training data: tables of them as files, and samples that are balanced over clusters."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from distcluster.errors import JobError
from distcluster.job import ReportTable
from distcluster.numerics.balanced import first_of_each, nested_shares
from distcluster.numerics.partition import RowRange
from distcluster.numerics.sampling import sampling_priority
from distcluster.report.near_duplicates import found_duplicates
from distcluster.stages.refining import published_mixture
from distcluster.storage import layout
from distcluster.storage.items import stream_items
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import RowArray

Int64 = npt.NDArray[np.int64]


def write_rows(table: pd.DataFrame, target: Path, *, is_parquet: bool) -> None:
    """Write a table as Parquet or CSV; a file that is there is refused.

    Raises
    ------
    JobError
    """
    refuse_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = pa.Table.from_pandas(table, preserve_index=False)
    if is_parquet:
        pq.write_table(content, target)
    else:
        csv.write_csv(content, target)


def refuse_target(target: Path) -> None:
    """Refuse a file that is there already.

    Raises
    ------
    JobError
    """
    if target.exists():
        raise JobError(f"{target} is there already: choose another place, or remove it.")


# --- samples ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of a run are wanted.

    Attributes
    ----------
    balanced : int or None
        So many rows, balanced over the clusters; None: all.
    level : int or None
        Balanced over the level of the hierarchy with so many clusters, then over what each of them holds.
    seed : int
    without_duplicates : float or None
        Of duplicates within this distance the first row alone.
    """

    balanced: int | None = None
    level: int | None = None
    seed: int = 0
    without_duplicates: float | None = None


def choose_rows(run: Run, wanted: Wanted) -> Int64:
    """The rows that are wanted, ascending: a function of the run's results and the seed.

    Within a cluster they are those whose numbers come first in the random order of ``sampling_priority``. Rows without
    a label are in no sample.

    Raises
    ------
    JobError
        When there are not so many, or no such level, or duplicates have not been looked for.
    """
    if wanted.balanced is None and wanted.level is not None:
        raise JobError("--level goes with --balanced.")
    if wanted.balanced is not None and wanted.balanced < 1:
        raise JobError(f"--balanced {wanted.balanced}: must be 1 or more.")
    if wanted.seed < 0:
        raise JobError(f"--seed {wanted.seed}: must be 0 or more.")
    levels = _levels(run, wanted.level)
    copies = np.empty(0, np.int64)
    if wanted.without_duplicates is not None:
        row, representative, _ = found_duplicates(run, wanted.without_duplicates)
        copies = row[row != representative]
    if wanted.balanced is None:
        return np.setdiff1d(np.arange(run.partitioning.n_rows), copies, assume_unique=True)
    size = np.zeros(published_mixture(run).candidate.n_components, np.int64)
    for _, label in _labelled(run, copies):
        size += np.bincount(label, minlength=len(size))
    if wanted.balanced > size.sum():
        of = " that are no copies" if wanted.without_duplicates is not None else ""
        raise JobError(f"--balanced {wanted.balanced:,}: the run has {size.sum():,} rows with a label{of}.")
    shares = nested_shares(size, levels, wanted.balanced)
    kept, kept_label = np.empty(0, np.int64), np.empty(0, np.int32)
    for row, label in _labelled(run, copies):
        kept, kept_label = np.concatenate([kept, row]), np.concatenate([kept_label, label])
        first = first_of_each(kept_label, sampling_priority(wanted.seed, run.partitioning.n_rows, kept), shares)
        kept, kept_label = kept[first], kept_label[first]
    return kept


def _levels(run: Run, level: int | None) -> list[npt.NDArray[np.integer]]:
    """Each cluster's cluster at a level and at the finer ones, the coarsest first."""
    if level is None:
        return []
    ks, levels = run.read(layout.LEVEL_CLUSTERS).tolist(), run.read(layout.LEVEL)
    if level not in ks:
        there = ", ".join(map(str, ks)) or "none"
        raise JobError(f"--level {level}: the run has no such level of its hierarchy; it has {there}.")
    of_level = dict(zip(ks, levels, strict=True))
    return [of_level[k] for k in sorted(ks) if k >= level]


def _labelled(run: Run, copies: Int64) -> Iterator[tuple[Int64, npt.NDArray[np.int32]]]:
    """Rows with a label, and the label, by partition, without some ascending ones."""
    for index in range(len(run.partitioning)):
        partition = run.partitioning[index]
        label = run.read_rows(layout.LABEL, partition)
        taken = label >= 0
        first, stop = np.searchsorted(copies, (partition.start, partition.stop))
        taken[copies[first:stop] - partition.start] = False
        yield np.flatnonzero(taken) + partition.start, label[taken]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a partition: ``here`` in it, at ``place`` in what is written, and their items."""

    run: Run
    partition: RowRange
    here: slice | Int64
    place: slice
    texts: list[str | None] | None

    @property
    def rows(self) -> Int64:
        """Their numbers."""
        return np.arange(self.partition.start, self.partition.stop)[self.here]

    def read(self, array: RowArray) -> Any:
        """What an array of the run has of them."""
        return self.run.read_rows(array, self.partition)[self.here]


def read_parts(run: Run, table: ReportTable, rows: Int64 | None) -> Iterator[Part]:
    """The partitions that hold some of the rows, one at a time, so that memory does not grow with N."""
    partitions = [run.partitioning[index] for index in range(len(run.partitioning))]
    items = stream_items(table.items, map(len, partitions), table.item_column) if table.items else repeat(None)
    for partition, texts in zip(partitions, items, strict=False):
        if rows is None:
            yield Part(run, partition, slice(None), partition.rows, texts)
            continue
        first, stop = np.searchsorted(rows, (partition.start, partition.stop)).tolist()
        if first < stop:
            here = rows[first:stop] - partition.start
            of_rows = None if texts is None else [texts[each] for each in here.tolist()]
            yield Part(run, partition, here, slice(first, stop), of_rows)
