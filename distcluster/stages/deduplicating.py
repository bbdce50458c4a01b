"""Near duplicates: rows that are equal, and rows within a cosine distance, grouped over all partitions."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.errors import JobError
from distcluster.numerics.partition import RowRange
from distcluster.stages.context import open_run, read_model
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.stage import NoFacts, Output, Stage, partitions
from distcluster.stages.subsampling import read_blocks
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.storage.settings import RunRef

if TYPE_CHECKING:
    from distcluster.numerics.near_pairs import CodedRows, Sketch

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

EQUAL = 0.0
"""The distance of rows with equal values; they are found by their hashes, before all others."""

_SLAB_BYTES = 2**27  # of float32 rows: a task of ``compare_rows`` holds two slabs, and its worker keeps one
_SLABS = 16  # at least, where there are so many partitions: work for as many workers
_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Part:
    """An item of the search for pairs within a distance: a partition, or a pair of slabs, by its number."""

    distance: float
    number: int

    def __str__(self) -> str:
        return f"{self.distance}/{self.number}"


def require_distance(distance: float, name: str) -> float:
    """The distance, as a number that names what is found.

    Raises
    ------
    JobError
        When it is not from 0 to below 1.
    """
    if not 0.0 <= distance < 1.0:  # NaN is refused, too
        raise JobError(f"{name} {distance:g}: must be 0, for equal rows, or a cosine distance below 1, such as 0.01.")
    return float(distance) + 0.0  # no -0.0, which has another name


def _only_when_asked(_sizes: Sizes) -> Cost:
    return Cost(tasks=0)


def parts_at(run: Run, distance: float) -> list[Part]:
    """The partitions, at a distance."""
    return [Part(distance, index) for index in partitions(run)]


# --- equal rows -------------------------------------------------------------------------------------------------


def hash_rows(run: Run, index: int) -> Output[NoFacts]:
    """A 128-bit hash of every valid row of a partition: equal rows have equal ones, and no others are known to."""
    rows, hashes = [np.empty(0, np.int64)], [b""]
    for block, vectors, valid in read_blocks(run, run.partitioning[index]):
        here = np.flatnonzero(valid)
        rows.append(here + block.start)
        hashes += [blake2b(vectors[row], digest_size=_HASH_BYTES).digest() for row in here]
    found = np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2)
    return Output(NoFacts(), arrays={layout.HASHED["row"]: np.concatenate(rows), layout.HASHED["hash"]: found})


HASH_ROWS = Stage(
    "hash_rows",
    hash_rows,
    facts=NoFacts,
    items=partitions,
    reads=("scan",),
    unit="rows",
    reads_input=True,
    cost=_only_when_asked,
    on_request=True,
)


def _equal_rows(run: Run) -> tuple[Int64, Int64]:
    """Rows that are equal to another one, ascending, and the first row of each one's group."""
    found = run.read_items(list(layout.HASHED.values()), partitions(run))
    rows, hashes = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((rows, hashes[:, 0], hashes[:, 1]))
    rows, hashes = rows[order], hashes[order]
    begins = np.append(True, (hashes[1:] != hashes[:-1]).any(axis=1))
    group = np.cumsum(begins) - 1
    first, is_repeated = rows[begins][group], np.bincount(group)[group] > 1
    ascending = np.argsort(rows[is_repeated], kind="stable")
    return rows[is_repeated][ascending], first[is_repeated][ascending]


# --- pairs within a distance ------------------------------------------------------------------------------------


