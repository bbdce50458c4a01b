"""Three-dimensional views that a reader can turn: what the page's script draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distcluster.report.compare import Comparison, first_class
from distcluster.report.palette import colouring, colours
from distcluster.report.subsample_rows import SubsampleRows, principal_axes

_ROWS = 3_000  # a phone turns as many without a stutter
_LETTERS = 80


def interactive_views(
    subsample: SubsampleRows, K: int, comparisons: Sequence[Comparison], texts: Mapping[int, str], tsne_seed: int | None
) -> dict[str, Any] | None:
    """The views and the colourings of the subsample's first rows; None where the run has no such view.

    Parameters
    ----------
    subsample : SubsampleRows
    K : int
    comparisons : sequence of Comparison
        A colouring each, beside that by cluster.
    texts : mapping of int to str
        Items by row.
    tsne_seed : int or None
        Of t-SNE, where it is wanted.
    """
    if subsample.view is None:
        return None
    some = slice(_ROWS)
    mean, axes = principal_axes(subsample.embedding, 3)
    spaces: dict[str, npt.NDArray[Any]] = {
        "UMAP": subsample.view[some],
        "PCA of the embeddings": (subsample.embedding[some] - mean) @ axes,
    }
    if tsne_seed is not None:
        spaces["t-SNE (flat)"] = _tsne(subsample.embedding[some], tsne_seed)
    by_class = [
        {
            "name": f"class ({each.name.rpartition('/')[2]})",
            **found,
            "of": found["of"].tolist(),
        }
        for each in comparisons
        for found in [colouring(first_class(each.of_subsample[some]), each.classes)]
    ]
    return {
        "spaces": [{"name": name, "places": scaled(rows)} for name, rows in spaces.items()],
        "colourings": [
            {
                "name": "cluster",
                "of": subsample.label[some].tolist(),
                "names": [f"cluster {k}" for k in range(K)],
                "colours": colours(K),
            },
            *by_class,
        ],
        "item": [texts.get(int(row), f"row {row}")[:_LETTERS] for row in subsample.row[some]],
    }


def _tsne(rows: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float64]:
    """t-SNE (van der Maaten & Hinton 2008) with openTSNE's defaults, in the plane z = 0."""
    from openTSNE import TSNE  # of an extra

    perplexity = min(30.0, (len(rows) - 1) / 3)
    plane = TSNE(perplexity=perplexity, metric="cosine", random_state=seed).fit(rows)
    return np.pad(np.asarray(plane, np.float64), ((0, 0), (0, 1)))


def scaled(rows: npt.NDArray[Any]) -> list[float]:
    """Places within a ball of radius 1 (but for one row in fifty), x, y, z of each row after the other."""
    low, high = np.quantile(rows, [0.005, 0.995], axis=0)
    centred = rows - (low + high) / 2.0
    radius = np.quantile(np.linalg.norm(centred, axis=1), 0.98) or 1.0
    return [float(value) for value in np.round((centred / radius).astype(float), 3).ravel()]
