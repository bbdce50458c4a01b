"""Labels, clusters, the hierarchy over them, and how far the projection can be trusted."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.numerics.partition import RowRange, tree_sum
from distcluster.numerics.shown_rows import (
    HELD_OUT_ROWS,
    SHOWN,
    Table,
    columns_of,
    moment_sums,
    notable_rows,
    row_table,
    spread_evenly,
    spread_rows,
)
from distcluster.stages.context import read_model, read_models, reading_around
from distcluster.stages.cost import Cost, Sizes, one_task
from distcluster.stages.projecting import PROJECT_ROWS, project_into, read_points, views
from distcluster.stages.refining import chosen_mixture
from distcluster.stages.stage import NoFacts, Output, Stage, one, partitions
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ItemArray, RowArray

if TYPE_CHECKING:
    from distcluster.numerics.mixture.assignment import Assignment

Float32 = npt.NDArray[np.float32]

_FEW_HELD_OUT = 1_000  # below which any rows are taken
EXEMPLARS = 10
"""Rows kept for each component, nearest to its mean."""

_SUMMARY_SECONDS = 6.4e-4  # to read and merge what a partition has left
_TRUST_ROWS = 2_048  # of the mixture subsample: trustworthiness costs the square
_TRUST_BYTES = 6 * 8 * _TRUST_ROWS**2  # in scikit-learn
_STABILITY_SECONDS = 2e-6  # a row
_DENSITY_ROWS = 8_192  # of the UMAP subsample: a standard error of about 0.02 nats


# --- about the run ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProjectionQuality:
    """How far the projection can be trusted.

    Attributes
    ----------
    trustworthiness : float or None
        On rows that it was not fitted on; None where they are too few.
    sample_log_density, other_log_density : float
        Mean log density of rows that it was fitted on, and of others, nats per row.
    """

    trustworthiness: float | None
    sample_log_density: float
    other_log_density: float


def measure_projection(run: Run) -> Output[ProjectionQuality]:
    """How far the projection can be trusted: on rows that it was not fitted on, and on those that it was."""
    some = slice(None, None, -(-len(read_model(run, layout.SAMPLE_SCALE)) // _DENSITY_ROWS))
    of_sample = project_into(
        run,
        "projection",
        np.ascontiguousarray(read_model(run, layout.SAMPLE_NEIGHBOURS)[some]),
        np.ascontiguousarray(read_model(run, layout.SAMPLE_DISTANCES)[some]),
    )
    mixture, assign_rows = chosen_mixture(run), numerics.mixture.assignment.assign_rows
    densities = (assign_rows(rows, mixture, top=1).log_density for rows in (of_sample, read_points(run)))
    return Output(ProjectionQuality(_trustworthiness(run), *(float(each.mean(dtype=np.float64)) for each in densities)))


def _trustworthiness(run: Run) -> float | None:
    if run.settings.around is not None:  # whose projection it is
        with reading_around(run) as around:
            return MEASURE_PROJECTION.facts_of(around).trustworthiness
    from sklearn.manifold import trustworthiness  # a second to import; only this task needs it

    points, vectors = read_points(run), read_model(run, layout.MIXTURE_SAMPLE)
    some = slice(None, None, -(-len(points) // _TRUST_ROWS))
    few = min(run.job.projection.n_neighbors, (len(points[some]) - 1) // 2)
    return float(trustworthiness(vectors[some], points[some], n_neighbors=few)) if few else None


MEASURE_PROJECTION = Stage(
    "measure_projection",
    measure_projection,
    facts=ProjectionQuality,
    items=one,
    reads=("subsample", "build_index", "fit_umap", "project_subsample", "select_candidate", "publish_mixture"),
    cost=lambda _: Cost(tasks=1, memory_bytes=_TRUST_BYTES),
    is_result=True,
)


def merge_components(run: Run) -> Output[NoFacts]:
    """The tree over the chosen components, from the mixture subsample."""
    responsibility, _ = numerics.mixture.assignment.responsibilities(
        read_points(run)[: numerics.hierarchy.HIERARCHY_ROWS], chosen_mixture(run)
    )
    tree = numerics.hierarchy.build_hierarchy(
        responsibility, read_model(run, layout.MIXTURE_SAMPLE)[: numerics.hierarchy.HIERARCHY_ROWS]
    )
    cuts = numerics.hierarchy.levels(tree.merges, run.job.assign.levels)
    return Output(
        NoFacts(),
        arrays={
            layout.LEVEL: np.array(list(cuts.values()), np.int32).reshape(len(cuts), len(tree.merges) + 1),
            layout.LEVEL_CLUSTERS: np.array(list(cuts), np.int64),
            layout.MERGE: tree.merges,
            layout.MERGE_RULE: np.array(tree.rules, np.dtypes.StringDType()),
            layout.MERGE_VALUE: tree.values,
        },
    )


MERGE_COMPONENTS = Stage(
    "merge_components",
    merge_components,
    facts=NoFacts,
    items=one,
    reads=("subsample", "project_subsample", "select_candidate", "publish_mixture"),
    cost=one_task,
    is_result=True,
)


def level_arrays(run: Run) -> list[RowArray]:
    """The row arrays of the levels: none before the hierarchy is there."""
    if MERGE_COMPONENTS.find_facts(run) is None:
        return []
    return [layout.LEVEL_LABEL.of(k) for k in run.read(layout.LEVEL_CLUSTERS).tolist()]


# --- rows -------------------------------------------------------------------------------------------------------


UNSURE = 0.5
"""The probability below which no cluster has the better half of a row."""


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """Rows of a partition with a probability below 0.5."""

    n_unsure: int


def label_rows(run: Run, index: int) -> Output[LabelFacts]:
    """Labels and probabilities of a partition; its part of the cluster summaries, and of what the report shows."""
    parts = run.partitioning
    partition = parts[index]
    mixture = chosen_mixture(run)
    rows = run.read_rows(layout.PROJECTION, partition)
    result = numerics.mixture.assignment.assign_rows(rows, mixture, run.job.assign.top)
    exemplar, distance = numerics.mixture.assignment.nearest_to_means(
        rows, result.label, mixture, partition.start, EXEMPLARS
    )
    K = mixture.candidate.n_components
    probability_sums = []
    for block in parts.blocks(partition):
        here = slice(block.start - partition.start, block.stop - partition.start)
        valid = result.label[here] >= 0
        label, probability = result.label[here][valid], result.probability[here][valid]
        probability_sums.append(np.bincount(label, probability, K).astype(np.float64))
    known = numerics.row_stability.RowStability(*read_models(run, layout.ROW_STABILITY.values()))
    stability = known.of_rows(rows, result.label)
    table = _results(run, partition, rows, result, stability)
    return Output(
        LabelFacts(int((table["probability"] < UNSURE).sum())),
        rows={
            **{array: getattr(result, name) for name, array in layout.ASSIGNMENT.items()},
            layout.STABILITY: stability,
            **_at_levels(run, result.label),
        },
        arrays={
            layout.SHOWN_ROWS: spread_rows(table, parts.n_rows),
            layout.NOTABLE_ROWS: notable_rows(table),
            layout.MOMENT_SUMS: moment_sums(table, K),
            layout.PARTIAL_SIZE: np.bincount(result.label[result.label >= 0], minlength=K),
            layout.PARTIAL_PROBABILITY: tree_sum(probability_sums),
            layout.PARTIAL_EXEMPLAR: exemplar,
            layout.PARTIAL_EXEMPLAR_DISTANCE: distance,
        },
    )


def _at_levels(run: Run, label: npt.NDArray[np.int32]) -> dict[RowArray, npt.NDArray[np.int32]]:
    """Labels at each level; a label of -1 takes what stands last."""
    ks, cuts = read_model(run, layout.LEVEL_CLUSTERS).tolist(), read_model(run, layout.LEVEL)
    return {
        layout.LEVEL_LABEL.of(k): np.append(cluster, np.int32(-1))[label] for k, cluster in zip(ks, cuts, strict=True)
    }


def _results(run: Run, partition: RowRange, rows: Float32, result: "Assignment", stability: Float32) -> Table:
    """All that is known of a partition's valid rows."""
    table = row_table(len(rows), rows.shape[1])
    table["row"] = np.arange(partition.start, partition.stop)
    table["projection"] = rows
    second = min(1, result.top_label.shape[1] - 1)
    table["neighbour"], table["neighbour_probability"] = result.top_label[:, second], result.top_probability[:, second]
    for name in ("label", "probability", "log_density"):
        table[name] = getattr(result, name)
    table["stability"], table["support"] = stability, run.read_rows(layout.SUPPORT, partition)
    if "view_2d" in views(run.job):
        table["x"], table["y"] = run.read_rows(layout.VIEW_2D, partition).T
    return table[result.label >= 0]


