"""Where the workers' time goes in a default job: their stacks, looked at while it runs, by what is computed.

    python -m benchmarks.flame [--rows 1000000] [--features 384] [--workers 2] [--json FILE]

``py-spy`` (to be installed beside) looks at all processes of the command from outside. What counts are stacks with a
task in them; each belongs to its innermost function of this package, whatever that calls: faiss, BLAS, kernels, stores.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.end_to_end import write_rows
from benchmarks.rows import curved
from distcluster.environment import environment

KINDS = {
    "neighbour search": ("numerics/neighbors",),
    "layout": ("numerics/epochs", "numerics/projection", "numerics/repulsion", "numerics/spectral_start",
               "numerics/fuzzy_graph", "numerics/umap_fit"),
    "mixtures: k-means, EM, scores": ("numerics/mixture/",),
    "reading and writing": ("storage/",),
}  # fmt: skip
"""Modules by the start of their paths in the package."""

_TASK = "_perform (distcluster/execution/runner.py"
_FRAME = re.compile(r"([^;\s]+) \(distcluster/(.+?)\.py:\d+\)")
_PARCELS = "numerics/row_tasks"  # calls what its caller hands it
_PER_SECOND = 50
_SHOWN = 25


@dataclass
class Result:
    """Shares of the samples of tasks, by kind and by function, the largest first."""

    rows: int
    features: int
    workers: int
    samples: int
    kinds: dict[str, float]
    functions: dict[str, float]
    environment: dict[str, str] = field(default_factory=environment)


def sampled(arguments: argparse.Namespace, directory: Path) -> Counter[str]:
    """Run the job; gives how often each function was seen, as ``module: function``."""
    rows, job, stacks = directory / "rows.zarr", directory / "job.toml", directory / "stacks"
    shape = arguments.rows, arguments.features
    write_rows(rows, curved(shape[1], shape[0], seed=0), shape)
    job.write_text(f"input.url = {json.dumps(str(rows))}\noutput.url = {json.dumps(str(directory / 'run'))}\n"
                   f"deploy.n_workers = {arguments.workers}\n")  # fmt: skip
    look = ["py-spy", "record", "--subprocesses", "--nonblocking", "--format", "raw", "--rate", str(_PER_SECOND)]
    command = [sys.executable, "-m", "distcluster", "run", str(job)]
    subprocess.run([*look, "--output", str(stacks), "--", *command], check=True, stdout=subprocess.DEVNULL)
    return counted(stacks.read_text())


def counted(stacks: str) -> Counter[str]:
    """The innermost functions of stacks in a line each: frames from the outermost, and how often they were seen."""
    found = Counter[str]()
    for line in stacks.splitlines():
        if _TASK in line:
            frames = [(module, name) for name, module in _FRAME.findall(line) if module != _PARCELS]
            module, name = frames[-1]
            found[f"{module}: {name}"] += int(line.rpartition(" ")[2])
    return found


def kind_of(function: str) -> str:
    """What a function computes."""
    return next((kind for kind, starts in KINDS.items() if function.startswith(starts)), "all else")


def main() -> None:
    """Look, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--rows", 1_000_000), ("--features", 384), ("--workers", 2)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = sampled(arguments, Path(directory))
    total, kinds = found.total(), Counter[str]()
    for function, times in found.items():
        kinds[kind_of(function)] += times
    shares = [{name: n / total for name, n in each.most_common(_SHOWN)} for each in (kinds, found)]
    result = Result(arguments.rows, arguments.features, arguments.workers, total, *shares)
    table = Table("of the workers' time", "%", box=None)
    for each in shares:
        for name, share in each.items():
            table.add_row(name, f"{100 * share:.1f}")
        table.add_section()
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
