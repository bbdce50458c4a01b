"""Where data lies: the input, what a row is for a person, and the run.

What imports Zarr comes when it is first used, as in ``numerics``: a run's records are read without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distcluster.storage import inputs, zarr_arrays

__all__ = ["inputs", "zarr_arrays"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