def _label_cost(sizes: Sizes) -> Cost:
    row_bytes = 4 * (4 + 2 * sizes.top + sizes.largest_k.bit_length())  # that many levels at most, of half as many each
    return Cost(
        tasks=sizes.partitions,
        seconds=sizes.n_rows * _STABILITY_SECONDS,
        bytes_written=sizes.n_rows * row_bytes,
        memory_bytes=sizes.partition_rows * (3 * 4 * sizes.n_components + 3 * row_bytes + 2 * 48),
    )


LABEL_ROWS = Stage(
    "label_rows",
    label_rows,
    facts=LabelFacts,
    items=partitions,
    reads=("project_rows", "select_candidate", "publish_mixture", "measure_stability", "merge_components"),
    unit="rows",
    cost=_label_cost,
    is_result=True,
)


# --- clusters ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """Rows whose support lies above the sample's limit."""

    n_outside_support: int


def summarise_clusters(run: Run) -> Output[ClusterFacts]:
    """Reduce the summaries of the clusters over all partitions."""
    arrays = [
        layout.PARTIAL_SIZE, layout.PARTIAL_PROBABILITY, layout.PARTIAL_EXEMPLAR, layout.PARTIAL_EXEMPLAR_DISTANCE,
        layout.SHOWN_ROWS,
    ]  # fmt: skip
    columns = ["row", *layout.HELD_OUT]
    parts = ((*rest, columns_of(shown, columns)) for *rest, shown in run.read_items(arrays, partitions(run)))
    sizes, probabilities, exemplars, distances, shown = zip(*parts, strict=True)
    size, probability = np.sum(sizes, axis=0), tree_sum(probabilities)
    exemplar, distance = numerics.mixture.assignment.merge_nearest(np.stack(exemplars), np.stack(distances), EXEMPLARS)
    with np.errstate(invalid="ignore"):  # an empty component has no mean
        mean_probability = probability / size
    return Output(
        ClusterFacts(sum(each.n_outside_support for each in PROJECT_ROWS.facts_of_all(run, partitions(run)))),
        arrays={
            layout.CLUSTER_SIZE: size,
            layout.CLUSTER_PROBABILITY: mean_probability,
            layout.EXEMPLAR: exemplar,
            layout.EXEMPLAR_DISTANCE: distance,
            layout.LEVEL_EXEMPLAR: _of_levels(run, size, exemplar),
            **_held_out(run, np.concatenate(shown)),
        },
    )


