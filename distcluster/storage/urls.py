"""Where data lies: URLs and local paths, and the object stores behind them."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from obstore.exceptions import BaseError
from obstore.store import HTTPStore, LocalStore, from_url

from distcluster.errors import JobError
from distcluster.job import WRITABLE_SCHEMES

_REQUEST = timedelta(seconds=120)  # a shard of some hundred megabytes takes its time

OBJECT_SCHEMES = WRITABLE_SCHEMES | {"http", "https"}
"""URL schemes that obstore knows; fsspec may know others."""


def absolute_url(url: str) -> str:
    """The URL as workers with another working directory can use it: local paths become absolute, ``file://`` too.

    Raises
    ------
    JobError
        When it is a path that no file can have.
    """
    path = local_path(url)
    if path is None:
        return url
    try:
        return str(path.expanduser().resolve())
    except (RuntimeError, ValueError, OSError) as error:  # no such user, a NUL, a loop of links
        raise JobError(f"{url!r} is no path: {error}.") from error


def public_url(url: str) -> str:
    """The URL without user, password and query, which may hold credentials or signatures; a chain link by link.

    Examples
    --------
    >>> public_url("zip://a.zarr::https://me:pw@host/b.zip?sig=abc")
    'zip://a.zarr::https://host/b.zip'
    """
    return "::".join(_public(link) for link in url.split("::"))


def _public(url: str) -> str:
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are no address
        return f"{url.partition('://')[0]}://..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def without_secrets(text: str) -> str:
    """A text in which every URL is a ``public_url``: stores put whole URLs into their messages.

    Examples
    --------
    >>> without_secrets("GET https://me:pw@host/x/zarr.json?signature=abc: 403")
    'GET https://host/x/zarr.json: 403'
    """
    text = _USER.sub("", text)
    return _URL.sub(lambda found: public_url(found[0].rstrip(":,.;")) + found[0][len(found[0].rstrip(":,.;")) :], text)


_USER = re.compile(r"(?<=://)[^/\s]*@")  # a password may hold quotes and brackets
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>()]+")


def reason_of(error: Exception) -> str:
    """The first line of what a store or a codec says, without the secrets of its URLs."""
    return without_secrets(str(error).splitlines()[0]) if str(error) else type(error).__name__


def local_path(url: str) -> Path | None:
    """The path behind a local URL, else None."""
    if "://" not in url:
        return Path(url)
    return Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None


def object_store(url: str, create: bool = False, seconds: float | None = None) -> Any:
    """Obstore's store for a URL; credentials and endpoints come from the environment (AWS_*, GOOGLE_*, AZURE_*).

    What fails for a while is tried again, with exponential backoff and jitter, for so many seconds; absent: five
    minutes, or as many seconds as the environment variable ``DISTCLUSTER_STORE_SECONDS`` says.
    """
    path = local_path(url)
    if path is not None:
        return LocalStore(path, mkdir=create)
    is_plain = url.startswith("http://") or os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    seconds = seconds or _store_seconds()
    options: dict[str, Any] = {
        "client_options": {
            "allow_http": is_plain,
            "connect_timeout": timedelta(seconds=10),
            "timeout": min(_REQUEST, timedelta(seconds=seconds)),
        },
        "retry_config": {
            "max_retries": 10_000,  # the time decides
            "retry_timeout": timedelta(seconds=seconds),
            "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=15), "base": 2},
        },
    }
    try:
        return from_url(url, **options)
    except (BaseError, ValueError) as error:
        raise JobError(f"{public_url(url)} is nothing that can be opened: {reason_of(error)}.") from None


def _store_seconds() -> float:
    given = os.environ.get("DISTCLUSTER_STORE_SECONDS", "300")
    try:
        return min(max(float(given), 1.0), 86_400.0)
    except ValueError as error:
        raise JobError(f"DISTCLUSTER_STORE_SECONDS is {given!r}: it must be a number of seconds.") from error


def http_store(url: str, seconds: float) -> tuple[Any, str]:
    """The web server of a file's directory and the file's name, for one try without credentials."""
    directory, _, name = url.rpartition("/")
    options: dict[str, Any] = {
        "client_options": {"allow_http": True, "timeout": timedelta(seconds=seconds)},
        "retry_config": {"max_retries": 0},
    }
    return HTTPStore.from_url(directory, **options), name


def file_store(url: str) -> tuple[Any, str]:
    """The store of a file's directory, and the file's name in it."""
    directory, _, name = absolute_url(url).rpartition("/")
    path = local_path(directory or "/")
    if path is not None and not path.is_dir():
        raise FileNotFoundError(path)
    return object_store(directory or "/"), name


def refuse_nested(input_url: str, output_url: str) -> None:
    """Refuse an output inside the input, the input itself, and an output around the input.

    Raises
    ------
    JobError
        When one URL is a prefix of the other.
    """
    source, target = (f"{public_url(absolute_url(url)).rstrip('/')}/" for url in (input_url, output_url))
    if target.startswith(source):
        raise JobError(f"the output {target} lies inside the input {source}: writing would damage it.")
    if source.startswith(target):
        raise JobError(f"the input {source} lies inside the output {target}: choose an output of its own.")
