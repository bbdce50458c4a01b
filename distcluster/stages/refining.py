"""EM of the chosen mixture over all rows, one iteration two stages."""

from typing import Any

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.em import expect_rows, m_step, packed, remarks, unpacked
from distcluster.numerics.mixture.parameters import Mixture
from distcluster.numerics.mixture.row_moments import moments
from distcluster.numerics.partition import groups, tree_sum
from distcluster.stages.context import ONE, PARAMETERS, job_of, model_of, record_of, task
from distcluster.stages.fitting import fitted_mixture, grid_parameters
from distcluster.storage.run import Run


def refine_iterations(run: Run) -> int:
    """The iterations of EM over all rows that a run may need."""
    job = job_of(run)
    return job.mixture.max_iter if job.selection.refine else 0


def refine_stages(iteration: int) -> tuple[str, str]:
    """The names of an iteration's two stages: one task a group of partitions, then one task."""
    return f"expect-{iteration}", f"maximise-{iteration}"


def has_step(run: Run, iteration: int) -> bool:
    """Whether an iteration of EM over all rows is complete."""
    return iteration < refine_iterations(run) and run.record(refine_stages(iteration)[1], ONE) is not None


def is_refined(run: Run, iterations: int) -> bool:
    """Whether the mixture needs no iteration beyond so many."""
    if iterations == refine_iterations(run):
        return True
    return iterations > 0 and bool(record_of(run, refine_stages(iterations - 1)[1])["facts"]["converged"])


def _before(run: Run, iteration: int) -> Mixture:
    """The mixture that an iteration starts from."""
    facts = record_of(run, "select")["facts"]
    candidate = Candidate(facts["n_components"], facts["covariance_type"])
    if iteration == 0:
        return fitted_mixture(run, candidate)
    stage = refine_stages(iteration - 1)[1]
    arrays = model_of(run, stage)
    return Mixture(candidate, *(arrays[f"partial/{stage}/{name}"] for name in PARAMETERS))


@task
def expect(run: Run, group: int, *, iteration: int) -> None:
    """Sums for the M-step over a group of partitions: one node of the sums' tree."""
    parts = run.partitioning
    centre, _ = grid_parameters(run)
    mixture = _before(run, iteration).moved(-centre)

    def of_partition(index: int) -> npt.NDArray[np.float64]:
        partition = parts[index]
        rows = run.read_rows("projection", partition, "project")
        blocks = (slice(b.start - partition.start, b.stop - partition.start) for b in parts.blocks(partition))
        return tree_sum(packed(expect_rows(rows[here], centre, mixture)) for here in blocks)

    stage = refine_stages(iteration)[0]
    total = tree_sum(of_partition(index) for index in groups(parts)[group])
    run.commit(stage, str(group), models={f"partial/{stage}/{group}": total})


@task
def take_step(run: Run, *, iteration: int) -> None:
    """The M-step of an iteration of EM over all rows."""
    expect_stage, stage = refine_stages(iteration)
    nodes = (
        run.read_model(expect_stage, str(group))[f"partial/{expect_stage}/{group}"]
        for group in range(len(groups(run.partitioning)))
    )
    expected = unpacked(tree_sum(nodes))
    table = job_of(run).mixture
    centre, _ = grid_parameters(run)
    of_rows = moments(model_of(run, "clusters")["partial/scatter"])
    mixture = m_step(expected, of_rows, _before(run, iteration).moved(-centre), table.reg_covar).moved(centre)
    mean = expected.log_likelihood / of_rows.n_rows
    converged = False
    if iteration > 0:
        previous = record_of(run, refine_stages(iteration - 1)[1])["facts"]["mean_log_likelihood"]
        converged = abs(mean - previous) < table.tol
    run.commit(
        stage,
        ONE,
        {"mean_log_likelihood": mean, "converged": converged},
        models={f"partial/{stage}/{name}": getattr(mixture, name) for name in PARAMETERS},
    )


@task
def publish(run: Run, *, iterations: int) -> None:
    """The chosen mixture, as it is after so many iterations over all rows."""
    mixture = _before(run, iterations)
    steps = [record_of(run, refine_stages(i)[1])["facts"] for i in range(iterations)]
    n_valid = record_of(run, "draw")["facts"]["n_valid"]
    centre, _ = grid_parameters(run)
    of_rows = moments(model_of(run, "clusters")["partial/scatter"])
    run.commit(
        "mixture",
        ONE,
        {
            "n_iter": iterations,
            "converged": bool(steps) and steps[-1]["converged"],
            "mean_log_likelihoods": [each["mean_log_likelihood"] for each in steps],
            "n_rows": n_valid,
            "note": remarks(mixture.moved(-centre), of_rows, job_of(run).mixture.reg_covar),
        },
        models={f"model/mixture/{name}": getattr(mixture, name) for name in PARAMETERS},
    )


def chosen_mixture(run: Run) -> Mixture:
    """The mixture that the verdict chose, refined."""
    return _published(run, model_of(run, "mixture"))


def published_mixture(run: Run) -> Mixture:
    """The same for reports and exports, which any machine may make: no row is labelled by it."""
    return _published(run, run.read_model("mixture", ONE))


def _published(run: Run, arrays: Any) -> Mixture:
    facts = record_of(run, "select")["facts"]
    return Mixture(
        Candidate(facts["n_components"], facts["covariance_type"]),
        *(arrays[f"model/mixture/{name}"] for name in PARAMETERS),
    )
