"""UMAP fitted on a sample, and any row projected by itself, as a scikit-learn transformer."""

import os
from typing import Any, Self

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from distcluster.environment import one_thread
from distcluster.estimators.dask_em import refuse_frame, refuse_to_gather, whole_rows
from distcluster.job import ProjectionTable
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.prepared_rows import distinct_rows, prepare
from distcluster.numerics.projection import project
from distcluster.numerics.repulsion import repulsion_field
from distcluster.numerics.sampling import invalid_rows, why_invalid
from distcluster.numerics.umap_fit import curve_parameters, fit_anchors

Float32 = npt.NDArray[np.float32]

_ROWS = 4_096  # that are projected at a time


class UMAPProjection(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """UMAP fitted on a random sample of rows, and every row projected by itself, at the balance of UMAP's forces.

    Nothing in ``transform`` is random, and no row acts on another: a row gets the same bits in any batch, chunk or
    order, one that was fitted too. A seeded fit gives the same bits on any number of threads, and from a Dask array.

    Parameters
    ----------
    n_components : int
        d, dimensions of the projection.
    n_neighbors : int
        Of a row in the sample; of a sample with fewer rows, all others.
    min_dist : float
        Least distance of rows in the projection.
    metric : {"cosine", "euclidean"}
    n_epochs : int, optional
        Of the fit; by default as many as the job key ``projection.n_epochs``.
    max_fit_rows : int
        UMAP is fitted on so many random rows, or on all.
    random_state : int, RandomState or None

    Attributes
    ----------
    sample_ : (S, D) float32
        The distinct rows of the sample, of unit length under cosine.
    embedding_ : (S, d) float32
        Their fitted coordinates. ``transform`` of the same rows gives the balance among the others.
    n_features_in_ : int

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    >>> projection = UMAPProjection(2, n_epochs=20, random_state=0).fit(X)
    >>> places = projection.transform(X)
    >>> places.shape, bool((projection.transform(X[7:9]) == places[7:9]).all())
    ((500, 2), True)
    """

    def __init__(
        self,
        n_components: int = 5,
        *,
        n_neighbors: int = 15,
        min_dist: float = 0.0,
        metric: str = "cosine",
        n_epochs: int | None = None,
        max_fit_rows: int = 50_000,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.min_dist = min_dist
        self.metric = metric
        self.n_epochs = n_epochs
        self.max_fit_rows = max_fit_rows
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Fit to rows (n, D), a NumPy or a Dask array, of which only the sample is gathered.

        Raises
        ------
        ValueError
            When a parameter is wrong, a row is no vector (all zeros under cosine), or too few rows are distinct.
        """
        names = ("n_components", "n_neighbors", "min_dist", "metric", "n_epochs")
        ProjectionTable(**{name: getattr(self, name) for name in names})
        if self.max_fit_rows < 3:
            raise ValueError(f"max_fit_rows = {self.max_fit_rows}: must be 3 or more.")
        refuse_frame(X)
        if isinstance(X, da.Array):
            self.n_features_in_ = X.shape[1]
        else:
            X = validate_data(self, X, dtype=[np.float32, np.float64], ensure_min_samples=2)
        random = check_random_state(self.random_state)
        sample, probes = X, None
        if X.shape[0] > self.max_fit_rows:
            drawn = random.permutation(X.shape[0])
            sample = X[np.sort(drawn[: self.max_fit_rows])]
            probes = X[np.sort(drawn[self.max_fit_rows :][: self.max_fit_rows])]
        sample, probes = dask.compute(sample, probes)
        with one_thread():
            prepared = self._prepared(sample)
            self._fit(prepared, prepared if probes is None else self._prepared(probes), int(random.randint(2**31)))
        self._n_features_out = self.n_components
        return self

    def _fit(self, sample: Float32, probes: Float32, seed: int) -> None:
        n_rows, sample = len(sample), sample[distinct_rows(sample)]
        if len(sample) < 3:
            raise ValueError(
                f"n_samples = {n_rows}, of which {len(sample)} are distinct under the metric {self.metric}, with "
                f"n_features = {self.n_features_in_}: UMAP needs at least 3."
            )
        k = min(self.n_neighbors, len(sample) - 1)
        self._arrays, self._facts = build_index(sample, probes, k, self.metric)
        self.sample_, self._opened = sample, open_index(self._arrays, self._facts, sample)
        found, distance = nearest(self._opened, sample, k, self.metric)
        self._mean_distance = float(distance.mean(dtype=np.float64))
        self.embedding_ = fit_anchors(
            sample, found, distance, n_components=self.n_components, metric=self.metric, min_dist=self.min_dist,
            n_epochs=self.n_epochs, seed=seed, threads=len(os.sched_getaffinity(0)),
        )  # fmt: skip
        self._field, self._k = repulsion_field(self.embedding_), k

    def transform(self, X: Any) -> Any:
        """Coordinates of rows, (n, d) float32: of a NumPy array a NumPy array, of a Dask array a lazy Dask array.

        Raises
        ------
        ValueError
            When rows have other features, or one is no vector.
        """
        check_is_fitted(self, "embedding_")
        refuse_frame(X)
        if not isinstance(X, da.Array):
            return self._of_rows(validate_data(self, X, dtype=[np.float32, np.float64], reset=False))
        refuse_to_gather(self)
        if X.ndim != 2 or X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has the shape {X.shape}, (n, {self.n_features_in_}) is expected.")
        X = whole_rows(X)
        model, empty = dask.delayed(self), np.empty((0, self.n_components), np.float32)
        chunks = (X.chunks[0], self.n_components)
        return X.map_blocks(_of_block, model, dtype=np.float32, chunks=chunks, meta=empty)

    def _of_rows(self, X: npt.NDArray[Any]) -> Float32:
        a, b = curve_parameters(self.min_dist)
        found = [np.empty((0, self.n_components), np.float32)]
        with one_thread():
            for start in range(0, len(X), _ROWS):
                rows = self._prepared(X[start : start + _ROWS])
                index, distance = nearest(self._opened, rows, self._k, self.metric)
                found.append(
                    project(index, distance, self.embedding_, self._field, a=a, b=b, mean_distance=self._mean_distance)
                )
        return np.concatenate(found)

    def _prepared(self, X: npt.NDArray[Any]) -> Float32:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and so invalid
            rows = np.ascontiguousarray(X, np.float32) + np.float32(0.0)  # no negative zeros: equal rows, equal bytes
        wrong = invalid_rows(rows, self.metric)
        if wrong.any():
            first = int(np.argmax(wrong))
            why = why_invalid(np.asarray(X)[first], rows[first], self.metric)
            raise ValueError(f"a row cannot be projected: {why}.")
        return prepare(rows, self.metric)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # faiss's graph does not travel: it is opened again from its bytes.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "embedding_"):
            self._opened = open_index(self._arrays, self._facts, self.sample_)


def _of_block(rows: npt.NDArray[Any], model: UMAPProjection) -> Float32:
    return model.transform(np.asarray(rows)) if len(rows) else np.empty((0, model.n_components), np.float32)