def _of_levels(run: Run, size: npt.NDArray[np.int64], exemplar: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    of_levels = [numerics.hierarchy.level_exemplars(cluster, size, exemplar) for cluster in run.read(layout.LEVEL)]
    return np.concatenate([np.empty((0, EXEMPLARS), np.int64), *of_levels])


def _held_out(run: Run, shown: Table) -> dict[ItemArray, npt.NDArray[np.generic]]:
    """Some rows that no model was fitted on, or of all rows where they are too few; none that were appended."""
    shown = shown[shown["row"] < run.fitted.n_rows]
    fitted = np.concatenate([read_model(run, layout.SAMPLE_ROW), read_model(run, layout.MIXTURE_ROW)])
    others = shown[~np.isin(shown["row"], fitted)]
    rows = spread_evenly(others if len(others) >= _FEW_HELD_OUT else shown, HELD_OUT_ROWS)
    return {array: np.ascontiguousarray(rows[name]) for name, array in layout.HELD_OUT.items()}


def _summary_cost(sizes: Sizes) -> Cost:
    exemplars = 12 * sizes.partitions * sizes.largest_k * EXEMPLARS
    shown = 20 * min(sizes.n_rows, SHOWN)
    return Cost(tasks=1, seconds=sizes.partitions * _SUMMARY_SECONDS, memory_bytes=3 * (exemplars + shown))


SUMMARISE_CLUSTERS = Stage(
    "summarise_clusters",
    summarise_clusters,
    facts=ClusterFacts,
    items=one,
    reads=(
        "subsample", "project_rows", "merge_components", "label_rows",
    ),
    cost=_summary_cost,
    is_result=True,
)  # fmt: skip
