"""Where data lies: URLs and local paths, and the object stores behind them."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import HTTPStore, LocalStore, from_url

from distcluster.errors import JobError
from distcluster.job import WRITABLE_SCHEMES
from distcluster.url import Url, without_secrets

_ENDPOINTS = ("AWS_ENDPOINT_URL", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT")
_REQUEST = timedelta(seconds=120)  # a shard of some hundred megabytes takes its time

OBJECT_SCHEMES = WRITABLE_SCHEMES | {"http", "https"}
"""URL schemes that obstore knows; fsspec may know others."""


def absolute_url(url: str) -> Url:
    """The URL as workers with another working directory can use it: local paths become absolute, ``file://`` too.

    Links are followed, but for a link to a file: its name says what the file is, where the file's own may be a digest.

    Raises
    ------
    JobError
        When it is a path that no file can have.
    """
    path = local_path(url)
    if path is None:
        return Url(url)
    try:
        path = path.expanduser()
        return Url(str(path.parent.resolve() / path.name if path.is_file() else path.resolve()))
    except (RuntimeError, ValueError, OSError) as error:  # no such user, a NUL, a loop of links
        raise JobError(f"{url!r} is no path: {error}.") from error


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
    seconds = seconds or _store_seconds()
    options: dict[str, Any] = {
        "client_options": {
            "allow_http": _is_plain(url),
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
        raise JobError(f"{Url(url)} is nothing that can be opened: {reason_of(error)}.") from None


def store_options(url: str) -> dict[str, str]:
    """The same for libraries that open a store themselves, by the names that Rust's object_store has for them.

    Credentials and endpoints they find in the environment, as obstore does.
    """
    return {
        "allow_http": str(_is_plain(url)).lower(),
        "connect_timeout": "10s",
        "timeout": f"{_REQUEST.seconds}s",
        "client_max_retries": "10000",
        "client_retry_timeout": f"{_store_seconds():.0f}",
    }


def _is_plain(url: str) -> bool:
    """Whether there may be no TLS."""
    return any(each.startswith("http://") for each in (url, *(os.environ.get(name, "") for name in _ENDPOINTS)))


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


def refuse_nested(input_url: str, output_url: str, what: str = "input") -> None:
    """Refuse an output inside the input (or another thing that is read), the input itself, and one around the input.

    Raises
    ------
    JobError
        When one URL is a prefix of the other.
    """
    source, target = (f"{absolute_url(url)}".rstrip("/") + "/" for url in (input_url, output_url))
    if target.startswith(source):
        raise JobError(f"the output {target} lies inside the {what} {source}: writing would damage it.")
    if source.startswith(target):
        raise JobError(f"the {what} {source} lies inside the output {target}: choose an output of its own.")
