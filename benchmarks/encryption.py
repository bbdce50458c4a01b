"""What TLS between the local cluster's processes costs a job: the same job with it and without, by turns.

    python -m benchmarks.encryption [--pairs 5] [--json FILE]

A small job shows the most: making the certificate is its only fixed cost, and what travels are tasks, not rows.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.chaos import run_seconds, write_job
from distcluster.environment import environment

PARTITIONS = 64


def seconds(job: Path, output: Path, tls: bool) -> float:
    """One run of a job, from the command to its end, in a fresh output."""
    overrides = {"deploy.tls": str(tls).lower(), "deploy.kind": "local", "output.url": str(output)}
    sets = [word for key, value in overrides.items() for word in ("--set", f"{key}={value}")]
    return run_seconds(job, *sets)


def main() -> None:
    """Run the pairs, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        job = write_job(Path(directory), PARTITIONS, f"{directory}/run")
        seconds(job, Path(directory) / "warm", tls=True)  # compiles what is not compiled yet
        pairs = []
        for pair in range(arguments.pairs):
            order = (True, False) if pair % 2 else (False, True)
            pairs.append({tls: seconds(job, Path(directory) / f"{pair}-{tls}", tls) for tls in order})
    with_tls, without = (statistics.median(pair[tls] for pair in pairs) for tls in (True, False))
    ratio = statistics.median(pair[True] / pair[False] for pair in pairs)
    print(f"with TLS {with_tls:.1f} s, without {without:.1f} s: {ratio:.3f} times (median of {len(pairs)} pairs)")
    if arguments.json:
        listed = [{"with_tls": pair[True], "without": pair[False]} for pair in pairs]
        found = {"with_tls": with_tls, "without": without, "ratio": ratio, "pairs": listed}
        arguments.json.write_text(json.dumps(found | {"environment": environment()}, indent=2))


if __name__ == "__main__":
    main()