def slabs(run: Run) -> list[range]:
    """Partitions whose rows a task holds together: of 128 MiB at most, and not fewer than sixteen where they can be."""
    parts, D = run.partitioning, run.settings.input.shape[1]
    most = max(1, _SLAB_BYTES // (4 * D * parts.partition_rows))
    size = min(most, -(-len(parts) // _SLABS))
    return [range(first, min(first + size, len(parts))) for first in range(0, len(parts), size)]


def pairs_of_slabs(run: Run, distance: float) -> list[Part]:
    """Every pair of slabs, and each with itself."""
    n = len(slabs(run))
    return [Part(distance, number) for number in range(n * (n + 1) // 2)]


def _pair(number: int) -> tuple[int, int]:
    """The slabs of a pair: (0, 0), (0, 1), (1, 1), (0, 2), ...

    Examples
    --------
    >>> [_pair(number) for number in range(5)]
    [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    """
    second = int(((8 * number + 1) ** 0.5 - 1) / 2)
    while second * (second + 1) // 2 > number:
        second -= 1
    while (second + 1) * (second + 2) // 2 <= number:
        second += 1
    return number - second * (second + 1) // 2, second


def sketch_rows(run: Run, distance: float) -> Output[NoFacts]:
    """How rows are coded, for the least work at this distance, by the UMAP subsample."""
    sketch = numerics.near_pairs.fit_sketch(read_model(run, layout.SAMPLE), distance)
    return Output(NoFacts(), arrays={layout.SKETCH["axes"]: sketch.axes, layout.SKETCH["centres"]: sketch.centres})


SKETCH_ROWS = Stage(
    "sketch_rows",
    sketch_rows,
    facts=NoFacts,
    items=lambda _run: [],
    reads=("subsample",),
    cost=_only_when_asked,
    on_request=True,
)


def compare_rows(run: Run, part: Part) -> Output[NoFacts]:
    """Pairs of two slabs' rows that connect all that lie within the distance; of equal rows the first is compared."""
    first, second = _pair(part.number)
    right = _second_slab(run.ref, part.distance, second)
    left = right if first == second else _coded_rows(run, part.distance, first)
    pairs = numerics.near_pairs.join_near(left, right, _sketch(run, part.distance), part.distance)
    return Output(NoFacts(), arrays={layout.NEAR_PAIRS: pairs})


@functools.lru_cache(maxsize=1)
def _second_slab(ref: RunRef, distance: float, slab: int) -> "CodedRows":
    """The rows of a slab: pairs that follow one another have the second one in common."""
    return _coded_rows(open_run(ref), distance, slab)


def _coded_rows(run: Run, distance: float, slab: int) -> "CodedRows":
    rows, vectors = _distinct_rows(run, slabs(run)[slab])
    return numerics.near_pairs.code_rows(rows, vectors, _sketch(run, distance))


def _sketch(run: Run, distance: float) -> "Sketch":
    return numerics.near_pairs.Sketch(*(read_model(run, array, distance) for array in layout.SKETCH.values()))


def _distinct_rows(run: Run, indices: range) -> tuple[Int64, Float32]:
    """Rows of some partitions that have a direction, without those that are equal to an earlier one."""
    equal, first = (read_model(run, array, EQUAL) for array in layout.GROUPED.values())
    copies = equal[equal != first]
    rows, vectors = [np.empty(0, np.int64)], [np.empty((0, run.settings.input.shape[1]), np.float32)]
    for index in indices:
        for block, of_block, valid in read_blocks(run, run.partitioning[index]):
            taken = valid & of_block.any(axis=1)
            taken[_within(copies, block) - block.start] = False
            rows.append(np.flatnonzero(taken) + block.start)
            vectors.append(of_block[taken])
    return np.concatenate(rows), np.concatenate(vectors)


def _within(rows: Int64, of: RowRange) -> Int64:
    """Those of some ascending rows that lie in a range."""
    first, stop = np.searchsorted(rows, (of.start, of.stop))
    return rows[first:stop]


COMPARE_ROWS = Stage(
    "compare_rows",
    compare_rows,
    facts=NoFacts,
    items=lambda _run: [],
    reads=("scan", "sketch_rows", "group_duplicates"),
    cost=_only_when_asked,
    on_request=True,
)


# --- groups -----------------------------------------------------------------------------------------------------


def group_duplicates(run: Run, distance: float) -> Output[NoFacts]:
    """The rows in groups, ascending, and the first of each one's group."""
    rows, first = _equal_rows(run) if distance == EQUAL else _connected_rows(run, distance)
    return Output(NoFacts(), arrays={layout.GROUPED["row"]: rows, layout.GROUPED["first"]: first})


def _connected_rows(run: Run, distance: float) -> tuple[Int64, Int64]:
    """Rows that are connected with others by pairs within the distance, and the first of each one's group."""
    near, parent = numerics.near_pairs, np.arange(run.partitioning.n_rows)
    near.unite(parent, np.stack([run.read(array, str(EQUAL)) for array in layout.GROUPED.values()], 1))
    for (pairs,) in run.read_items([layout.NEAR_PAIRS], pairs_of_slabs(run, distance), str(distance)):
        near.unite(parent, pairs)
    first = near.roots(parent)
    rows = np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1)
    return rows, first[rows]


GROUP_DUPLICATES = Stage(
    "group_duplicates",
    group_duplicates,
    facts=NoFacts,
    items=lambda _run: [],
    reads=("hash_rows", "compare_rows", "group_duplicates"),
    cost=_only_when_asked,
    on_request=True,
)


# --- how far from the first -------------------------------------------------------------------------------------


def gather_firsts(run: Run, part: Part) -> Output[NoFacts]:
    """The first rows of groups that lie in a partition."""
    first = np.unique(read_model(run, layout.GROUPED["first"], part.distance))
    rows, vectors = _some_rows(run, part.number, first)
    return Output(NoFacts(), arrays={layout.GATHERED["row"]: rows, layout.GATHERED["vector"]: vectors})


def _some_rows(run: Run, index: int, wanted: Int64) -> tuple[Int64, Float32]:
    """Those of some ascending rows that lie in a partition; it is read only where there are any."""
    partition = run.partitioning[index]
    rows = _within(wanted, partition)
    vectors = np.empty((len(rows), run.settings.input.shape[1]), np.float32)
    if len(rows):
        for block, of_block, _ in read_blocks(run, partition):
            here = (rows >= block.start) & (rows < block.stop)
            vectors[here] = of_block[rows[here] - block.start]
    return rows, vectors


GATHER_FIRSTS = Stage(
    "gather_firsts",
    gather_firsts,
    facts=NoFacts,
    items=lambda _run: [],
    reads=("scan", "group_duplicates"),
    cost=_only_when_asked,
    on_request=True,
)


def measure_duplicates(run: Run, part: Part) -> Output[NoFacts]:
    """The cosine distance of a partition's grouped rows to the first of their group; rows of zeros are equal ones."""
    grouped, firsts = (read_model(run, array, part.distance) for array in layout.GROUPED.values())
    rows, vectors = _some_rows(run, part.number, grouped)
    first = firsts[np.searchsorted(grouped, rows)]
    distance = np.zeros(len(rows))
    for others, of_others, here in _firsts(run, part.distance, first):
        here = here[vectors[here].any(axis=1)]
        distance[here] = numerics.near_pairs.cosine_distances(
            np.ascontiguousarray(vectors[here]), of_others, np.searchsorted(others, first[here])
        )
    return Output(NoFacts(), arrays={layout.FIRST_DISTANCE: distance})


def _firsts(run: Run, distance: float, first: Int64) -> Iterator[tuple[Int64, Float32, Int64]]:
    """The gathered rows of each partition that holds some of these first rows, and where those stand in them."""
    index = first // run.partitioning.partition_rows
    holding = np.unique(index).tolist()
    items = [Part(distance, each) for each in holding]
    gathered = run.read_items(list(layout.GATHERED.values()), items, str(distance))
    for each, (rows, vectors) in zip(holding, gathered, strict=True):
        yield rows, vectors, np.flatnonzero(index == each)


MEASURE_DUPLICATES = Stage(
    "measure_duplicates",
    measure_duplicates,
    facts=NoFacts,
    items=lambda _run: [],
    reads=("scan", "group_duplicates", "gather_firsts"),
    cost=_only_when_asked,
    on_request=True,
)


@dataclass(frozen=True, slots=True)
class DuplicateFacts:
    """Valid rows of the run, groups, and rows in them."""

    n_valid: int
    n_groups: int
    n_grouped: int


def publish_duplicates(run: Run, distance: float) -> Output[DuplicateFacts]:
    """The groups, for those who read them."""
    rows, first = (run.read(array, str(distance)) for array in layout.GROUPED.values())
    to_first = np.zeros(len(rows))
    if distance != EQUAL:
        found = run.read_items([layout.FIRST_DISTANCE], parts_at(run, distance), str(distance))
        to_first = np.concatenate([of_partition for (of_partition,) in found])
    n_valid = sum(len(of_partition) for (of_partition,) in run.read_items([layout.HASHED["row"]], partitions(run)))
    values = {"row": rows, "representative": first, "distance": to_first}
    return Output(
        DuplicateFacts(n_valid, len(np.unique(first)), len(rows)),
        arrays={layout.DUPLICATES[name]: each for name, each in values.items()},
    )


PUBLISH_DUPLICATES = Stage(
    "publish_duplicates",
    publish_duplicates,
    facts=DuplicateFacts,
    items=lambda _run: [],
    reads=("hash_rows", "group_duplicates", "measure_duplicates"),
    cost=_only_when_asked,
    on_request=True,
)
