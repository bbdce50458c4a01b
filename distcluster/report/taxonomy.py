"""A taxonomy: the labels of the rows, one or several a row, read by partition and numbered."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from distcluster.errors import JobError
from distcluster.numerics.partition import Partitioning
from distcluster.storage.arrow_columns import ArrowEntries
from distcluster.storage.files import open_entries, stream_lines
from distcluster.url import Url

Int64 = npt.NDArray[np.int64]

_MOST_CLASSES = 10_000  # a column that has more is no taxonomy, and its table would not fit
_MOST_SETS = 100_000  # of classes that rows have together
_BETWEEN = "\t"  # the labels of a row


@dataclass
class Taxonomy:
    """Numbers of the classes, and of the sets of them that rows have, in the order in which they are met.

    Attributes
    ----------
    url : Url
        For messages, without credentials.
    numbers : dict of str to int
        By class.
    members : list of list of int
        The classes of each set; where no row has several, one each.
    """

    url: Url
    numbers: dict[str, int] = field(default_factory=dict)
    members: list[list[int]] = field(default_factory=list)
    _codes: dict[str, int] = field(default_factory=lambda: {"": -1})

    @property
    def classes(self) -> list[str]:
        """Their names, by number."""
        return list(self.numbers)

    def codes(self, rows: Iterable[str]) -> Int64:
        """The number of each row's set of classes; -1 where it has none.

        Raises
        ------
        JobError
            When there are too many classes, or sets of them.
        """
        codes = np.array([self._code(row) for row in rows], np.int64)
        for found, most, what in (
            (self.numbers, _MOST_CLASSES, "classes"),
            (self.members, _MOST_SETS, "different sets of classes"),
        ):
            if len(found) > most:
                raise JobError(
                    f"report.labels: {self.url} has more than {most:,} {what}, too many for a taxonomy; give coarser "
                    f"labels."
                )
        return codes

    def _code(self, row: str) -> int:
        if row not in self._codes:
            names = sorted({name.strip() for name in row.split(_BETWEEN)} - {""})
            whole = _BETWEEN.join(names)  # the same set in another order, or with a label twice
            if whole not in self._codes:
                self._codes[whole] = len(self.members)
                self.members.append([self.numbers.setdefault(name, len(self.numbers)) for name in names])
            self._codes[row] = self._codes[whole]
        return self._codes[row]

    def by_class(self, of_sets: Int64) -> Int64:
        """Rows by class, (C, K), from rows by set, (S, K): a row counts once for each of its classes."""
        table = np.zeros((len(self.numbers), of_sets.shape[1]), np.int64)
        for members, counts in zip(self.members, of_sets, strict=True):
            table[members] += counts
        return table

    def has(self, codes: Int64) -> npt.NDArray[np.bool_]:
        """Which classes rows have, (n, C) bool, from the numbers of their sets, (n,)."""
        found = np.zeros((len(codes), len(self.numbers)), np.bool_)
        for row, code in enumerate(codes):
            if code >= 0:
                found[row, self.members[code]] = True
        return found


def read_labels(url: Url, parts: Partitioning) -> Iterator[tuple[int, list[str]]]:
    """The labels of each partition's rows, with its first row; several of a row with tabs between them.

    Parameters
    ----------
    url : Url
        A text file of N lines, or a Zarr array: (N,) strings or integers; (N, m) strings, empty ones for none; or
        (N, C) indicators, whose attribute ``classes`` may name the columns.
    parts : Partitioning

    Raises
    ------
    JobError
        When there are not N labels, or indicators are neither 0 nor 1.
    """
    array = open_entries(url, "report.labels", dimensions=(1, 2))
    if array is not None:
        _refuse_length(url, array.shape[0], parts)
        for index in range(len(parts)):
            yield parts[index].start, _of_array(np.asarray(array[parts[index].rows]), array, url)
        return
    names: list[str] = []
    start = 0
    for line in stream_lines(url):
        names.append(line.strip())
        if start + len(names) > parts.n_rows:
            _refuse_length(url, start + len(names), parts)
        if len(names) == parts.partition_rows:
            yield start, names
            start, names = start + len(names), []
    _refuse_length(url, start + len(names), parts)
    if names:
        yield start, names


def _of_array(values: npt.NDArray[Any], array: zarr.Array[Any] | ArrowEntries, url: Url) -> list[str]:
    """One string a row."""
    if values.ndim == 1:
        return [str(value) for value in values]
    if values.dtype.kind in "UTO":
        return [_BETWEEN.join(map(str, row)) for row in values]
    if not np.isin(values, (0, 1)).all():
        raise JobError(
            f"report.labels: {url} has the shape {array.shape} and other numbers than 0 and 1: columns are "
            f"indicators, one a class, or else strings."
        )
    classes = [str(name) for name in array.attrs.get("classes", range(array.shape[1]))]  # type: ignore[union-attr]
    if len(classes) != array.shape[1]:
        raise JobError(
            f"report.labels: the attribute classes of {url} names {len(classes):,} of its {array.shape[1]:,} columns."
        )
    return [_BETWEEN.join(classes[column] for column in np.flatnonzero(row)) for row in values]


def _refuse_length(url: Url, n_labels: int, parts: Partitioning) -> None:
    if n_labels != parts.n_rows:
        more = "or more " if n_labels > parts.n_rows else ""
        raise JobError(
            f"report.labels: {url} has {n_labels:,} {more}labels, the run {parts.n_rows:,} rows: it must "
            f"have one a row, in the rows' order."
        )
