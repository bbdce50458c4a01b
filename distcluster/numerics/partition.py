"""Row ranges: which rows one task handles, and in which order partial sums are added."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK_ROWS = 16_384
"""Rows of a block, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows ``start`` to ``stop - 1``, the ``index``-th range of its kind (block or partition)."""

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        """The range as a slice of the global rows."""
        return slice(self.start, self.stop)


_MOST_PARTITIONS = 1_000_000  # each has a record for every stage, which the driver lists
_MOST_ROWS = 2**60


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How N rows are cut into blocks (the unit of sums) and partitions (the unit of tasks).

    Attributes
    ----------
    n_rows : int
        N, rows of the input.
    block_rows : int
        Rows of a block; sums are taken over blocks, so this is part of a run's identity.
    partition_rows : int
        Rows of a partition: ``block_rows`` times a power of two. Results do not depend on it.

    Raises
    ------
    ValueError
        When a number cannot be, or ``partition_rows`` is not ``block_rows`` times a power of two.

    Examples
    --------
    >>> parts = Partitioning(n_rows=1000, block_rows=100, partition_rows=400)
    >>> [len(part) for part in parts]
    [400, 400, 200]
    >>> [block.index for block in parts.blocks(parts[1])]
    [4, 5, 6, 7]
    """

    n_rows: int
    block_rows: int
    partition_rows: int

    def __post_init__(self) -> None:
        if not (1 <= self.n_rows <= _MOST_ROWS and 1 <= self.block_rows <= _MOST_ROWS):
            raise ValueError(f"{self.n_rows:,} rows in blocks of {self.block_rows:,}: that cannot be")
        blocks, rest = divmod(self.partition_rows, self.block_rows)
        if rest or blocks < 1 or blocks & (blocks - 1):
            raise ValueError(
                f"partition_rows is {self.partition_rows:,}; it must be block_rows ({self.block_rows:,}) "
                f"times 1, 2, 4, 8 or another power of two"
            )
        if len(self) > _MOST_PARTITIONS:
            raise ValueError(
                f"{self.n_rows:,} rows make {len(self):,} partitions of {self.partition_rows:,} rows, more than "
                f"{_MOST_PARTITIONS:,}: make assign.partition_rows larger"
            )

    @property
    def n_blocks(self) -> int:
        """Number of blocks; the last may be short."""
        return -(-self.n_rows // self.block_rows)

    @property
    def partition_blocks(self) -> int:
        """Blocks of a whole partition, a power of two."""
        return self.partition_rows // self.block_rows

    def __len__(self) -> int:
        return -(-self.n_rows // self.partition_rows)

    def __getitem__(self, index: int) -> RowRange:
        if not 0 <= index < len(self):
            raise IndexError(f"partition {index} of {len(self)}")
        start = index * self.partition_rows
        return RowRange(index, start, min(start + self.partition_rows, self.n_rows))

    def blocks(self, partition: RowRange) -> Iterator[RowRange]:
        """Yield the blocks of a partition, in row order, with their global block index."""
        for start in range(partition.start, partition.stop, self.block_rows):
            yield RowRange(start // self.block_rows, start, min(start + self.block_rows, partition.stop))


_GROUP_ROWS = 2**22  # of a reduction task: some seconds of work, beside which a task's own cost is small
_LEAST_GROUP_ROWS = 2**17  # below which a task's own cost is larger than its work: a tenth of a second
_GROUPS = 1_024  # at least, where there are so many partitions: work for as many workers


def groups(parts: Partitioning) -> list[range]:
    """Partitions that one reduction task takes: aligned powers of two, so that each gives a node of ``tree_sum``.

    Examples
    --------
    >>> groups(Partitioning(n_rows=64 * 65_536, block_rows=16_384, partition_rows=65_536))[:2]
    [range(0, 2), range(2, 4)]
    """
    size = 1
    while (rows := 2 * size * parts.partition_rows) <= _LEAST_GROUP_ROWS or (
        rows <= _GROUP_ROWS and 2 * size * _GROUPS <= len(parts)
    ):
        size *= 2
    return [range(first, min(first + size, len(parts))) for first in range(0, len(parts), size)]


def tree_sum(values: Iterable[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Add ``values[0] ... values[n-1]`` in one fixed binary tree; a missing sibling passes through.

    Floating-point sums depend on their order. A partition is an aligned power of two blocks, so the sum of its
    blocks is a whole node of the tree over all blocks: summing partitions of any size gives the same bits.

    Parameters
    ----------
    values : iterable of (...) float64, at least one
        Read one by one; no more than log2 n sums are held.

    Returns
    -------
    (...) float64

    Examples
    --------
    The order matters, and partitions of two blocks have the tree's:

    >>> values = [np.array(x) for x in (0.1, 0.2, 0.3, 0.6)]
    >>> print(sum(values), tree_sum(values), tree_sum([tree_sum(values[:2]), tree_sum(values[2:])]))
    1.2000000000000002 1.2 1.2
    """
    nodes: list[tuple[int, npt.NDArray[np.float64]]] = []  # height and sum of whole subtrees, the highest first
    for value in values:
        height, node = 0, np.asarray(value, np.float64)
        while nodes and nodes[-1][0] == height:
            left = nodes.pop()[1]
            node = np.add(left, node, out=left if height else np.empty_like(left))  # a leaf is the caller's
            height += 1
        nodes.append((height, node))
    total = nodes.pop()[1]
    while nodes:
        total = nodes.pop()[1] + total
    return total


def tree_sums(values: Iterable[Sequence[npt.NDArray[np.float64]]]) -> list[npt.NDArray[np.float64]]:
    """``tree_sum`` of several sequences that are read together, each of arrays of one shape.

    Examples
    --------
    >>> tree_sums([[np.array(1.0), np.array(2.0)], [np.array(3.0), np.array(4.0)]])
    [array(4.), array(6.)]
    """
    shapes: list[tuple[int, ...]] = []

    def packed() -> Iterator[npt.NDArray[np.float64]]:
        for several in values:
            shapes[:] = [np.shape(each) for each in several]
            yield np.concatenate([np.ravel(each) for each in several])

    total = tree_sum(packed())
    stops = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(total, stops[:-1]), shapes, strict=True)]
