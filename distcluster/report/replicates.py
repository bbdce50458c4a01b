"""What the run's replicates say: pairs of rows that stay together, and the silhouettes of rows without clusters."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.numerics.stability import pairs
from distcluster.report.agreement import contingency
from distcluster.report.subsample_rows import silhouettes, unit
from distcluster.stages.fitting import candidates
from distcluster.stages.refining import published_mixture
from distcluster.stages.replicating import replicated_labels
from distcluster.storage import layout
from distcluster.storage.run import Run


@dataclass(frozen=True, slots=True)
class Stability:
    """How the chosen candidate fares in two replicates that share no fitted row, as means over such pairs of them.

    Attributes
    ----------
    n_rows : int
        Rows common to all replicates, whose pairs are counted.
    pairs_kept : float
        Share of the pairs that are together in both, or apart in both (Rand 1971).
    together_kept : float
        Of the pairs that are together in one replicate, the share that is so in the other.
    null_silhouette, null_cosine : float
        Mean silhouette of the clusters that the same pipeline finds in one Gaussian of the data's extent: in its
        projection (squared Euclidean distance), and among its rows (cosine). NaN where that null has one cluster.
    """

    n_rows: int
    pairs_kept: float
    together_kept: float
    null_silhouette: float
    null_cosine: float


def measure_stability(run: Run) -> Stability | None:
    """Compare replicates with each other; None where there are none that could fit the chosen candidate."""
    grid, candidate = candidates(run), published_mixture(run).candidate
    if candidate not in grid:
        return None
    place = grid.index(candidate)
    data, null = ([each[place] for each in replicated_labels(run, what)] for what in ("data", "null"))
    if not data or any(each.min() < 0 for each in (*data, *null)):
        return None
    kept, together = np.array([pairs_kept(*each) for a, b in pairs(data) for each in ((a, b), (b, a))]).mean(axis=0)
    silhouette, cosine = _null_silhouettes(run, null[0])
    return Stability(len(data[0]), float(kept), float(together), silhouette, cosine)


def pairs_kept(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer]) -> tuple[float, float]:
    """Of two labellings of the same rows: the share of pairs they treat alike, and of those together in a, in b too."""
    table = contingency(a.astype(np.int64), b)
    total, both, in_a, in_b = (
        float((counts * (counts - 1)).sum() // 2)
        for counts in (np.array([len(a)]), table, table.sum(axis=1), table.sum(axis=0))
    )
    return (total + 2 * both - in_a - in_b) / total, both / in_a if in_a else float("nan")


def _null_silhouettes(run: Run, label: npt.NDArray[np.int16]) -> tuple[float, float]:
    """Of the first null replicate, on rows that it did not fit."""
    rows = run.read(layout.REPLICATE_ROWS, "null-0")
    points, label = run.read(layout.REPLICATE_COMMON, "null-0")[: len(rows)], label[: len(rows)]
    size = np.bincount(label)
    of_both = (silhouettes(x, label, len(size)) for x in (points, unit(rows)))
    means = [
        float(np.nansum(each * size) / size.sum()) if np.isfinite(each).any() else float("nan") for each in of_both
    ]
    return means[0], means[1]
