"""Gaussian mixtures, in the order of the mathematics: parameters, start, EM, criteria, selection, assignment."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distcluster.numerics.mixture import (
        assignment,
        candidate_fit,
        em,
        parameters,
        row_moments,
        scores,
        silhouettes,
        start,
    )

__all__ = ["assignment", "candidate_fit", "em", "parameters", "row_moments", "scores", "silhouettes", "start"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # as in numerics: compiled, and only wanted by those who compute
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
