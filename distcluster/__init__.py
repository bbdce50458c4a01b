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

from typing import TYPE_CHECKING, Any

from distcluster.errors import JobError
from distcluster.job import Job
from distcluster.job_file import load_job, parse_job
from distcluster.storage.run import Run

__all__ = [
    "GaussianMixture", "GaussianMixtureSearch", "Job", "JobError", "Model", "Run",
    "load_job", "load_model", "parse_job",
]  # fmt: skip

if TYPE_CHECKING:
    from distcluster.estimators.gaussian_mixture import GaussianMixture
    from distcluster.estimators.grid_search import GaussianMixtureSearch
    from distcluster.model import Model, load_model


def __getattr__(name: str) -> Any:
    # Dask, scikit-learn and numba take seconds to import, and the command line must answer at once.
    if name == "GaussianMixture":
        from distcluster.estimators.gaussian_mixture import GaussianMixture

        return GaussianMixture
    if name == "GaussianMixtureSearch":
        from distcluster.estimators.grid_search import GaussianMixtureSearch

        return GaussianMixtureSearch
    if name in ("Model", "load_model"):
        from distcluster import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
