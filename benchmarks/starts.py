"""How long commands take that have little to do: ``python -m benchmarks.starts RUN JOB.toml``, of a finished run."""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path


def measure(*arguments: str) -> tuple[float, float]:
    """Seconds, and processor seconds of all processes, of one command."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", "distcluster", *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, used


def main() -> None:
    """Print the medians of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("job")
    parser.add_argument("--n-components", default="8", help="Of the choice, which is made anew each time.")
    parser.add_argument("--covariance-type", default="full")
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    chosen = ("--n-components", given.n_components, "--covariance-type", given.covariance_type)
    commands = {
        "--help": ("--help",),
        "status": ("status", str(given.run)),
        "run, finished": ("run", given.job, "--set", f"output.url={given.run}"),
        "choose": ("choose", str(given.run), *chosen),
    }
    choice = given.run / "choice" / f"{given.covariance_type}-{given.n_components}"
    for name, arguments in commands.items():
        found = []
        for _ in range(given.times):
            shutil.rmtree(choice, ignore_errors=True)
            found.append(measure(*arguments))
        seconds, used = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"{name:<14} {seconds:6.2f} s, {used:6.2f} s of processor time")


if __name__ == "__main__":
    main()
