"""The labels of another candidate."""

import numpy as np

from distcluster.numerics.mixture.assignment import assign_rows
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.stages.context import ONE, task
from distcluster.stages.fitting import fitted_mixture
from distcluster.stages.refining import chosen_mixture
from distcluster.storage.run import ArraySpec, Run


def relabel_stages(wanted: Candidate) -> tuple[str, str]:
    """The names of the two stages that label all rows by another candidate: partitions, then one task."""
    return f"relabel-{wanted}", f"crosswalk-{wanted}"


def relabel_arrays(run: Run, wanted: Candidate) -> list[ArraySpec]:
    """The arrays that a relabelling fills partition by partition."""
    parts = run.partitioning
    return [
        ArraySpec(f"relabel/{wanted}/{name}", (parts.n_rows,), dtype, fill, parts.block_rows, parts.partition_rows)
        for name, dtype, fill in (("label", "int32", -1), ("probability", "float32", float("nan")))
    ]


@task
def relabel(run: Run, index: int, *, wanted: Candidate) -> None:
    """Labels of a partition under another candidate, and how they meet those of the chosen one."""
    partition = run.partitioning[index]
    result = assign_rows(run.read_rows("projection", partition, "project"), fitted_mixture(run, wanted), top=1)
    chosen = run.read_rows("label", partition, "assign")
    valid = result.label >= 0
    met = np.zeros((chosen_mixture(run).candidate.n_components, wanted.n_components), np.int64)
    np.add.at(met, (chosen[valid], result.label[valid]), 1)
    stage = relabel_stages(wanted)[0]
    run.commit(
        stage,
        str(index),
        parts={
            f"relabel/{wanted}/label": (partition.start, result.label),
            f"relabel/{wanted}/probability": (partition.start, result.probability),
        },
        models={f"partial/{stage}/{index}": met},
    )


@task
def crosswalk(run: Run, *, wanted: Candidate) -> None:
    """Rows by the chosen label and by the other candidate's."""
    relabelled, stage = relabel_stages(wanted)
    parts = range(len(run.partitioning))
    met = sum(run.read_model(relabelled, str(i))[f"partial/{relabelled}/{i}"] for i in parts)
    run.commit(stage, ONE, models={f"relabel/{wanted}/crosswalk": np.asarray(met)})
