"""Requests of a whole job to an object store, by what is asked for and how, for some numbers of partitions.

    python -m benchmarks.traffic [--partitions 16 64] [--json FILE]

They are counted by a proxy in front of an S3 API. What is asked for goes by the stage that writes it. ``GROWTH`` says
how many there are more for each further partition; a test holds it.
"""

import argparse
import json
import re
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.chaos import RUN, faulty_store, run_seconds, write_job
from distcluster.storage.layout import arrays

GROWTH = {
    ("find_neighbours", "GET"): 2, ("find_neighbours", "PUT"): 3,
    ("label_rows", "GET"): 4, ("label_rows", "PUT"): 10,
    ("project_rows", "GET"): 9, ("project_rows", "PUT"): 4,
    ("scan", "GET"): 2, ("scan", "PUT"): 3,
    ("score_candidates", "GET"): 1, ("score_candidates", "PUT"): 2,
    ("sum_silhouettes", "GET"): 1, ("sum_silhouettes", "PUT"): 2,
    ("lease", "LIST"): 2, ("lease", "PUT"): 1,
}  # fmt: skip
"""Requests for each further partition, by owner and kind; the lease's go by time.

Of a job that refines all partitions in one task and has two levels.
"""

LOCAL = ("--set", "deploy.kind=local")
Requests = Counter[tuple[str, str]]


def count_requests(directory: Path, partitions: int) -> Requests:
    """Requests by owner and kind."""
    requests: Requests = Counter()
    directory.mkdir(exist_ok=True)
    job = write_job(directory, partitions, RUN.format(f"counted-{partitions}"))
    with faulty_store() as proxy:
        proxy.watch = lambda method, path: requests.update([(owner_of(path), kind_of(method, path))])
        run_seconds(job, *LOCAL)
    return requests


def kind_of(method: str, path: str) -> str:
    """What is asked for."""
    if method == "GET" and "list-type" in path:
        return "LIST"
    return "DELETE" if method == "POST" and "delete" in path else method


def owner_of(path: str) -> str:
    """The stage that writes an object, or what it is."""
    place, _, query = path.partition("?")
    key = place.split("/", 3)[3] if place.count("/") > 2 else ""
    if prefix := re.search(r"prefix=([^&]*)", query):
        key = prefix[1].replace("%2F", "/").partition("/")[2]
    parts = key.strip("/").split("/")
    if parts[0] in ("commit", "partial") and len(parts) > 1:
        return parts[1].removesuffix(".json")
    owners = {array.path.split("{")[0].strip("/"): array.stage for array in arrays()}
    return next(
        (stage for path, stage in owners.items() if path and f"{key}/".startswith(f"{path}/")), parts[0] or "run"
    )


def main() -> None:
    """Count, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {}
    for partitions in arguments.partitions:
        with tempfile.TemporaryDirectory() as directory:
            found[partitions] = count_requests(Path(directory), partitions)
    table = Table("of", "kind", *(f"{each} partitions" for each in found), box=None)
    for owner, kind in sorted(set().union(*found.values())):
        table.add_row(owner, kind, *(f"{each[owner, kind]:,}" for each in found.values()))
    table.add_row("all", "", *(f"{each.total():,}" for each in found.values()))
    Console().print(table)
    if arguments.json:
        flat = {each: {f"{owner} {kind}": n for (owner, kind), n in sorted(of.items())} for each, of in found.items()}
        arguments.json.write_text(json.dumps(flat, indent=2) + "\n")


if __name__ == "__main__":
    main()
