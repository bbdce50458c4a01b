"""What the rules say of mixtures whose truth is known, and of data without structure.

    python -m benchmarks.verdict [--seeds 20] [--rows 20000] [--json FILE]

The rows are sampled in the space that is clustered; ``benchmarks.embedded_verdict`` has what UMAP does to them. The
elbow's verdict is beside the least BIC, the least ICL and the highest silhouette of the same grid. A verdict is right
in k within 10 %.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.planted import planted_mixture, sample_rows, structureless
from distcluster import GaussianMixtureSearch
from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES
from distcluster.numerics.mixture.criteria import Criteria
from distcluster.numerics.mixture.selection import select

KS = (5, 12, 30, 60)
ERRORS = (0.003, 0.03, 0.12)
RULES = ("elbow", "bic", "icl", "silhouette")
STRUCTURELESS = ("gaussian", "uniform", "t")
D = 5


@dataclass(frozen=True)
class Case:
    """One data set and what a rule said of it; k = 0 is data without structure."""

    n_components: int
    covariance_type: str
    bayes_error: float
    seed: int
    rule: str
    chosen_k: int
    chosen_type: str
    finding: str

    @property
    def right_k(self) -> bool:
        """Whether k is within 10 %."""
        return abs(self.chosen_k - self.n_components) <= 0.1 * self.n_components

    @property
    def flagged(self) -> bool:
        """Whether the verdict doubts that there are clusters."""
        return self.finding in ("no elbow", "no cluster structure")


def verdicts(rows: np.ndarray, seed: int) -> Iterator[tuple[str, int, str, str]]:
    """Every rule's k, covariance type and finding."""
    search = GaussianMixtureSearch(n_init=5, max_fit_rows=len(rows) // 2, refine=False, random_state=seed).fit(rows)
    table = [Criteria(**row) for row in search.table_.to_dict("records")]
    for rule in RULES:
        verdict = select(table, rule, len(rows) - len(rows) // 2)  # type: ignore[arg-type]
        yield rule, verdict.candidate.n_components, verdict.candidate.covariance_type, verdict.finding


def cases(seeds: range, n: int, ks: tuple[int, ...]) -> Iterator[Case]:
    """All data sets under all rules."""
    for seed in seeds:
        for k, kind, error in itertools.product(ks, COVARIANCE_TYPES, ERRORS):
            rows, _ = sample_rows(planted_mixture(k, kind, error, D, seed), n, seed)
            for said in verdicts(rows, seed):
                yield Case(k, kind, error, seed, *said)
        for what in STRUCTURELESS:
            for said in verdicts(structureless(what, n, D, seed), seed):
                yield Case(0, what, 0.0, seed, *said)


def share(values: list[bool]) -> str:
    """Percent, or nothing where there is nothing."""
    return f"{100 * np.mean(values):.0f} % of {len(values)}" if values else ""


def show(found: list[Case]) -> None:
    """Print shares of right verdicts for every rule."""
    table = Table("rule", *(f"k, error {error:.1%}" for error in ERRORS), "k, up to 3 %", "type, up to 3 %", "flagged")
    for rule in RULES:
        of = [each for each in found if each.rule == rule]
        planted = [each for each in of if each.n_components]
        clear = [each for each in planted if each.bayes_error <= 0.03]
        table.add_row(
            rule,
            *(share([each.right_k for each in planted if each.bayes_error == error]) for error in ERRORS),
            share([each.right_k for each in clear]),
            share([each.chosen_type == each.covariance_type for each in clear]),
            share([each.flagged for each in of if not each.n_components]),
        )
    Console(width=140).print(table)


def main() -> None:
    """Run the cases and report them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=20_000, help="half are fitted, half held out")
    parser.add_argument("--ks", type=int, nargs="*", default=KS, help="none: structureless data alone")
    parser.add_argument("--json", type=Path, help="where to write every case, as it is done")
    arguments = parser.parse_args()
    pin_to_one_thread()
    found: list[Case] = []
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    for case in cases(seeds, arguments.rows, tuple(arguments.ks)):
        found.append(case)
        if case.rule == "elbow":
            print(
                f"{case.covariance_type}-{case.n_components}, error {case.bayes_error:.1%}, seed {case.seed}: "
                f"{case.finding}, {case.chosen_type}-{case.chosen_k}",
                flush=True,
            )
        if arguments.json and case.rule == RULES[-1]:
            content = {"rows": arguments.rows, "cases": [asdict(each) for each in found]}
            arguments.json.write_text(json.dumps(content | {"environment": environment()}) + "\n")
    show(found)


if __name__ == "__main__":
    main()
