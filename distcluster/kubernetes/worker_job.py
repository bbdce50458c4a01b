"""The Job of a submission's workers, as the driver's pod asks Kubernetes for more of them."""

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

WORKER_JOB = "DISTCLUSTER_WORKER_JOB"
"""Variable of the driver's container: the Job's name, where the number of workers is the driver's to choose."""
MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a service account's token, its own certificate and the namespace."""

_ANSWER_SECONDS = 10.0


class PodCounts(NamedTuple):
    """Of a Job's pods, whatever became of them."""

    made: int
    """Indices that the Job has had so far."""
    gone: int
    """Those that have ended well."""


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """An Indexed Job at Kubernetes' API, with the right to read it and to raise its number of pods.

    Attributes
    ----------
    url : str
        The Job's.
    token_file : Path
        Read for every call: Kubernetes renews it.
    opener : OpenerDirector
        Knows Kubernetes' certificate, and no proxy.
    """

    url: str
    token_file: Path
    opener: OpenerDirector

    def counts(self) -> PodCounts:
        """How many pods were asked for, and how many are done.

        Raises
        ------
        OSError
            When Kubernetes does not answer, or refuses.
        """
        return _counts(self._call("GET"))

    def grow(self, n: int) -> PodCounts:
        """Have as many indices as that; those that are done stay so.

        Raises
        ------
        OSError
            When Kubernetes does not answer, or refuses.
        """
        return _counts(self._call("PATCH", {"spec": {"parallelism": n, "completions": n}}))  # of one size, or refused

    def _call(self, method: str, change: Mapping[str, Any] | None = None) -> Any:
        headers = {
            "Authorization": f"Bearer {self.token_file.read_text().strip()}",
            "Content-Type": "application/merge-patch+json",
        }
        body = None if change is None else json.dumps(change).encode()
        try:
            with self.opener.open(Request(self.url, body, headers, method=method), timeout=_ANSWER_SECONDS) as answer:
                return json.load(answer)
        except (HTTPException, ValueError) as error:
            raise OSError(f"no answer of Kubernetes: {error}") from error


def _counts(job: Any) -> PodCounts:
    return PodCounts(int(job["spec"]["completions"]), int(job.get("status", {}).get("succeeded", 0)))


def find_worker_job(environ: Mapping[str, str] = os.environ, mounted: Path = MOUNTED) -> WorkerJob | None:
    """The Job that this pod may change, or None where its workers are as many as they are."""
    name = environ.get(WORKER_JOB)
    if name is None:
        return None
    host = environ["KUBERNETES_SERVICE_HOST"]  # every container of a cluster has these two
    host = f"[{host}]" if ":" in host else host
    namespace = (mounted / "namespace").read_text().strip()
    context = ssl.create_default_context(cafile=str(mounted / "ca.crt"))
    return WorkerJob(
        f"https://{host}:{environ['KUBERNETES_SERVICE_PORT']}/apis/batch/v1/namespaces/{namespace}/jobs/{name}",
        mounted / "token",
        build_opener(ProxyHandler({}), HTTPSHandler(context=context)),
    )
