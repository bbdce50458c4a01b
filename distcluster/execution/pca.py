"""Principal components by dask-ml, before the neighbour search."""

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import delayed
from dask_ml.decomposition import PCA

from distcluster.stages.context import RunRef
from distcluster.stages.subsampling import draw_parts, read_draw_part

Float32 = npt.NDArray[np.float32]

# Of the randomised decomposition (Halko, Martinsson, Tropp 2011): noise lies close to signal here.
_POWER_ITERATIONS = 2


def principal_components(ref: RunRef, n_components: int, seed: int) -> tuple[Float32, Float32]:
    """The mean and the leading principal components of the rows of both draws, computed by the Dask client in force.

    The draws, not all rows: they are valid rows, 150,000 of them settle a hundred directions, and dask-ml keeps all of
    its rows in the cluster's memory.

    Returns
    -------
    mean : (D,) float32
    components : (D, P) float32
        Orthonormal columns.
    """
    rows = da.concatenate(
        [
            da.from_delayed(delayed(read_draw_part)(ref, part), shape, np.float32)
            for part, shape in enumerate(draw_parts(ref))
        ]
    )
    fitted = PCA(n_components, svd_solver="randomized", iterated_power=_POWER_ITERATIONS, random_state=seed).fit(rows)
    return fitted.mean_.astype(np.float32), np.ascontiguousarray(fitted.components_.T, np.float32)
