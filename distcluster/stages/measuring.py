"""How stable the chosen clusters are across replicates, and the rows that tell it of others."""

import numpy as np

from distcluster import numerics
from distcluster.stages.cost import one_task
from distcluster.stages.fitting import candidates
from distcluster.stages.refining import chosen_mixture
from distcluster.stages.replicating import common_points, replicated_labels
from distcluster.stages.stage import NoFacts, Output, Stage, one
from distcluster.storage import layout
from distcluster.storage.run import Run


def measure_stability(run: Run) -> Output[NoFacts]:
    """The stability of every chosen cluster, and how often it held each of the rows that all replicates label."""
    mixture, labels, grid = chosen_mixture(run), replicated_labels(run, "data"), candidates(run)
    K = mixture.candidate.n_components
    place = grid.index(mixture.candidate) if mixture.candidate in grid else None  # it may have been fitted later
    of_chosen = [] if place is None else [each[place] for each in labels]
    if not of_chosen or any(each.min() < 0 for each in of_chosen):
        points, stability = np.empty((0, mixture.means.shape[1]), np.float32), np.full(K, np.nan)
        chosen, share = np.empty(0, np.int32), np.empty(0, np.float32)
    else:
        points = common_points(run)
        chosen = numerics.mixture.assignment.assign_rows(points, mixture, top=1).label
        stability = numerics.stability.cluster_agreement(chosen, of_chosen, K)
        share = numerics.stability.held_shares(chosen, of_chosen, K)
    of_rows = {"point": points, "label": chosen, "share": share}
    return Output(
        NoFacts(),
        arrays={layout.CLUSTER_STABILITY: stability}
        | {layout.ROW_STABILITY[name]: values for name, values in of_rows.items()},
    )


MEASURE_STABILITY = Stage(
    "measure_stability",
    measure_stability,
    facts=NoFacts,
    items=one,
    reads=("subsample", "project_subsample", "extend_grid", "recluster", "select_candidate", "publish_mixture"),
    cost=one_task,
    is_result=True,
)
