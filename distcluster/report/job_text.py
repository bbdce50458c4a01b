"""The job and its report's table as others may see and use them: absolute paths, no credentials."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distcluster.job import ReportTable
from distcluster.storage.urls import absolute_url, public_url


def public_table(table: ReportTable) -> dict[str, Any]:
    """The table as another command can use it."""
    stored = table.model_dump(mode="json")
    labels = [public_url(absolute_url(url)) for url in table.labels]
    return stored | {"items": public_url(absolute_url(table.items)) if table.items else None, "labels": labels}


def job_toml(job: Mapping[str, Mapping[str, Any]], table: ReportTable) -> str:
    """The job as a file that runs it again; defaults are written out, what is unset is left out."""
    tables: Sequence[tuple[str, Mapping[str, Any]]] = [*job.items(), ("report", public_table(table))]
    lines = []
    for name, keys in tables:
        # JSON's strings, numbers, booleans and lists are TOML's.
        values = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None and value != []]
        if values:
            lines += [f"[{name}]", *values, ""]
    return "\n".join(lines).rstrip()
