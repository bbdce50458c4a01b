"""How often rows without drift raise an alarm.

    python -m benchmarks.drift [--pairs 500] [--json FILE]

Shares of twenty clusters, log densities and supports are drawn for 100,000 rows of a run, and for so many new rows.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from distcluster.environment import environment
from distcluster.numerics.drift import Rows, compare
from distcluster.numerics.shown_rows import HELD_OUT_ROWS

CLUSTERS, RUN_ROWS, NEW_ROWS = 20, 100_000, (100, 1_000, 10_000, 100_000)


def draw(random: np.random.Generator, n: int, shares: np.ndarray) -> Rows:
    """Rows of clusters whose densities differ; one in a thousand has no support below 1."""
    some = min(n, HELD_OUT_ROWS)
    label = random.choice(CLUSTERS, some, p=shares).astype(np.int32)
    density = (-3 - label / 10 - random.chisquare(4, some) / 2).astype(np.float32)
    support = np.where(random.random(some) < 0.001, 2.0, random.random(some)).astype(np.float32)
    return Rows(random.multinomial(n, shares), label, density, support)


def main() -> None:
    """Count, print, keep as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(CLUSTERS))
    alarms = {}
    for n in NEW_ROWS:
        found = [
            compare(draw(random, RUN_ROWS, shares), draw(random, n, shares), 1.5).verdict
            for _ in range(arguments.pairs)
        ]
        alarms[n] = sum(each != "as before" for each in found) / arguments.pairs
        print(f"{n:7,} new rows: {alarms[n]:.1%} of {arguments.pairs} pairs raise an alarm")
    if arguments.json:
        content = {"pairs": arguments.pairs, "alarms": alarms, "environment": environment()}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
