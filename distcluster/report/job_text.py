"""The job and its report's table as others may see and use them: absolute paths, no credentials."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distcluster.job import ReportTable
from distcluster.storage.urls import absolute_url


def job_toml(job: Mapping[str, Mapping[str, Any]], table: ReportTable, items: str) -> str:
    """The job as a file that runs it again; defaults are written out, what is unset is left out.

    ``items`` is where the shown items came from, or empty.
    """
    labels = [str(absolute_url(url)) for url in table.labels]
    shown = table.model_dump(mode="json") | {"items": items or None, "labels": labels}
    tables: Sequence[tuple[str, Mapping[str, Any]]] = [*job.items(), ("report", shown)]
    lines = []
    for name, keys in tables:
        # JSON's strings, numbers, booleans and lists are TOML's.
        values = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
        if values:
            lines += [f"[{name}]", *values, ""]
    return "\n".join(lines).rstrip()
