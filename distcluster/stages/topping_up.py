"""Before the subsamples are final: rows of groups that the drawn sample holds only few of."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distcluster import numerics
from distcluster.numerics.index_facts import INDEX_ARRAYS, IndexFacts
from distcluster.numerics.sampling import sampling_priority
from distcluster.numerics.support import LOW, local_scale, support
from distcluster.stages.context import open_run, read_model
from distcluster.stages.cost import Cost, Sizes
from distcluster.stages.searching import index_seconds, search_seconds
from distcluster.stages.stage import NoFacts, Output, Stage, partitions
from distcluster.stages.subsampling import draw, most_rare_rows, read_blocks
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE
from distcluster.storage.settings import RunRef

if TYPE_CHECKING:
    from distcluster.numerics.neighbors import NeighbourIndex

LEFT = ("partial/probe_sample", "partial/find_rare")
"""Nobody needs these once the subsamples are taken."""


@dataclass(frozen=True, slots=True)
class FirstIndexFacts:
    """Rows of the sample as drawn, and how they are searched; None where too few of them are distinct.

    ``priority`` is that of the last row of the permutation that was drawn for either subsample.
    """

    sample: int
    priority: int
    search: IndexFacts | None


def probe_sample(run: Run) -> Output[FirstIndexFacts]:
    """An index over the sample as it is drawn."""
    drawn, k, metric = draw(run), run.job.projection.n_neighbors, run.job.projection.metric
    rows = drawn.rows[np.concatenate([drawn.sample, drawn.mixture])]
    last = int(sampling_priority(run.job.sample.seed, run.partitioning.n_rows, rows).max())
    sample = numerics.prepared_rows.prepare(drawn.vectors[drawn.sample], metric)
    sample = sample[numerics.prepared_rows.distinct_rows(sample)]
    if len(sample) <= k + 1:
        return Output(FirstIndexFacts(drawn.sizes.sample, last, None))
    arrays, search = numerics.neighbors.build_index(
        sample, numerics.prepared_rows.prepare(drawn.vectors[drawn.mixture], metric), k, metric
    )
    _, distance = numerics.neighbors.nearest(numerics.neighbors.open_index(arrays, search, sample), sample, k, metric)
    arrays |= {"sample": sample, "scale": local_scale(distance)}
    return Output(
        FirstIndexFacts(drawn.sizes.sample, last, search),
        arrays={layout.FIRST_INDEX[name]: values for name, values in arrays.items()},
    )


def _probe_cost(sizes: Sizes) -> Cost:
    if not sizes.has_top_up:
        return Cost(tasks=0)
    return Cost(tasks=1, seconds=index_seconds(sizes), memory_bytes=12 * sizes.sample_rows * sizes.n_features)


PROBE_SAMPLE = Stage(
    "probe_sample",
    probe_sample,
    facts=FirstIndexFacts,
    items=lambda run: [ONE] if run.job.sample.top_up else [],
    reads=("scan",),
    cost=_probe_cost,
)


@functools.lru_cache(maxsize=2)
def _first_index(ref: RunRef, search: IndexFacts) -> "NeighbourIndex":
    run = open_run(ref)
    arrays = {name: read_model(run, layout.FIRST_INDEX[name]) for name in INDEX_ARRAYS}
    return numerics.neighbors.open_index(arrays, search, read_model(run, layout.FIRST_INDEX["sample"]))


def find_rare(run: Run, index: int) -> Output[NoFacts]:
    """Rows of a partition whose group has only few rows in the drawn sample, the first of the permutation."""
    table, partition, facts = run.job.projection, run.partitioning[index], PROBE_SAMPLE.facts_of(run)
    rows, vectors = [np.empty(0, np.int64)], [np.empty((0, run.settings.input.shape[1]), np.float32)]
    if facts.search is not None:
        first, scale = _first_index(run.ref, facts.search), read_model(run, layout.FIRST_INDEX["scale"])
        for block, of_block, valid in read_blocks(run, partition):
            here = np.flatnonzero(valid)
            found = numerics.neighbors.nearest(
                first, numerics.prepared_rows.prepare(of_block[here], table.metric), table.n_neighbors, table.metric
            )
            rare = here[support(*found, scale) < LOW]
            rows.append(rare + block.start)
            vectors.append(of_block[rare])
    numbers = np.concatenate(rows)
    priority = sampling_priority(run.job.sample.seed, run.partitioning.n_rows, numbers)
    others = np.flatnonzero(priority > np.uint64(facts.priority))  # drawn ones are in the subsamples
    taken = others[np.argsort(priority[others], kind="stable")][: most_rare_rows(facts.sample)]
    return Output(
        NoFacts(), arrays={layout.RARE_ROW: numbers[taken], layout.RARE_VECTOR: np.concatenate(vectors)[taken]}
    )


def _rare_cost(sizes: Sizes) -> Cost:
    if not sizes.has_top_up:
        return Cost(tasks=0)
    return Cost(tasks=sizes.partitions, seconds=search_seconds(sizes, sizes.n_rows))


FIND_RARE = Stage(
    "find_rare",
    find_rare,
    facts=NoFacts,
    items=lambda run: partitions(run) if run.job.sample.top_up else [],
    reads=("scan", "probe_sample"),
    unit="rows",
    reads_input=True,
    cost=_rare_cost,
)
