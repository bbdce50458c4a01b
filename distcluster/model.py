"""A run's frozen model in this process: labels for rows that are at hand, as a run would give them."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from distcluster.environment import one_thread
from distcluster.errors import JobError
from distcluster.numerics.index_facts import INDEX_ARRAYS
from distcluster.numerics.mixture.assignment import Assignment, assign_rows, responsibilities
from distcluster.numerics.mixture.parameters import Mixture
from distcluster.numerics.neighbors import NeighbourIndex, nearest, open_index
from distcluster.numerics.prepared_rows import prepare, principal
from distcluster.numerics.projection import project
from distcluster.numerics.row_stability import RowStability
from distcluster.numerics.sampling import invalid_rows, why_invalid
from distcluster.numerics.support import support
from distcluster.stages.freezing import model_id, require_model, require_same_bits
from distcluster.stages.projecting import FIT_UMAP, FIT_VIEWS, views
from distcluster.stages.refining import published_mixture
from distcluster.stages.searching import BUILD_INDEX
from distcluster.stages.subsampling import as_float32
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.url import Url

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_ROWS = 4_096  # that are labelled at a time


@dataclass(frozen=True, slots=True)
class _Space:
    """A projection: UMAP's coordinates of the sample, the field of their repulsion, the curve of both forces."""

    anchors: Float32
    field: Float32
    a: float
    b: float


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows that are labelled at a time, (n, D) float32, and which are valid."""

    rows: Float32
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Labels(Assignment):
    """All that a run writes for a row, of n rows; invalid rows have -1 and NaN.

    Attributes
    ----------
    projection : (n, d) float32
    support : (n,) float32
        Above ``Model.support_limit`` the model hardly represents the row.
    stability : (n,) float32
        Share of the replicates in which the cluster held the row, by labelled rows beside it; NaN where none are known.
    """

    projection: Float32
    support: Float32
    stability: Float32


class Model:
    """A frozen model; get one from ``load_model``.

    Methods take arrays of shape (n, D), any real dtype. NumPy arrays give NumPy arrays; Dask arrays give lazy Dask
    arrays, whose workers read the model from where it lies. Every row is treated by itself: a row that the run has seen
    gets the run's bytes, in any company. Threads may share a model.

    Parameters
    ----------
    run : Run
    same_bits : bool
        Whether other processes must refuse it where other bits would come out.

    Attributes
    ----------
    url : Url
        Where it was read.
    run_id : str
        Of the run that made it.
    n_features, n_clusters, n_dimensions : int
        D, K, d.
    mixture : Mixture
    support_limit : float
        One in a thousand rows of the sample lies above it.
    """

    def __init__(self, run: Run, *, same_bits: bool = True) -> None:
        self._same_bits = same_bits
        table = run.job.projection
        self.url, self.run_id = run.url, model_id(run)
        self.n_features = run.settings.input.shape[1]
        self._metric, self._k = table.metric, table.n_neighbors
        self._skips, self._top = run.job.input.on_invalid == "skip", run.job.assign.top
        pca = (layout.PCA_MEAN, layout.PCA_COMPONENTS) if table.pca is not None else ()
        self._pca = tuple(run.read(each) for each in pca)
        facts = BUILD_INDEX.facts_of(run)
        self.support_limit, self._mean_distance = facts.support_limit, facts.mean_distance
        arrays = {name: run.read(layout.INDEX[name]) for name in INDEX_ARRAYS}
        self._index: NeighbourIndex = open_index(arrays, facts.search, self._searched(run.read(layout.SAMPLE)))
        self._scale = run.read(layout.SAMPLE_SCALE)
        curve = FIT_UMAP.facts_of(run)
        self._spaces = {"projection": _Space(run.read(layout.ANCHORS), run.read(layout.FIELD), curve.a, curve.b)}
        for view in views(run.job):
            curve = FIT_VIEWS.facts_of(run, view)
            anchors, field = (run.read(each, view) for each in (layout.VIEW_ANCHORS, layout.VIEW_FIELD))
            self._spaces[view] = _Space(anchors, field, curve.a, curve.b)
        self.mixture: Mixture = published_mixture(run)
        self._stability = RowStability(*run.read_together(list(layout.ROW_STABILITY.values())))
        self.n_clusters, self.n_dimensions = self.mixture.means.shape

    def __repr__(self) -> str:
        return f"Model({str(self.url)!r}, {self.mixture.candidate}, {self.n_features} features)"

    def __reduce__(self) -> tuple[Callable[[Url, str, bool], "Model"], tuple[Url, str, bool]]:
        return _loaded_once, (self.url, self.run_id, self._same_bits)

    # -- answers

    def predict(self, X: Any) -> Any:
        """The cluster of every row, (n,) int32; -1 for an invalid row.

        Raises
        ------
        ValueError
            When rows have other features, or are invalid and the run's ``input.on_invalid`` is "error".
        """
        return self._answer(X, lambda block: self._mixed(block).label, np.int32)

    def predict_proba(self, X: Any) -> Any:
        """The probability of every cluster, (n, K) float64; they sum to 1 in a row, and are NaN in an invalid one."""
        return self._answer(
            X, lambda block: responsibilities(self._project(block), self.mixture)[0], np.float64, self.n_clusters
        )

    def score_samples(self, X: Any) -> Any:
        """The log density of every row under the mixture, (n,) float32, nats: low is unusual."""
        return self._answer(X, lambda block: self._mixed(block).log_density, np.float32)

    def support(self, X: Any) -> Any:
        """The distance of every row to its nearest sample row over the sample's own scale there, (n,) float32."""
        return self._answer(X, lambda block: support(*self._neighbours(block), self._scale), np.float32)

    def transform(self, X: Any, space: str = "projection") -> Any:
        """Coordinates of every row, (n, d) float32.

        Parameters
        ----------
        X : (n, D) array
        space : str
            "projection", which is clustered, or a view of the run, such as "view_2d".
        """
        if space not in self._spaces:
            raise ValueError(f"space = {space!r}: must be one of {', '.join(self._spaces)}.")
        wide = self._spaces[space].anchors.shape[1]
        return self._answer(X, lambda block: self._project(block, space), np.float32, wide)

    def assign(self, X: npt.ArrayLike, top: int | None = None) -> Labels:
        """Everything at once, for a NumPy array.

        Parameters
        ----------
        X : (n, D) array
        top : int, optional
            How many clusters to name for each row; by default as many as the run.
        """
        top = self._top if top is None else top
        if top < 1:
            raise ValueError(f"top = {top}: must be 1 or more.")
        with one_thread():
            parts = [self._assign(block, top) for block in self._blocks(np.asarray(X))]
        return Labels(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES})

    # -- one block of rows

    def _answer(self, X: Any, of_block: Callable[[_Block], Any], dtype: Any, wide: int | None = None) -> Any:
        if hasattr(X, "dask"):
            from distcluster.estimators.dask_em import whole_rows  # Dask takes a second to import

            self._require_features(X)
            X = whole_rows(X)
            shape = {"drop_axis": 1} if wide is None else {"chunks": (X.chunks[0], wide)}
            meta = np.empty((0,) if wide is None else (0, wide), dtype)
            return X.map_blocks(lambda rows: self._of_blocks(rows, of_block), dtype=dtype, meta=meta, **shape)
        return self._of_blocks(np.asarray(X), of_block)

    def _of_blocks(self, X: npt.NDArray[Any], of_block: Callable[[_Block], Any]) -> Any:
        with one_thread():
            return np.concatenate([of_block(block) for block in self._blocks(X)])

    def _blocks(self, X: npt.NDArray[Any]) -> Iterator[_Block]:
        self._require_features(X)
        for start in range(0, max(len(X), 1), _ROWS):
            raw = X[start : start + _ROWS]
            rows = as_float32(raw)
            wrong = invalid_rows(rows, self._metric)
            if wrong.any() and not self._skips:
                first = int(np.argmax(wrong))
                why = why_invalid(raw[first], rows[first], self._metric)
                raise ValueError(f"row {start + first:,} (of a Dask array: of a chunk) cannot be labelled: {why}.")
            yield _Block(rows, ~wrong)

    def _require_features(self, X: Any) -> None:
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"rows of shape (n, {self.n_features}) are expected, got an array of shape {X.shape}.")

    def _mixed(self, block: _Block) -> Assignment:
        return assign_rows(self._project(block), self.mixture, top=1)

    def _assign(self, block: _Block, top: int) -> Labels:
        near = self._neighbours(block)
        projection = self._place(*near, "projection")
        found = assign_rows(projection, self.mixture, top)
        own = {each.name: getattr(found, each.name) for each in fields(Assignment)}
        stability = self._stability.of_rows(projection, found.label)
        return Labels(**own, projection=projection, support=support(*near, self._scale), stability=stability)

    def _neighbours(self, block: _Block) -> tuple[Int32, Float32]:
        index = np.full((len(block.rows), self._k), -1, np.int32)
        distance = np.full(index.shape, np.nan, np.float32)
        valid = block.valid
        if valid.any():
            prepared = self._searched(prepare(block.rows[valid], self._metric))
            index[valid], distance[valid] = nearest(self._index, prepared, self._k, self._metric)
        return index, distance

    def _searched(self, prepared: Float32) -> Float32:
        return np.asarray(principal(np.ascontiguousarray(prepared), *self._pca)) if self._pca else prepared

    def _project(self, block: _Block, space: str = "projection") -> Float32:
        return self._place(*self._neighbours(block), space)

    def _place(self, index: Int32, distance: Float32, space: str) -> Float32:
        of = self._spaces[space]
        return project(index, distance, of.anchors, of.field, a=of.a, b=of.b, mean_distance=self._mean_distance)


_NAMES = [each.name for each in fields(Labels)]


def load_model(url: str, *, same_bits: bool = True) -> Model:
    """Read the model of a run.

    Parameters
    ----------
    url : str
        A run with a model, a prediction, or what ``distcluster export --to model`` has written.
    same_bits : bool
        Refuse it where package versions or instruction level differ from the run's, so that other bits would come out.

    Raises
    ------
    JobError
        When there is no model, or it would give other bits here.
    CorruptError
        When an array of the model is damaged.
    """
    run = Run(url)
    require_model(run)
    if same_bits:
        require_same_bits(run)
    return Model(run, same_bits=same_bits)


@functools.lru_cache(maxsize=4)
def _loaded_once(url: Url, run_id: str, same_bits: bool) -> Model:
    """A model that came from another process, read once."""
    model = load_model(url, same_bits=same_bits)
    if model.run_id != run_id:
        raise JobError(f"{url} now holds another model than the one that was loaded.")
    return model
