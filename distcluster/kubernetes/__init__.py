"""A job on Kubernetes: from the job file to objects, to the cluster, and what it says while it runs.

As in ``numerics``, a module comes when a command first uses it: most commands have nothing to do with Kubernetes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distcluster.kubernetes import (
        follow,
        forward,
        kubectl,
        manifests,
        objects,
        pod_logs,
        submission,
        submit,
        submitted,
    )

__all__ = ["follow", "forward", "kubectl", "manifests", "objects", "pod_logs", "submission", "submit", "submitted"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
