"""The Job of a submission's workers, as the driver's pod asks Kubernetes for more of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distcluster.kubernetes.own_api import MOUNTED, Endpoint, find_endpoint

WORKER_JOB = "DISTCLUSTER_WORKER_JOB"
"""Variable of the driver's container: the Job's name, where the number of workers is the driver's to choose."""


class PodCounts(NamedTuple):
    """Of a Job's pods, whatever became of them."""

    made: int
    """Indices that the Job has had so far."""
    gone: int
    """Those that have ended well."""


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """An Indexed Job at Kubernetes' API, with the right to read it and to raise its number of pods."""

    at: Endpoint
    """The Job's."""

    def counts(self) -> PodCounts:
        """How many pods were asked for, and how many are done.

        Raises
        ------
        OSError
            When Kubernetes does not answer, or refuses.
        """
        return _counts(self.at.call("GET"))

    def grow(self, n: int) -> PodCounts:
        """Have as many indices as that; those that are done stay so.

        Raises
        ------
        OSError
            When Kubernetes does not answer, or refuses.
        """
        change = {"spec": {"parallelism": n, "completions": n}}  # of one size, or refused
        return _counts(self.at.call("PATCH", change, "application/merge-patch+json"))


def _counts(job: Any) -> PodCounts:
    return PodCounts(int(job["spec"]["completions"]), int(job.get("status", {}).get("succeeded", 0)))


def find_worker_job(environ: Mapping[str, str] = os.environ, mounted: Path = MOUNTED) -> WorkerJob | None:
    """The Job that this pod may change, or None where its workers are as many as they are."""
    name = environ.get(WORKER_JOB)
    if name is None:
        return None
    return WorkerJob(find_endpoint(f"/apis/batch/v1/namespaces/{{namespace}}/jobs/{name}", environ, mounted))
