"""What can be done with a finished run, beside the run: another candidate, another rule, appended rows, a prediction.

    python -m benchmarks.afterwards [--rows 1000000] [--features 384] [--workers 2] [--json FILE]

Rows lie on a curved manifold (``benchmarks.rows``). Each is the command as a user gives it, start and report included.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import zarr

from benchmarks.end_to_end import timed, write_rows
from benchmarks.rows import curved
from distcluster.environment import environment
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.fitting import fitted_candidates
from distcluster.storage.run import Run

_MORE = 100  # one in so many rows comes later


@dataclass
class Result:
    """Seconds of each command."""

    rows: int
    features: int
    workers: int
    chosen: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=environment)


def measure(arguments: argparse.Namespace, directory: Path) -> Result:
    """One after the other, on one run."""
    place, out = directory / "rows.zarr", directory / "run"
    n, more = arguments.rows, arguments.rows // _MORE
    write_rows(place, curved(arguments.features, n, 0), (n, arguments.features))
    job = directory / "job.toml"
    job.write_text(f"input.url = '{place}'\noutput.url = '{out}'\ndeploy.n_workers = {arguments.workers}\n")
    result = Result(n, arguments.features, arguments.workers)

    def take(what: str, *command: str) -> None:
        result.seconds[what] = timed([sys.executable, "-m", "distcluster", *command])[0]
        share = result.seconds[what] / result.seconds["run"]
        print(f"{what}: {result.seconds[what]:.1f} s, {share:.1%} of the run's", flush=True)

    take("run", "run", str(job))
    run = Run(str(out))
    chosen = SELECT_CANDIDATE.facts_of(run).candidate
    result.chosen = str(chosen)
    others = [each for each in fitted_candidates(run) if each.covariance_type == chosen.covariance_type]
    other = others[others.index(chosen) - 1]
    take("choose", "choose", str(out), "--n-components", str(other.n_components),
         "--covariance-type", other.covariance_type)  # fmt: skip
    take("another rule", "run", str(job), "--set", "selection.rule=bic", "--overwrite")
    take("predict a hundredth", "predict", str(out), str(part(place, directory, more)), str(directory / "predicted"))
    grow(place, directory / "part.zarr")
    take("append a hundredth", "run", str(job), "--set", "selection.rule=bic", "--append")
    return result


def part(place: Path, directory: Path, n: int) -> Path:
    """The first rows as an array of their own."""
    rows = zarr.open_array(str(place), mode="r")[:n]
    zarr.create_array(str(directory / "part.zarr"), data=rows, chunks=rows.shape)
    return directory / "part.zarr"


def grow(place: Path, others: Path) -> None:
    """Put rows to an array's end."""
    array, rows = zarr.open_array(str(place), mode="r+"), zarr.open_array(str(others), mode="r")[:]
    array.append(rows)


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = measure(arguments, Path(directory))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
