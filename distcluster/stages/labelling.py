"""Labels, clusters, their hierarchy, and how far the projection can be trusted."""

from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from distcluster.numerics.hierarchy import HIERARCHY_ROWS, build_hierarchy
from distcluster.numerics.mixture.assignment import assign_rows, merge_nearest, nearest_to_means, responsibilities
from distcluster.numerics.partition import tree_sum
from distcluster.numerics.stability import cluster_agreement, replicate_rows
from distcluster.stages.context import ONE, job_of, model_of, record_of, task
from distcluster.stages.fitting import candidates
from distcluster.stages.projecting import points_of, project_into, spaces
from distcluster.stages.refining import chosen_mixture
from distcluster.stages.replicating import replicated_labels
from distcluster.storage.run import ArraySpec, Run

EXEMPLARS = 10
"""Rows kept for each component, nearest to its mean."""

_TRUST_ROWS = 2_048  # of the mixture draw: trustworthiness costs the square
_DENSITY_ROWS = 8_192  # of the sample: a standard error of about 0.02 nats


def row_arrays(run: Run) -> list[ArraySpec]:
    """The arrays with one entry a row (or a block) that a run's stages fill partition by partition."""
    job, parts = job_of(run), run.partitioning
    N, k, top = parts.n_rows, job.projection.n_neighbors, job.assign.top
    nan = float("nan")

    def rows(name: str, dtype: str, fill_value: float, *tail: int) -> ArraySpec:
        return ArraySpec(name, (N, *tail), dtype, fill_value, parts.block_rows, parts.partition_rows)

    blocks = parts.partition_blocks
    return [
        ArraySpec("input/checksum", (parts.n_blocks,), "uint64", 0, blocks, blocks),
        rows("neighbours/index", "int32", -1, k),
        rows("neighbours/distance", "float32", nan, k),
        *(rows(space, "float32", nan, d) for space, d in spaces(job).items()),
        rows("support", "float32", nan),
        rows("label", "int32", -1),
        rows("probability", "float32", nan),
        rows("top_label", "int32", -1, top),
        rows("top_probability", "float32", nan, top),
        rows("log_density", "float32", nan),
    ]


@task
def quality(run: Run) -> None:
    """How far the projection can be trusted: on rows that it was not fitted on, and on those that it was."""
    from sklearn.manifold import trustworthiness  # as in em.py

    job = job_of(run)
    models = model_of(run, "index")
    some = slice(None, None, -(-len(models["model/sample_scale"]) // _DENSITY_ROWS))
    of_sample = project_into(
        run,
        "projection",
        np.ascontiguousarray(models["model/sample_neighbours/index"][some]),
        np.ascontiguousarray(models["model/sample_neighbours/distance"][some]),
    )
    points, vectors = points_of(run), model_of(run, "draw")["partial/draw"]
    some = slice(None, None, -(-len(points) // _TRUST_ROWS))
    few = min(job.projection.n_neighbors, (len(points[some]) - 1) // 2)
    mixture = chosen_mixture(run)
    run.commit(
        "quality",
        ONE,
        {
            "trustworthiness": float(trustworthiness(vectors[some], points[some], n_neighbors=few)) if few else None,
            **{
                f"{name}_log_density": float(assign_rows(rows, mixture, top=1).log_density.mean(dtype=np.float64))
                for name, rows in (("sample", of_sample), ("other", points))
            },
        },
    )


@task
def assign(run: Run, index: int) -> None:
    """Labels and probabilities of a partition; its part of the cluster summaries."""
    parts = run.partitioning
    partition = parts[index]
    mixture = chosen_mixture(run)
    rows = run.read_rows("projection", partition, "project")
    result = assign_rows(rows, mixture, job_of(run).assign.top)
    exemplar, distance = nearest_to_means(rows, result.label, mixture, partition.start, EXEMPLARS)
    K = mixture.candidate.n_components
    probability_sums = []
    for block in parts.blocks(partition):
        here = slice(block.start - partition.start, block.stop - partition.start)
        valid = result.label[here] >= 0
        label, probability = result.label[here][valid], result.probability[here][valid]
        probability_sums.append(np.bincount(label, probability, K).astype(np.float64))
    run.commit(
        "assign",
        str(index),
        parts={name: (partition.start, values) for name, values in asdict(result).items()},
        models={
            f"partial/assign/{index}/size": np.bincount(result.label[result.label >= 0], minlength=K),
            f"partial/assign/{index}/probability": tree_sum(probability_sums),
            f"partial/assign/{index}/exemplar": exemplar,
            f"partial/assign/{index}/exemplar_distance": distance,
        },
    )


@task
def cluster(run: Run) -> None:
    """Reduce the summaries of the clusters over all partitions."""
    partials = []
    for i in range(len(run.partitioning)):
        arrays = run.read_model("assign", str(i))
        partials.append({path.rpartition("/")[2]: values for path, values in arrays.items()})
    size = np.sum([each["size"] for each in partials], axis=0)
    probability = tree_sum(each["probability"] for each in partials)
    exemplar, distance = merge_nearest(
        np.stack([each["exemplar"] for each in partials]),
        np.stack([each["exemplar_distance"] for each in partials]),
        EXEMPLARS,
    )
    with np.errstate(invalid="ignore"):  # an empty component has no mean
        mean_probability = probability / size
    projected = [record_of(run, "project", str(i))["facts"] for i in range(len(run.partitioning))]
    run.commit(
        "cluster",
        ONE,
        {"n_outside_support": sum(facts["n_outside_support"] for facts in projected)},
        models={
            "cluster/size": size,
            "cluster/mean_probability": mean_probability,
            "cluster/reproducibility": _cluster_agreement(run),
            "cluster/exemplar": exemplar,
            "cluster/exemplar_distance": distance,
        },
    )


def _cluster_agreement(run: Run) -> npt.NDArray[np.float64]:
    """The Jaccard index of every chosen cluster in the replicates; NaN without replicates."""
    mixture, labels = chosen_mixture(run), replicated_labels(run, "data")
    place = candidates(run).index(mixture.candidate)
    K = mixture.candidate.n_components
    if not labels or any(each[place].min() < 0 for each in labels):
        return np.full(K, np.nan)
    points = points_of(run)
    n = replicate_rows(len(points), len(labels))
    common = points[2 * n * len(labels) : (2 * len(labels) + 1) * n]
    chosen = assign_rows(common, mixture, top=1).label
    return cluster_agreement(chosen, [each[place] for each in labels], K)


@task
def hierarchy(run: Run) -> None:
    """The tree over the chosen components, from the mixture draw."""
    responsibility, _ = responsibilities(points_of(run)[:HIERARCHY_ROWS], chosen_mixture(run))
    embedding = model_of(run, "draw")["partial/draw"][:HIERARCHY_ROWS]
    tree = build_hierarchy(responsibility, embedding)
    run.commit(
        "hierarchy",
        ONE,
        models={
            "hierarchy/merge": tree.merges,
            "hierarchy/rule": np.array(tree.rules, np.dtypes.StringDType()),
            "hierarchy/value": tree.values,
        },
    )


def is_finished(run: Run) -> bool:
    """Whether every row has its results and every summary is there."""
    if not all(ONE in run.committed(stage) for stage in ("cluster", "quality")):
        return False
    wanted = {str(index) for index in range(len(run.partitioning))}
    return all(wanted <= run.committed(stage).keys() for stage in ("project", "assign"))
