"""UMAP fitted on the sample: the anchors, and the curve that its forces follow."""

import contextlib
import functools
import inspect
import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distcluster.numerics.epochs import default_epochs, lay_out
from distcluster.numerics.fuzzy_graph import breadth_first, fuzzy_graph
from distcluster.numerics.spectral_start import spectral_start

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Optimizer = Literal["batch", "umap-learn"]


def fit_anchors(
    sample: Float32,
    index: Int32,
    distance: Float32,
    *,
    n_components: int,
    metric: str,
    min_dist: float,
    n_epochs: int | None,
    seed: int,
    optimizer: Optimizer = "batch",
    threads: int = 1,
) -> Float32:
    """Coordinates of the sample rows: UMAP's fit, from the neighbours that are already known.

    Parameters
    ----------
    sample : (S, D) float32, prepared, distinct rows
    index, distance : (S, k) int32, float32
        Nearest sample rows of each sample row, itself left out.
    n_components : int
        d.
    metric, min_dist, n_epochs, seed
        UMAP's ``metric``, ``min_dist``, ``n_epochs`` and ``random_state``.
    optimizer : "batch" or "umap-learn"
        Ours, or umap-learn's own.
    threads : int
        Of "batch"; they change no bit.

    Returns
    -------
    (S, d) float32
    """
    if optimizer == "umap-learn":
        return _fit_by_umap_learn(
            sample, index, distance, n_components=n_components, metric=metric, min_dist=min_dist,
            n_epochs=n_epochs, random_state=seed,
        )  # fmt: skip
    a, b = curve_parameters(min_dist)
    rows, graph = breadth_first(fuzzy_graph(index, distance))
    start = spectral_start(graph, sample, rows, n_components, seed, threads)
    n_epochs = n_epochs or default_epochs(len(sample), n_components)
    anchors = np.empty_like(start)
    anchors[rows] = lay_out(graph, start, a=a, b=b, n_epochs=n_epochs, seed=seed, threads=threads)
    return anchors


def _fit_by_umap_learn(sample: Float32, index: Int32, distance: Float32, **parameters: Any) -> Float32:
    """As ``fit_anchors``; the parameters are UMAP's."""
    from umap import UMAP  # a second to import

    _keep_umap_kernels()
    _seed_restarts()
    itself = np.arange(len(sample), dtype=np.int32)[:, None]
    model = UMAP(
        n_neighbors=index.shape[1],
        **parameters,
        n_jobs=1,
        precomputed_knn=(
            np.hstack([itself, index[:, :-1]]),
            np.hstack([np.zeros_like(distance[:, :1]), distance[:, :-1]]),
        ),
        force_approximation_algorithm=True,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="precomputed_knn\\[2\\]")  # its transform is not used
        warnings.filterwarnings("ignore", message=".*[Ss]pectral initiali[sz]ation.*")  # it falls back by itself
        warnings.filterwarnings("ignore", message="Graph is not fully connected")  # nothing to mend
        anchors = model.fit_transform(sample)
    return np.ascontiguousarray(anchors, np.float32)


@functools.cache
def _keep_umap_kernels() -> None:
    """Have numba keep what umap-learn would compile again for five seconds in every process."""
    from umap import layouts, umap_

    with contextlib.suppress(RuntimeError):  # no directory for numba's cache can be written: compile again
        for kernel in (
            umap_.smooth_knn_dist,
            umap_.compute_membership_strengths,
            layouts.rdist,
            layouts.clip,
            layouts._nb_optimize_layout_euclidean_single_epoch,
        ):
            kernel.enable_caching()


@functools.cache
def _seed_restarts() -> None:
    """Give ARPACK a seed where umap-learn, by way of scikit-learn, gives it none.

    Where the sample's graph falls into more than 2 d parts, their places are eigenvectors of a matrix that is nearly
    the identity when the parts lie far apart. ARPACK then starts again from random vectors, which are others each
    time: umap-learn's random_state does not reach them.
    """
    from sklearn.manifold import spectral_embedding

    module: Any = inspect.getmodule(inspect.unwrap(spectral_embedding))
    if "rng" in inspect.signature(module.eigsh).parameters:  # SciPy 1.17; before, ARPACK seeded itself
        module.eigsh = functools.partial(module.eigsh, rng=0)


@functools.cache
def curve_parameters(min_dist: float) -> tuple[float, float]:
    """UMAP's a and b: the low-dimensional similarity is 1 / (1 + a x^2b) (McInnes, Healy, Melville 2018, 3.2).

    The curve that is nearest, in squares on 300 points from 0 to 3, to one that is 1 up to ``min_dist`` and falls
    exponentially beyond; as umap-learn finds it.

    Examples
    --------
    >>> np.round(curve_parameters(0.1), 3).tolist()
    [1.577, 0.895]
    """
    from scipy.optimize import curve_fit  # half a second to import; few tasks need it

    x = np.linspace(0.0, 3.0, 300)
    wanted = np.where(x < min_dist, 1.0, np.exp(-(x - min_dist)))
    (a, b), _ = curve_fit(lambda x, a, b: 1.0 / (1.0 + a * x ** (2.0 * b)), x, wanted)
    return float(a), float(b)
