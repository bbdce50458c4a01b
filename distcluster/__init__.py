"""Cluster millions of embedding vectors on Dask.

The flow, one stage a line (``distcluster.stages`` has a function for each, ``distcluster.pipeline`` runs them):

1. scan the input once: validity, checksums, two random subsamples of rows
2. build a nearest-neighbour index over the UMAP subsample
3. fit UMAP on that subsample, while the neighbours of every row are found
4. project every row from its neighbours alone
5. fit a grid of Gaussian mixtures on the projection of the mixture subsample
6. compare the candidates on the held-out rows, those in neither subsample, and choose one
7. refine the chosen mixture by EM over all rows
8. write label, probabilities and density of every row
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distcluster.errors import JobError
    from distcluster.estimators.gaussian_mixture import GaussianMixture
    from distcluster.estimators.grid_search import GaussianMixtureSearch
    from distcluster.estimators.umap_projection import UMAPProjection
    from distcluster.interactive.clustering import cluster
    from distcluster.interactive.embedding_clusterer import EmbeddingClusterer
    from distcluster.interactive.finished_run import Run, open_run
    from distcluster.job import Job
    from distcluster.job_file import load_job, parse_job
    from distcluster.model import Model, load_model

    __version__: str

__all__ = [
    "EmbeddingClusterer", "GaussianMixture", "GaussianMixtureSearch", "Job", "JobError", "Model", "Run",
    "UMAPProjection", "__version__", "cluster", "load_job", "load_model", "open_run", "parse_job",
]  # fmt: skip

_MODULES = {
    "EmbeddingClusterer": "interactive.embedding_clusterer",
    "GaussianMixture": "estimators.gaussian_mixture",
    "GaussianMixtureSearch": "estimators.grid_search",
    "Job": "job",
    "JobError": "errors",
    "Model": "model",
    "Run": "interactive.finished_run",
    "UMAPProjection": "estimators.umap_projection",
    "cluster": "interactive.clustering",
    "load_job": "job_file",
    "load_model": "model",
    "open_run": "interactive.finished_run",
    "parse_job": "job_file",
}


def __getattr__(name: str) -> Any:
    # Dask, scikit-learn, numba and Zarr take seconds to import, and the command line must answer at once.
    if name == "__version__":
        return import_module("importlib.metadata").version("distcluster")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
