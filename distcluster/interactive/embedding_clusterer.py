"""The whole pipeline as a scikit-learn estimator."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from distcluster.estimators.dask_em import refuse_frame, refuse_to_gather
from distcluster.export import export_run
from distcluster.interactive.clustering import cluster
from distcluster.interactive.finished_run import Run
from distcluster.job import ReportTable
from distcluster.model import Model, load_model
from distcluster.storage.run import Run as StoredRun

_DTYPES = [np.float32, np.float64, np.float16, np.int8, np.uint8]  # another becomes the first


class EmbeddingClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Cluster embeddings as ``distcluster run`` does, and label, place and score other rows by what was fitted.

    The work is done by the current Dask client's cluster, or by processes of this machine, one a core.

    Parameters
    ----------
    output : str or path, optional
        Where the run is kept, with all its results; fitting again with the same rows and parameters goes on there.
        Absent: in a temporary directory, for as long as the fit takes; then X must be a NumPy array.
    sample, projection, mixture, selection, assign, deploy : mapping, optional
        The tables of a job file.
    random_state : int
        The job's ``sample.seed``.
    progress : bool
        As ``cluster``'s.

    Attributes
    ----------
    labels_, probabilities_ : (N,) int32, float32
        Of the fitted rows; Dask arrays where X is one.
    verdict_ : distcluster.numerics.mixture.selection.Verdict
    table_ : pandas.DataFrame
        The selection table.
    model_ : Model
    run_ : Run or None
        Where ``output`` is given.
    n_features_in_ : int
    """

    def __init__(
        self,
        output: Any = None,
        *,
        sample: Mapping[str, Any] | None = None,
        projection: Mapping[str, Any] | None = None,
        mixture: Mapping[str, Any] | None = None,
        selection: Mapping[str, Any] | None = None,
        assign: Mapping[str, Any] | None = None,
        deploy: Mapping[str, Any] | None = None,
        random_state: int = 0,
        progress: bool = False,
    ) -> None:
        self.output = output
        self.sample = sample
        self.projection = projection
        self.mixture = mixture
        self.selection = selection
        self.assign = assign
        self.deploy = deploy
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: None = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Run the pipeline on rows (N, D), a NumPy array, or a Dask array, which is never gathered.

        Raises
        ------
        JobError
            When parameters or rows are wrong; it is a ValueError. Others as ``cluster``.
        """
        refuse_frame(X)
        is_dask = isinstance(X, da.Array)
        if is_dask and self.output is None:
            raise ValueError("a Dask array needs output: a place for the run that all its workers see.")
        if is_dask:
            self.n_features_in_ = X.shape[1]
        else:
            X = validate_data(self, X, dtype=_DTYPES, ensure_min_samples=2)
        names = ("projection", "mixture", "selection", "assign", "deploy")
        tables: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        tables |= {"sample": {"seed": self.random_state} | dict(self.sample or {}), "report": {"write": "never"}}
        with self._place() as output:
            run = cluster(X, output, progress=self.progress, **tables)
            self._take(run, is_dask)
        return self

    @contextlib.contextmanager
    def _place(self) -> Iterator[str]:
        if self.output is not None:
            yield self.output
            return
        with tempfile.TemporaryDirectory(prefix="distcluster-") as directory:
            yield f"{directory}/run"

    def _take(self, run: Run, is_dask: bool) -> None:
        """Keep what a fit has found; of a temporary run, before it goes."""
        self.verdict_, self.table_ = run.verdict, run.selection
        frame = run.labels()[["label", "probability"]]
        if is_dask:
            lengths = frame.map_partitions(len).compute().tolist()
            self.labels_, self.probabilities_ = (frame[name].to_dask_array(lengths=lengths) for name in frame.columns)
        else:
            frame = frame.compute(scheduler="threads")
            self.labels_, self.probabilities_ = frame.label.to_numpy(), frame.probability.to_numpy()
        self.run_, self.model_ = (None if self.output is None else run), run.model()
        self._files = _exported(run) if self.output is None else {}
        self._n_features_out = self.model_.n_dimensions

    # -- other rows

    def predict(self, X: Any) -> Any:
        """The cluster of every row, (n,) int32; of a Dask array lazily. A fitted row gets its label, bit for bit."""
        return self._fitted().predict(self._rows(X))

    def predict_proba(self, X: Any) -> Any:
        """The probability of every cluster, (n, K) float64."""
        return self._fitted().predict_proba(self._rows(X))

    def score_samples(self, X: Any) -> Any:
        """The log density of every row in the projection, (n,) float32, nats."""
        return self._fitted().score_samples(self._rows(X))

    def transform(self, X: Any) -> Any:
        """Coordinates of every row in the space that is clustered, (n, d) float32."""
        if isinstance(X, da.Array):
            refuse_to_gather(self)
        return self._fitted().transform(self._rows(X))

    def _fitted(self) -> Model:
        check_is_fitted(self, "model_")
        return self.model_

    def _rows(self, X: Any) -> Any:
        refuse_frame(X)
        if not isinstance(X, da.Array):
            return validate_data(self, X, dtype=_DTYPES, reset=False)
        if self.output is None:
            raise ValueError("a Dask array needs output: a place for the model that all its workers see.")
        return X

    # A model travels as the place of its run. Of a temporary run that has gone: its files travel instead.

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state if not state.get("_files") else {key: value for key, value in state.items() if key != "model_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if state.get("_files"):
            self.model_ = _imported(state["_files"])


def _exported(run: Run) -> dict[str, bytes]:
    """The files of a run's model."""
    with tempfile.TemporaryDirectory(prefix="distcluster-") as directory:
        exported = export_run(StoredRun(run.__fspath__()), Path(directory) / "model", "model", ReportTable())
        return {str(file.relative_to(exported)): file.read_bytes() for file in exported.rglob("*") if file.is_file()}


def _imported(files: Mapping[str, bytes]) -> Model:
    with tempfile.TemporaryDirectory(prefix="distcluster-") as directory:
        for name, content in files.items():
            file = Path(directory) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return load_model(directory)
