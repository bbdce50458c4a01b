"""How often a row's cluster has held it, by the rows beside it that all replicates have labelled."""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_NEAREST = 5  # the error of three is as small, that of ten is larger (decision 29)


class RowStability:
    """The share of replicates in which a row's cluster held it, for rows that no replicate has seen.

    Of a row that all replicates have labelled the share is known. Another one has the mean of the five nearest of those
    in its cluster, by Euclidean distance in the projection; of fewer where the cluster has fewer. A row's value depends
    on the row and the model alone.

    Parameters
    ----------
    point : (n, d) float32
        Places of the rows that all replicates have labelled; none without replicates.
    label : (n,) int32
        Their clusters.
    share : (n,) float32
        Share of the replicates in which the cluster held the row.

    Examples
    --------
    >>> point, label = np.array([[0], [1], [9]], np.float32), np.array([0, 0, 1], np.int32)
    >>> known = RowStability(point, label, share=np.array([1, 0.5, 0], np.float32))
    >>> known.of_rows(np.array([[0.2], [8], [3], [4]], np.float32), np.array([0, 1, 2, -1], np.int32)).tolist()
    [0.75, 0.0, nan, nan]
    """

    def __init__(self, point: Float32, label: Int32, share: Float32) -> None:
        self._point, self._label, self._share = point, label, share
        self._trees: dict[int, object] = {}

    def of_rows(self, rows: Float32, label: Int32) -> Float32:
        """The stability of rows, (n,) float32; NaN where nothing is known of their cluster, and for label -1.

        Parameters
        ----------
        rows : (n, d) float32
        label : (n,) int32
        """
        found = np.full(len(rows), np.nan, np.float32)
        for k in np.unique(label[label >= 0]).tolist():
            here, share = label == k, self._share[self._label == k]
            if len(share):
                found[here] = share[self._nearest(k, rows[here], min(_NEAREST, len(share)))].mean(axis=1, dtype=float)
        return found

    def _nearest(self, k: int, rows: Float32, n: int) -> npt.NDArray[np.intp]:
        from scipy.spatial import cKDTree  # a model that only predicts needs no SciPy

        if k not in self._trees:
            self._trees[k] = cKDTree(self._point[self._label == k].astype(np.float64))
        tree: cKDTree = self._trees[k]
        _, nearest = tree.query(rows.astype(np.float64), k=range(1, n + 1))
        return np.asarray(nearest)
