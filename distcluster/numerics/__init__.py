"""Arrays in, arrays out: no Dask, no store, no job file.

What is compiled, or imports SciPy or faiss, comes when a task first uses it: stages say ``numerics.neighbors.nearest``,
so that those who only look at a run import none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distcluster.numerics import (
        hierarchy,
        lineage,
        mixture,
        near_pairs,
        neighbors,
        prepared_rows,
        projection,
        repulsion,
        row_stability,
        stability,
        umap_fit,
    )

__all__ = [
    "hierarchy", "lineage", "mixture", "near_pairs", "neighbors", "prepared_rows", "projection", "repulsion",
    "row_stability", "stability", "umap_fit",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
