"""Comparison with a taxonomy beside scikit-learn's own measures, on all rows of a real run: both, and how far apart.

    python -m benchmarks.comparison RUN LABELS [--json FILE]

scikit-learn gets the label vectors of all rows, and fits the forests itself on the report's rows with one class a row
as its target's indicators; nothing of the report's arithmetic is used on its side.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn import metrics
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from distcluster.environment import environment
from distcluster.report.compare import compare
from distcluster.report.forest import grow_forests
from distcluster.report.row_statistics import collect_row_statistics
from distcluster.report.subsample_rows import read_subsample_rows
from distcluster.storage.run import Run

SEED = 0


def main() -> None:
    """Print both sides of each figure, and keep them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("labels", help="a text file of one label a row")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    run = Run(arguments.run)
    names, truth = np.unique(Path(arguments.labels).read_text().splitlines(), return_inverse=True)
    ours, seconds = timed(of_report, run, arguments.labels)
    theirs, their_seconds = timed(of_scikit_learn, run, truth)
    apart = max(abs(ours[name] - theirs[name]) for name in ours)
    for name, value in ours.items():
        print(f"{name:44} {value:.6f}  {theirs[name]:.6f}")
    print(f"furthest apart {apart:.1e}; {seconds:.1f} s and {their_seconds:.1f} s")
    if arguments.json:
        found = {
            "rows": len(truth), "classes": len(names), "report": ours, "scikit-learn": theirs, "furthest_apart": apart,
            "seconds": {"report": seconds, "scikit-learn": their_seconds}, "environment": environment(),
            "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
        }  # fmt: skip
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def timed(work: Any, *arguments: Any) -> tuple[dict[str, float], float]:
    """What it gives, and its seconds."""
    started = time.perf_counter()
    found = work(*arguments)
    return found, time.perf_counter() - started


def of_report(run: Run, labels: str) -> dict[str, float]:
    """The report's figures."""
    subsample = read_subsample_rows(run)
    statistics = collect_row_statistics(run, run.array("cluster/size").shape[0], has_map=False)
    found = compare(run, labels, statistics, subsample.row)
    scores = found.methods[0].scores
    figures = {
        "adjusted Rand index": scores.adjusted_rand,
        "adjusted mutual information": scores.adjusted_mutual_information,
        "homogeneity": scores.homogeneity,
        "completeness": scores.completeness,
        "V-measure": scores.v_measure,
    }
    forests = grow_forests(features(run), found.of_subsample[:, np.argsort(found.classes)], SEED)
    assert forests is not None
    for each in forests.predictions:
        figures |= {
            f"forest on {each.name}: subset accuracy": each.subset_accuracy,
            f"forest on {each.name}: micro accuracy": each.micro_accuracy,
            f"forest on {each.name}: recall": each.recall,
        }
    return figures


def of_scikit_learn(run: Run, truth: np.ndarray) -> dict[str, float]:
    """The same by scikit-learn."""
    label = run.array("label")[:]
    truth, label, kept = truth[label >= 0], label[label >= 0], truth[read_subsample_rows(run).row]
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(truth, label)
    figures = {
        "adjusted Rand index": metrics.adjusted_rand_score(truth, label),
        "adjusted mutual information": metrics.adjusted_mutual_info_score(truth, label),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "V-measure": v_measure,
    }
    several = np.isin(kept, np.flatnonzero(np.bincount(kept) >= 2))  # what stands alone cannot be split
    kept = kept[several]
    target = (kept[:, None] == np.unique(kept)).astype(int)
    train, test = train_test_split(np.arange(len(kept)), test_size=0.2, stratify=kept, random_state=SEED)
    for name, rows in features(run).items():
        x = rows[several]
        answer = RandomForestClassifier(random_state=SEED).fit(x[train], target[train]).predict(x[test])
        figures |= {
            f"forest on {name}: subset accuracy": metrics.accuracy_score(target[test], answer),
            f"forest on {name}: micro accuracy": 1.0 - metrics.hamming_loss(target[test], answer),
            f"forest on {name}: recall": metrics.recall_score(target[test], answer, average="micro"),
        }
    return {name: float(value) for name, value in figures.items()}


def features(run: Run) -> dict[str, Any]:
    """What the forests are grown on."""
    subsample = read_subsample_rows(run)
    return {"the embeddings": subsample.embedding, "their projection": subsample.projection}


if __name__ == "__main__":
    main()
