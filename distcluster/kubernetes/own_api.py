"""Kubernetes' API as a pod with a token asks for it."""

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a service account's token, its own certificate and the namespace."""

_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of the API, and the right to it.

    Attributes
    ----------
    url : str
    token_file : Path
        Read for every call: Kubernetes renews it.
    opener : OpenerDirector
        Knows Kubernetes' certificate, and no proxy.
    """

    url: str
    token_file: Path
    opener: OpenerDirector

    def call(self, method: str, content: Mapping[str, Any] | None = None, kind: str = "application/json") -> Any:
        """Ask for something; the answer.

        Raises
        ------
        OSError
            When Kubernetes does not answer, or refuses.
        """
        headers = {"Authorization": f"Bearer {self.token_file.read_text().strip()}", "Content-Type": kind}
        body = None if content is None else json.dumps(content).encode()
        try:
            with self.opener.open(Request(self.url, body, headers, method=method), timeout=_ANSWER_SECONDS) as answer:
                return json.load(answer)
        except (HTTPException, ValueError) as error:
            raise OSError(f"no answer of Kubernetes: {error}") from error


def find_endpoint(path: str, environ: Mapping[str, str] = os.environ, mounted: Path = MOUNTED) -> Endpoint:
    """Where this pod reaches a path, in which ``{namespace}`` stands for its own."""
    host = environ["KUBERNETES_SERVICE_HOST"]  # every container of a cluster has these two
    host = f"[{host}]" if ":" in host else host
    namespace = (mounted / "namespace").read_text().strip()
    context = ssl.create_default_context(cafile=str(mounted / "ca.crt"))
    return Endpoint(
        f"https://{host}:{environ['KUBERNETES_SERVICE_PORT']}{path.format(namespace=namespace)}",
        mounted / "token",
        build_opener(ProxyHandler({}), HTTPSHandler(context=context)),
    )
