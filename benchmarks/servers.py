"""Servers for tests and benchmarks, each a process of its own: a Dask scheduler with workers, S3's and Azure's API."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import boto3
from azure.storage.blob import BlobServiceClient
from distributed.utils import open_port

SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def changed_environment(changes: dict[str, str | None]) -> dict[str, str]:
    """The environment of this process with some variables set, or taken out where the value is None."""
    return {key: value for key, value in (dict(os.environ) | changes).items() if value is not None}


@contextmanager
def s3_api() -> Iterator[dict[str, str]]:
    """An S3 API with the bucket ``bucket``; yields the environment that points at it."""
    port = open_port("127.0.0.1")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], **SILENT)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        wait_for_http(f"{endpoint}/moto-api/data.json")
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=endpoint, **keys)
        client.create_bucket(Bucket="bucket")
        client.close()
        yield s3_environment(endpoint)
    finally:
        server.terminate()
        server.wait(timeout=30)


def s3_environment(endpoint: str) -> dict[str, str]:
    """What points at a store that takes any key."""
    return {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }  # fmt: skip


@contextmanager
def azure_api(directory: Path) -> Iterator[dict[str, str]]:
    """An API of Azure's blobs with the container ``bucket``: Microsoft's own emulator; yields the environment."""
    port, emulator = open_port("127.0.0.1"), shutil.which("azurite-blob")
    assert emulator, "needs npm's package azurite"
    options = ["--blobPort", str(port), "--location", str(directory), "--disableTelemetry", "--skipApiVersionCheck"]
    server = subprocess.Popen([emulator, *options], **SILENT)
    endpoint = f"http://127.0.0.1:{port}/{_AZURE_ACCOUNT}"
    try:
        wait_for_http(endpoint)
        with BlobServiceClient(endpoint, credential=_AZURE_KEY) as client:
            client.create_container("bucket")
        yield {
            "AZURE_STORAGE_ENDPOINT": endpoint, "AZURE_STORAGE_ACCOUNT_NAME": _AZURE_ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _AZURE_KEY,
        }  # fmt: skip
    finally:
        server.terminate()
        server.wait(timeout=30)


# The emulator's only account, as its documentation gives it.
_AZURE_ACCOUNT = "devstoreaccount1"
_AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def wait_for_http(url: str, seconds: float = 60) -> None:
    """Wait until something answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urlopen(url).close()
            return
        except HTTPError:  # an answer
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing answers at {url}"
            time.sleep(0.1)


@contextmanager
def dask_cluster(
    directory: Path, n_workers: int, n_threads: int = 1, environ: dict[str, str | None] | None = None
) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and workers as processes of their own: the address, and the workers."""
    scheduler_file = directory / "scheduler.json"
    scheduler = [sys.executable, "-m", "dask", "scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    worker = [sys.executable, "-m", "dask", "worker", "--nthreads", str(n_threads), "--no-dashboard"]
    where = ["--scheduler-file", str(scheduler_file)]
    silence = {**SILENT, "env": changed_environment(environ or {})}
    processes = [subprocess.Popen([*scheduler, "--host", "127.0.0.1", *where], **silence)]
    try:
        deadline = time.monotonic() + 60
        while not scheduler_file.exists():
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.05)
        processes += [
            subprocess.Popen([*worker, "--local-directory", str(directory), *where], **silence)
            for _ in range(n_workers)
        ]
        yield json.loads(scheduler_file.read_text())["address"], processes[1:]
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=30)
