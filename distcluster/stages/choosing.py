"""All candidates judged by all rows, and the verdict."""

from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.criteria import Criteria, add_criteria, table_columns
from distcluster.numerics.mixture.row_moments import scatter_rows
from distcluster.numerics.mixture.scores import score_rows
from distcluster.numerics.mixture.selection import select
from distcluster.numerics.mixture.silhouettes import silhouette_rows
from distcluster.numerics.partition import RowRange, tree_sum
from distcluster.numerics.stability import agreement
from distcluster.stages.context import ONE, job_of, model_of, record_of, task
from distcluster.stages.fitting import candidates, fitted_mixture, grid_parameters, unjudged
from distcluster.stages.replicating import replicated_labels
from distcluster.storage.run import Run


@task
def score(run: Run, index: int) -> None:
    """Sums over a partition's rows under every candidate: one node of the sums' tree."""
    parts = run.partitioning
    partition = parts[index]
    centre, parameters = grid_parameters(run)
    rows = run.read_rows("projection", partition, "project")
    judging = np.asarray(~np.isnan(rows).any(axis=1))
    judging[_drawn_in(run, partition)] = False
    criteria, clusters, scatter = [], [], []
    for block in parts.blocks(partition):
        here = slice(block.start - partition.start, block.stop - partition.start)
        of_candidates, of_components = score_rows(rows[here], judging[here], centre, parameters)
        criteria.append(of_candidates)
        clusters.append(of_components)
        scatter.append(scatter_rows(rows[here], centre))
    run.commit(
        "score",
        str(index),
        {"n_rows": int(judging.sum())},
        models={
            f"partial/score/{index}/criteria": tree_sum(criteria),
            f"partial/score/{index}/clusters": tree_sum(clusters),
            f"partial/score/{index}/scatter": tree_sum(scatter),
        },
    )


@task
def clusters(run: Run) -> None:
    """Sums over all rows, and for every component of every candidate: what a silhouette compares a row with."""
    parts = range(len(run.partitioning))
    scatter = tree_sum(run.read_model("score", str(i))[f"partial/score/{i}/scatter"] for i in parts)
    sums = tree_sum(run.read_model("score", str(i))[f"partial/score/{i}/clusters"] for i in parts)
    centre, _ = grid_parameters(run)
    with np.errstate(invalid="ignore"):  # an empty component has no mean
        mean = sums[:, 1:-1] / sums[:, :1] + centre
    run.commit(
        "clusters",
        ONE,
        models={
            "partial/clusters": sums,
            "partial/scatter": scatter,
            "selection/component/rows": sums[:, 0].astype(np.int64),
            "selection/component/mean": mean,
        },
    )


@task
def silhouette(run: Run, index: int) -> None:
    """Sums over a partition's rows of their silhouettes under every candidate."""
    parts = run.partitioning
    partition = parts[index]
    centre, parameters = grid_parameters(run)
    of_components = model_of(run, "clusters")["partial/clusters"]
    rows = run.read_rows("projection", partition, "project")
    sums = [
        silhouette_rows(
            rows[block.start - partition.start : block.stop - partition.start], centre, parameters, of_components
        )
        for block in parts.blocks(partition)
    ]
    run.commit("silhouette", str(index), models={f"partial/silhouette/{index}": tree_sum(sums)})


def _drawn_in(run: Run, partition: RowRange) -> npt.NDArray[np.int64]:
    """Positions in a partition of rows that do not judge: both draws, or the sample alone where that leaves none."""
    models = model_of(run, "draw")
    drawn = [models["sample/row"], models["sample/mixture_row"]]
    if judged_by_draw(run):
        # The mixture draw judges itself; its figures flatter.
        drawn = [np.setdiff1d(np.arange(partition.start, partition.stop), drawn[1])]
    rows = np.concatenate(drawn)
    return rows[(rows >= partition.start) & (rows < partition.stop)] - partition.start


def judged_by_draw(run: Run) -> bool:
    """Whether no row is left outside both draws, so that the mixture draw judges its own fits."""
    return bool(record_of(run, "draw")["facts"]["n_judging"] == 0)


@task
def select_candidate(run: Run) -> None:
    """Reduce the scores to the selection table and the verdict; publish the chosen mixture."""
    job = job_of(run)
    n_rows = sum(record_of(run, "score", str(i))["facts"]["n_rows"] for i in range(len(run.partitioning)))
    table = _selection_table(run, n_rows)
    verdict = select(table, job.selection.rule, n_rows)
    columns = table_columns(table)
    run.commit(
        "select",
        ONE,
        {
            **asdict(verdict.candidate),
            "finding": verdict.finding,
            "reason": verdict.reason,
            "n_judging": n_rows,
            "judged_by_draw": judged_by_draw(run),
        },
        models={f"selection/{name}": values for name, values in columns.items()},
    )


def _selection_table(run: Run, n_rows: int) -> list[Criteria]:
    parts, n_valid = range(len(run.partitioning)), record_of(run, "draw")["facts"]["n_valid"]
    criteria = tree_sum(run.read_model("score", str(i))[f"partial/score/{i}/criteria"] for i in parts)
    silhouettes = tree_sum(run.read_model("silhouette", str(i))[f"partial/silhouette/{i}"] for i in parts)
    fitted = iter(zip(criteria, silhouettes, strict=True))
    data, null = (replicated_labels(run, what) for what in ("data", "null"))
    nan = np.full(len(candidates(run)), np.nan)
    agreed, agreed_null = (agreement(labels) if labels else nan for labels in (data, null))
    table = []
    for place, each in enumerate(candidates(run)):
        facts = record_of(run, "candidate", str(each))["facts"]
        row = unjudged(run, each)
        if not facts["error"]:
            sums, of_rows = next(fitted)
            row = add_criteria(row, fitted_mixture(run, each).n_parameters, sums, n_rows, n_valid)
            row = replace(
                row,
                silhouette=float("nan") if each.n_components == 1 else float(of_rows) / n_valid,
                silhouette_euclidean=_number(facts["silhouette_euclidean"]),
                silhouette_euclidean_error=_number(facts["silhouette_euclidean_error"]),
                note=facts["note"],
                stability=float(agreed[place]),
                stability_null=float(agreed_null[place]),
            )
        table.append(row)
    return table


def _number(value: float | None) -> float:
    """A number from a record: JSON has no NaN."""
    return float("nan") if value is None else value
