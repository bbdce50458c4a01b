"""What a job's sizes are, and what one stage costs at these sizes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the costs of a job depend on.

    Attributes
    ----------
    n_rows, n_features : int
        N and D.
    n_searched : int
        Features that the index compares: D, or the principal components that the job asks for.
    sample_rows, mixture_rows : int
        S and M.
    n_neighbors, top, n_views : int
    n_components : int
        d.
    dimensions : int
        Of all projections together.
    itemsize : int
        Bytes of an input value.
    partitions, partition_rows, groups : int
        Tasks of a stage over all rows, their rows, and tasks of a reduction over all rows.
    block_rows : int
    candidates, ks, components, largest_k : int
        Of the grid: its points, its distinct ks, the sum of their ks and the largest one.
    has_top_up, has_auto_grid, has_pca, has_previous, is_refined : bool
    replicates : int
    """

    n_rows: int
    n_features: int
    n_searched: int
    sample_rows: int
    mixture_rows: int
    n_neighbors: int
    top: int
    n_views: int
    n_components: int
    dimensions: int
    itemsize: int
    partitions: int
    partition_rows: int
    groups: int
    block_rows: int
    candidates: int
    ks: int
    components: int
    largest_k: int
    has_top_up: bool
    has_auto_grid: bool
    has_pca: bool
    has_previous: bool
    is_refined: bool
    replicates: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stage costs.

    Attributes
    ----------
    tasks : int
        Of one iteration, where the stage is one of an iteration's.
    seconds : float
        Of all tasks together on the machine of docs/performance.md; without seconds where they are few.
    bytes_read, bytes_written : int
        Of the input and to the run, decoded.
    memory_bytes : int
        Of one task, beside the models that a worker keeps.
    is_iterated : bool
    """

    tasks: int
    seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    memory_bytes: int = 0
    is_iterated: bool = False


REDUCE_SECONDS = 6e-4
"""Of a single task, to read and add up what one partition has left, many read at the same time."""


def one_reduction(sizes: Sizes) -> Cost:
    """A single task that reads what every partition has left."""
    return Cost(tasks=1, seconds=sizes.partitions * REDUCE_SECONDS)


def one_task(_sizes: Sizes) -> Cost:
    """A single task that costs next to nothing."""
    return Cost(tasks=1)
