"""The job that `distcluster cluster` makes of its options, as a job file."""

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from distcluster.errors import JobError
from distcluster.job import Job
from distcluster.job_file import override, parse_job
from distcluster.storage.urls import local_path
from distcluster.url import Url, without_secrets


def made_job(
    source: str, output: str | None, *, text: str | None, id_column: str | None, overrides: Sequence[str]
) -> tuple[Job, str]:
    """A job, and the file that says it, without the secrets of its URLs.

    Parameters
    ----------
    source : str
        The input's path or URL.
    output : str or None
        The run's; None: ``runs/`` and the source's name.
    text, id_column : str or None
        Columns of the input: what a person reads as the row, and what names it.
    overrides : sequence of str
        ``table.key=value``.

    Raises
    ------
    JobError
        When a key or a value is wrong.
    """
    tables: dict[str, dict[str, Any]] = {"input": {"url": source}, "output": {"url": output or f"runs/{_stem(source)}"}}
    if id_column is not None:
        tables["input"]["id"] = id_column
    if text is not None:
        tables["report"] = {"items": f"input:{text}"}
    for each in overrides:
        override(tables, each)
    return parse_job(tables, name="the options"), without_secrets(job_file(tables))


def job_file(tables: dict[str, dict[str, Any]]) -> str:
    r"""Tables as TOML.

    Examples
    --------
    >>> print(job_file({"input": {"url": "a.zarr"}, "sample": {"rows": 2000, "top_up": True}}), end="")
    [input]
    url = "a.zarr"
    <BLANKLINE>
    [sample]
    rows = 2000
    top_up = true
    """
    # JSON's strings, numbers, booleans and lists are TOML's.
    lines = [
        [f"[{name}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items())]
        for name, keys in tables.items()
    ]
    return "\n\n".join("\n".join(each) for each in lines) + "\n"


def keep_job(job: Job, written: str) -> str | None:
    """Write the job file beside a local run; gives its path, or None where another file has that name."""
    run = local_path(job.output.url)
    if run is None:
        return None
    file = run.with_name(f"{run.name}.toml")
    try:
        with file.open("x") as new:
            new.write(written)
    except FileExistsError:
        return str(file) if file.read_text() == written else None
    return str(file)


def _stem(source: str) -> str:
    """The source's name, without what says its format.

    Examples
    --------
    >>> _stem("s3://bucket/docs.zarr.zip?versionId=3"), _stem("data/docs/"), _stem("hf/*.parquet")
    ('docs', 'docs', 'hf')
    """
    parts = [part for part in PurePosixPath(urlsplit(source).path).parts if "*" not in part and part.strip("/.")]
    if not parts:
        raise JobError(f"{Url(source)} has no name to call the run by: choose --output.")
    return parts[-1].split(".")[0] or parts[-1]
