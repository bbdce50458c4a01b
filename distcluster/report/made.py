"""What a report was made of: as long as that is as it was, the report need not be made again."""

import json
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version

from distcluster.job import ReportTable
from distcluster.stages.deduplicating import PUBLISH_DUPLICATES
from distcluster.stages.labelling import SUMMARISE_CLUSTERS
from distcluster.storage.layout import REPORT, REPORT_MADE
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE
from distcluster.storage.urls import absolute_url, local_path


def current_report(run: Run, table: ReportTable, *, worked: bool) -> str:
    """The URL of a run's report; it is written, unless no work was done and it would be the same as the one there.

    Files of items and labels count by size and time; those elsewhere, and directories, are taken to be as they were.
    """
    if not worked and run.store.get(REPORT_MADE) == made_of(run, table) and run.store.has(REPORT):
        return report_url(run)
    from distcluster.report.page import write_report  # it imports what draws

    return write_report(run, table)


def report_url(run: Run) -> str:
    """Where a run's report lies."""
    return f"{str(run.url).rstrip('/')}/{REPORT}"


def made_of(run: Run, table: ReportTable) -> bytes:
    """What a report that is made now is made of."""
    record = run.records.read(SUMMARISE_CLUSTERS.name, ONE)
    searches = (run.around or run).records.of_stage(PUBLISH_DUPLICATES.name)
    facts = {
        "settings": asdict(run.settings),
        "last_commit": record.id if record is not None else "",
        "duplicates": {item: each.id for item, each in sorted(searches.items())},
        "table": table.model_dump(mode="json"),
        "files": [_file(place) for place in (table.items, *table.labels) if place is not None],
    }
    digest = sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return json.dumps({"distcluster": version("distcluster"), "digest": digest}).encode()


def _file(place: str) -> tuple[str, int, int]:
    url = absolute_url(place)
    path = local_path(url)
    if path is None or not path.exists():
        return str(url), 0, 0
    seen = path.stat()
    return str(url), seen.st_size, seen.st_mtime_ns
