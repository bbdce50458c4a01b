"""The Dask client whose cluster does the work."""

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
from distributed import Client
from distributed.client import default_client

from distcluster.errors import JobError

_CERTIFICATES = ("tls_ca_file", "tls_client_cert", "tls_client_key")


def current_client() -> Client | None:
    """The current client, if there is one."""
    try:
        return default_client()
    except ValueError:  # there is none
        return None


def deploy_keys(client: Client) -> dict[str, str]:
    """The keys of ``[deploy]`` that say where a client's scheduler is, and by what certificates it is reached."""
    certificates = {key: getattr(client.security, key, None) for key in _CERTIFICATES}  # texts as well as files
    given = {key: value for key, value in certificates.items() if value is not None}
    return {"kind": "address", "address": client.scheduler.address} | given


def computed_by(client: Client | None, X: Any) -> Callable[[list[Any]], list[Any]]:
    """What computes the delayed tasks of a Dask array: the client, or the threads of this process."""
    if client is None:
        return lambda tasks: list(dask.compute(*tasks))
    if client.asynchronous and isinstance(X, da.Array):
        raise JobError("cluster(): an asynchronous client cannot write a Dask array from here: use a synchronous one.")
    return lambda tasks: list(client.gather(client.compute(tasks)))
