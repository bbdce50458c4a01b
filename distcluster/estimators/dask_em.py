"""EM over the partitions of a Dask array, on whatever scheduler is there."""

from threading import Lock
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import sklearn
from threadpoolctl import threadpool_limits

from distcluster.errors import JobError
from distcluster.numerics.mixture.em import Maximum, expect_rows, m_step, packed, unpacked
from distcluster.numerics.mixture.parameters import Mixture
from distcluster.numerics.mixture.row_moments import moments, scatter_rows
from distcluster.numerics.partition import BLOCK_ROWS, tree_sum

Float64 = npt.NDArray[np.float64]

PARTITION_ROWS = 4 * BLOCK_ROWS
"""Rows of a task: a Dask array's own chunks do not matter to the result."""


class _OneBlasThread:
    """While any thread is inside, BLAS has one thread: products of a tile are too small for more.

    Counted, because Dask runs several tasks in one process, and the first that leaves must not lift the limit under
    the others; the last that leaves restores the user's own setting.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._limits: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limits = threadpool_limits(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.restore_original_limits()


one_blas_thread = _OneBlasThread()


def whole_rows(X: Any) -> Any:
    """The array with unbroken rows."""
    return X.rechunk({1: -1})


def refuse_frame(X: Any) -> None:
    """Refuse what scikit-learn's checks would gather in silence, and an array that does not know its rows.

    Raises
    ------
    JobError
        It is a ValueError.
    """
    if hasattr(X, "to_dask_array"):
        raise JobError("a Dask DataFrame would have to be gathered: give frame.to_dask_array(lengths=True) instead.")
    if isinstance(X, da.Array) and np.isnan(X.shape).any():
        raise JobError("this Dask array does not know how many rows it has: call X.compute_chunk_sizes() first.")


def refuse_to_gather(estimator: Any) -> None:
    """Refuse a data frame as the output of a Dask array, which scikit-learn would gather for it.

    Raises
    ------
    ValueError
    """
    own = getattr(estimator, "_sklearn_output_config", {}).get("transform")
    wanted = own or sklearn.get_config()["transform_output"]
    if wanted != "default":
        raise ValueError(f"set_output(transform={wanted!r}) would gather a Dask array: use the default for it.")


def as_dask(X: Any) -> Any:
    """A Dask array, or a NumPy array as one."""
    return X if isinstance(X, da.Array) else da.from_array(X, chunks=(PARTITION_ROWS, -1))


def partitions(X: Any) -> list[Any]:
    """Delayed (n, d) arrays of 65,536 rows, whatever the array's own chunks; held by the cluster, if there is one."""
    return list(dask.persist(*X.rechunk({0: PARTITION_ROWS, 1: -1}).to_delayed().ravel()))


def blocks(rows: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """A partition in blocks, in order."""
    return [np.ascontiguousarray(rows[start : start + BLOCK_ROWS]) for start in range(0, len(rows), BLOCK_ROWS)]


def mean(parts: list[Any]) -> Float64:
    """The mean of all rows, (d,)."""
    sums = dask.compute(*(dask.delayed(lambda rows: rows.sum(axis=0, dtype=np.float64))(part) for part in parts))
    counts = dask.compute(*(dask.delayed(len)(part) for part in parts))
    return np.asarray(tree_sum(sums) / sum(counts))


def _scatter(rows: npt.NDArray[Any], centre: Float64) -> Float64:
    with one_blas_thread:
        return tree_sum(scatter_rows(block, centre) for block in blocks(rows))


def _expect(rows: npt.NDArray[Any], centre: Float64, mixture: Mixture) -> Float64:
    with one_blas_thread:
        return tree_sum(packed(expect_rows(block, centre, mixture)) for block in blocks(rows))


def maximise_partitions(parts: list[Any], start: Mixture, *, tol: float, reg_covar: float, max_iter: int) -> Maximum:
    """EM over partitions; the same sums, in the same order, whatever the number of workers."""
    centre = mean(parts)
    of_rows = moments(tree_sum(dask.compute(*(dask.delayed(_scatter)(part, centre) for part in parts))))
    mixture, history = start.moved(-centre), [-np.inf]
    converged = False
    while len(history) <= max_iter and not converged:
        sums = dask.compute(*(dask.delayed(_expect)(part, centre, mixture) for part in parts))
        expected = unpacked(tree_sum(sums))
        mixture = m_step(expected, of_rows, mixture, reg_covar)
        history.append(expected.log_likelihood / of_rows.n_rows)
        converged = bool(abs(history[-1] - history[-2]) < tol)
    return Maximum(mixture.moved(centre), tuple(history[1:]), converged)
