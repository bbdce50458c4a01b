"""Principal components by dask-ml, before the neighbour search."""

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import delayed
from dask_ml.decomposition import PCA

from distcluster.environment import pin_to_one_thread
from distcluster.stages.context import open_run
from distcluster.stages.stage import NoFacts, Output
from distcluster.stages.subsampling import part_shapes, read_part
from distcluster.storage import layout
from distcluster.storage.settings import RunRef

Float32 = npt.NDArray[np.float32]

# Of the randomised decomposition (Halko, Martinsson, Tropp 2011): noise lies close to signal here.
_POWER_ITERATIONS = 2


def fit_pca(ref: RunRef) -> Output[NoFacts]:
    """The mean and the leading principal components of the rows of both subsamples.

    By the Dask client in force, and of the subsamples, not of all rows: they are valid rows, 150,000 of them settle a
    hundred directions, and dask-ml keeps all of its rows in the cluster's memory.
    """
    run = open_run(ref)
    n_components = run.job.projection.pca
    rows = da.concatenate(
        [
            da.from_delayed(delayed(_read_part)(ref, part), shape, np.float32)
            for part, shape in enumerate(part_shapes(run))
        ]
    )
    fitted = PCA(
        n_components, svd_solver="randomized", iterated_power=_POWER_ITERATIONS, random_state=run.job.sample.seed
    ).fit(rows)
    mean, components = dask.compute(fitted.mean_, fitted.components_)  # here: the event loop commits, and must not wait
    return Output(
        NoFacts(),
        arrays={
            layout.PCA_MEAN: mean.astype(np.float32),
            layout.PCA_COMPONENTS: np.ascontiguousarray(components.T, np.float32),
        },
    )


def _read_part(ref: RunRef, part: int) -> Float32:
    pin_to_one_thread()  # and what follows on this worker: the decomposition's own tasks
    return read_part(open_run(ref), part)
