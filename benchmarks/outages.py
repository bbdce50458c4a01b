"""A store that fails for a while before the start and once in every stage: what it costs, and whether bytes differ.

    python -m benchmarks.outages [--seconds 60] [--faults unavailable slow ...] [--json FILE]

The job reads from an S3 API and writes to it, by way of a proxy that misbehaves in one of four ways, in turn.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import obstore
from obstore.store import S3Store

from benchmarks.chaos import RUN, conclude, differing, faulty_store, run_seconds, write_job
from benchmarks.faulty_proxy import FAULTS, FaultyProxy
from distcluster.storage.run import Run

PARTITIONS = 8
LOCAL = ("--set", "deploy.kind=local")


@dataclass
class Outcome:
    """What the store did, and what came of it."""

    outage_seconds: float
    struck: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    seconds: float = 0.0
    undisturbed_seconds: float = 0.0
    differing: list[str] = field(default_factory=list)


class Strikes:
    """Makes the store fail when the first item of a stage has been committed."""

    def __init__(self, proxy: FaultyProxy, faults: Sequence[str], outcome: Outcome) -> None:
        self._proxy, self._faults, self._outcome = proxy, cycle(faults), outcome
        self.strike("start")

    def strike(self, where: str) -> None:
        """Fail from now on, in the next way."""
        fault = self._outcome.struck[where] = next(self._faults)
        self._proxy.start(fault, self._outcome.outage_seconds)

    def __call__(self, method: str, path: str) -> None:
        """See a request."""
        parts = path.partition("?")[0].split("/")  # /bucket/disturbed/commit/STAGE/ITEM.json
        is_record = method == "PUT" and len(parts) > 5 and parts[2:4] == ["disturbed", "commit"]
        if is_record and parts[4] not in {"lease", *self._outcome.struck}:
            self.strike(parts[4])


def upload(source: Path) -> str:
    """Copy a store of files to the bucket, and say where to."""
    bucket = S3Store("bucket", client_options={"allow_http": True})
    for path in source.rglob("*"):
        if path.is_file():
            obstore.put(bucket, f"input/{path.relative_to(source)}", path.read_bytes())
    return RUN.format("input")


def measure(directory: Path, outage_seconds: float, faults: Sequence[str] = FAULTS) -> Outcome:
    """A run on files, and one on a store that fails."""
    outcome = Outcome(outage_seconds)
    outputs = {"undisturbed": str(directory / "undisturbed"), "disturbed": RUN.format("disturbed")}
    jobs = {name: write_job(directory, PARTITIONS, output) for name, output in outputs.items()}
    with faulty_store() as proxy:
        outcome.undisturbed_seconds = run_seconds(jobs["undisturbed"], *LOCAL)
        source = upload(directory / "input.zarr")
        jobs["disturbed"].write_text(jobs["disturbed"].read_text().replace(str(directory / "input.zarr"), source))
        proxy.watch = Strikes(proxy, faults, outcome)
        outcome.seconds = run_seconds(jobs["disturbed"], *LOCAL)
        proxy.start(FAULTS[0], 0)
        outcome.refused = proxy.refused
        outcome.differing = differing(Run(outputs["undisturbed"]), Run(outputs["disturbed"]))
    return outcome


def main() -> None:
    """Disturb, print, and fail where bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        outcome = measure(Path(directory), arguments.seconds, arguments.faults)
    for where, fault in outcome.struck.items():
        print(f"{where:20} {fault}")
    print(f"{len(outcome.struck)} outages of {outcome.outage_seconds:g} s; {outcome.refused:,} requests went wrong")
    print(f"{outcome.seconds:.0f} s, undisturbed and on files {outcome.undisturbed_seconds:.0f} s")
    conclude(arguments.json, outcome.differing, vars(outcome))


if __name__ == "__main__":
    main()
