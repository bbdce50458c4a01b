"""Criteria of the grid's candidates, the verdict, and its reason in words."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from distcluster.job import AUTO_N_COMPONENTS, CovarianceType, MixtureTable
from distcluster.mixture import Candidate

Float64 = npt.NDArray[np.float64]
Rule = Literal["elbow", "bic", "icl", "silhouette"]

_STRUCTURE = 0.5  # nats a row over one Gaussian, below which there is no cluster structure
_GAIN_BEFORE = 0.25  # nats a row that the doubling before a standing elbow gained at least
_SHARE_AFTER = 0.5  # of that, what the doubling after it may still gain
_SHALLOW = 0.9  # ks this close to the deepest are the range of an elbow that does not stand
_ROWS_PER_COMPONENT = 20  # mixture rows that the automatic grid asks for each component


@dataclass(frozen=True, slots=True)
class Criteria:
    """One row of the selection table. NaN where there is an error.

    All candidates are judged on the same J rows of the same projection, which no model was fitted on; silhouettes and
    what ends in ``_all`` are of all N valid rows.

    Attributes
    ----------
    n_components, covariance_type
        The candidate.
    log_likelihood : float
        Sum over the J judging rows of log p(row), nats.
    bic : float
        -2 log_likelihood + n_parameters ln J (Schwarz 1978); lower is better.
    icl : float
        bic + 2 entropy of the responsibilities (soft; Biernacki, Celeux, Govaert 2000); lower is better.
    silhouette : float
        Mean silhouette (Rousseeuw 1987) of all valid rows in squared Euclidean distance, exact; higher is better; NaN
        for k = 1.
    n_iter, converged
        Of EM.
    error : str
        Why the candidate could not be fitted.
    aic : float
        -2 log_likelihood + 2 n_parameters (Akaike 1974); lower is better.
    log_likelihood_all, bic_all : float
        The same over all valid rows: descriptive, because the draws' rows flatter the models fitted on them.
    silhouette_euclidean, silhouette_euclidean_error : float
        In Euclidean distance, estimated from rows of the mixture draw, and the estimate's standard error.
    note : str
        What happened to single components.
    """

    n_components: int
    covariance_type: CovarianceType
    log_likelihood: float
    bic: float
    icl: float
    silhouette: float
    n_iter: int
    converged: bool
    error: str = ""
    aic: float = float("nan")
    log_likelihood_all: float = float("nan")
    bic_all: float = float("nan")
    silhouette_euclidean: float = float("nan")
    silhouette_euclidean_error: float = float("nan")
    note: str = ""

    @property
    def candidate(self) -> Candidate:
        """The point of the grid."""
        return Candidate(self.n_components, self.covariance_type)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The chosen candidate and why.

    Attributes
    ----------
    candidate : Candidate
    finding : str
        "elbow" (it stands), "no elbow", "no cluster structure", or the name of another rule.
    reason : str
        A sentence or two, with the figures.
    """

    candidate: Candidate
    finding: str
    reason: str


def grid(table: MixtureTable, mixture_rows: int) -> list[Candidate]:
    """The candidates of a job: k = 1 always, then the job's ks in ascending order, for each covariance type.

    Parameters
    ----------
    table : MixtureTable
    mixture_rows : int
        M; the automatic grid stops where a component would have fewer than 20 of them.
    """
    if table.n_components == "auto":
        ks = [k for k in AUTO_N_COMPONENTS if k * _ROWS_PER_COMPONENT <= mixture_rows] or [2]
    else:
        ks = sorted(table.n_components)
    return [Candidate(k, kind) for k in dict.fromkeys([1, *ks]) for kind in table.covariance_type]


def information_criteria(log_likelihood: float, entropy: float, n_parameters: int, n_rows: int) -> tuple[float, float]:
    """BIC and ICL from sums over the judging rows; see ``Criteria``."""
    bic = -2.0 * log_likelihood + n_parameters * np.log(n_rows)
    return float(bic), float(bic + 2.0 * entropy)


def judged(row: Criteria, n_parameters: int, sums: Float64, n_judging: int, n_valid: int) -> Criteria:
    """A row of the table with its criteria.

    Parameters
    ----------
    row : Criteria
    n_parameters : int
    sums : (4,) float64
        Log-likelihood and entropy over the judging rows, then over all valid ones (``mixture.score_rows``).
    n_judging, n_valid : int
        J and the number of valid rows.
    """
    log_likelihood, entropy, log_likelihood_all = float(sums[0]), float(sums[1]), float(sums[2])
    bic, icl = information_criteria(log_likelihood, entropy, n_parameters, n_judging)
    return replace(
        row,
        log_likelihood=log_likelihood,
        bic=bic,
        icl=icl,
        aic=-2.0 * log_likelihood + 2.0 * n_parameters,
        log_likelihood_all=log_likelihood_all,
        bic_all=-2.0 * log_likelihood_all + n_parameters * float(np.log(n_valid)),
    )


_SILHOUETTE_ROWS = 2048  # pairwise distances cost the square
_DISTANCE_ROWS = 256  # of which distances to all others are held at a time


def stratified_silhouette(points: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> tuple[float | None, ...]:
    """The mean silhouette in Euclidean distance, estimated from the same number of rows of every cluster.

    Distances to a cluster are means over the cluster's chosen rows; the clusters' mean silhouettes are weighted by
    their sizes, as in any stratified sample (Cochran 1977, ch. 5).

    Parameters
    ----------
    points, labels : (M, d) float32, (M,) int32
        In random order: the first rows of a cluster are chosen.

    Returns
    -------
    float or None, float or None
        The estimate and its standard error; None where fewer than two clusters have rows.
    """
    order = np.argsort(labels, kind="stable")
    present, first, size = np.unique(labels[order], return_index=True, return_counts=True)
    if len(present) < 2:
        return None, None
    quota = max(_SILHOUETTE_ROWS // len(present), 2)
    place = np.arange(len(labels)) - np.repeat(first, size)
    chosen = place < quota
    x = points[order][chosen].astype(np.float64)
    cluster = np.repeat(np.arange(len(present)), size)[chosen]
    values = _silhouettes(x, cluster, np.minimum(size, quota))
    share = size / size.sum()
    n = np.bincount(cluster)
    mean = np.bincount(cluster, values) / n
    variance = np.bincount(cluster, (values - mean[cluster]) ** 2) / np.maximum(n - 1, 1)
    error = np.sqrt((share**2 * variance / n * (1.0 - n / size)).sum())
    return float(share @ mean), float(error)


def _silhouettes(x: Float64, cluster: npt.NDArray[np.int64], n: npt.NDArray[np.int64]) -> Float64:
    """Silhouette of every row, 0 in a cluster of one (Rousseeuw 1987)."""
    starts = np.concatenate([[0], np.cumsum(n)[:-1]])
    result = np.zeros(len(x))
    for begin in range(0, len(x), _DISTANCE_ROWS):
        rows = slice(begin, begin + _DISTANCE_ROWS)
        to_cluster = np.add.reduceat(cdist(x[rows], x), starts, axis=1)
        each, own = np.arange(len(to_cluster)), cluster[rows]
        near = to_cluster[each, own] / np.maximum(n[own] - 1, 1)
        to_cluster /= n
        to_cluster[each, own] = np.inf
        far = to_cluster.min(axis=1)
        larger = np.maximum(near, far)
        result[rows] = np.where((n[own] > 1) & (larger > 0.0), (far - near) / np.where(larger > 0.0, larger, 1.0), 0.0)
    return result


@dataclass(frozen=True, slots=True)
class Elbow:
    """The elbow of one covariance type's curve, and the figures that say whether it stands.

    Attributes
    ----------
    n_components : int
        The k farthest below the chord.
    cost : float
        BIC / 2J there, nats a row.
    gain_before, gain_after : float
        Fall of the cost over the doubling of k before and after, nats a row; after the grid's last half doubling the
        slope of what is left is scaled to a doubling, and NaN at its very end.
    shorter : int
        The elbow without the grid's last doubling; 0 where too little is left.
    near : tuple of int
        The ks that lie at least 0.9 times as far below the chord.
    stands : bool
    """

    n_components: int
    cost: float
    gain_before: float
    gain_after: float
    shorter: int
    near: tuple[int, ...]
    stands: bool


def find_elbow(ks: Sequence[int], cost: Sequence[float]) -> Elbow:
    """The elbow of a cost curve over log2 k (Kneedle: Satopaa, Albrecht, Irwin, Raghavan 2011).

    On a logarithmic axis the answer hardly moves with the end of the grid; on a linear one it does.

    Parameters
    ----------
    ks : sequence of int, ascending, at least 2
    cost : sequence of float
        BIC / 2J, nats a row.
    """
    x, y = np.log2(np.asarray(ks, np.float64)), np.asarray(cost, np.float64)
    depth = _below_chord(x, y)
    best = int(np.argmax(depth))
    before = _at(x, y, x[best] - 1.0) - y[best]
    after = _fall_after(x, y, best)
    kept = x <= x[-1] - 1.0
    shorter = int(np.argmax(_below_chord(x[kept], y[kept]))) if kept.sum() >= 3 else -1
    stands = bool(
        depth[best] > 0.0
        and before >= _GAIN_BEFORE
        and after <= _SHARE_AFTER * before  # false for NaN
        and shorter >= 0
        and abs(best - shorter) <= 1
    )
    near = tuple(k for k, below in zip(ks, depth, strict=True) if below >= _SHALLOW * depth[best])
    return Elbow(
        int(ks[best]),
        float(y[best]),
        float(before),
        float(after),
        int(ks[shorter]) if shorter >= 0 else 0,
        near,
        stands,
    )


def _below_chord(x: Float64, y: Float64) -> Float64:
    """How far each point lies below the straight line from the first to the last."""
    return np.asarray(y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0]) - y)


def _at(x: Float64, y: Float64, place: float) -> float:
    return float(np.interp(place, x, y))


def _fall_after(x: Float64, y: Float64, best: int) -> float:
    """Fall of the cost over the doubling after ``best``, scaled up where the grid ends sooner."""
    length = min(1.0, x[-1] - x[best])
    if length <= 0.0:
        return float("nan")
    return float((y[best] - _at(x, y, x[best] + length)) / length)


def select(table: Sequence[Criteria], rule: Rule, n_rows: int) -> Verdict:
    """Choose one candidate of the grid.

    Parameters
    ----------
    table : sequence of Criteria
    rule : Rule
    n_rows : int
        J, the number of judging rows.

    Raises
    ------
    ValueError
        When no candidate could be fitted; the errors are named.
    """
    usable = [row for row in table if not row.error]
    if not usable:
        errors = sorted({row.error for row in table})
        raise ValueError(f"no candidate of the grid could be fitted: {'; '.join(errors)}")
    if rule != "elbow":
        return _best(usable, rule)
    return _select_elbow(usable, n_rows)


def _best(usable: Sequence[Criteria], rule: Rule) -> Verdict:
    sign = -1.0 if rule == "silhouette" else 1.0
    ranked = [row for row in usable if np.isfinite(getattr(row, rule))]
    if not ranked:
        only = usable[0]
        return Verdict(only.candidate, rule, f"{only.candidate} is the only candidate; {rule} compares nothing.")
    best = min(ranked, key=lambda row: sign * getattr(row, rule))
    name = {"bic": "lowest BIC", "icl": "lowest ICL", "silhouette": "highest silhouette"}[rule]
    value = getattr(best, rule)
    shown = f"{value:.3f}" if rule == "silhouette" else f"{value:,.0f}"
    return Verdict(
        best.candidate,
        rule,
        f"{best.n_components} components with {best.covariance_type} covariance: the {name} of "
        f"{len(ranked)} candidates, {shown}. The lowest value of a grid is not the number of groups in the data.",
    )


def _select_elbow(usable: Sequence[Criteria], n_rows: int) -> Verdict:
    curves: dict[CovarianceType, list[Criteria]] = {}
    for row in sorted(usable, key=lambda row: row.n_components):
        curves.setdefault(row.covariance_type, []).append(row)
    one = min((row.bic for row in usable if row.n_components == 1), default=float("nan")) / (2 * n_rows)
    elbows = {
        kind: find_elbow([row.n_components for row in rows], [row.bic / (2 * n_rows) for row in rows])
        for kind, rows in curves.items()
        if len(rows) >= 2
    }
    if not elbows:
        best = min(usable, key=lambda row: row.bic)
        return Verdict(best.candidate, "no elbow", f"{best.candidate}: one k alone has no curve and no elbow.")
    kind = min(elbows, key=lambda name: elbows[name].cost)
    elbow = elbows[kind]
    gain = one - elbow.cost
    what = f"{elbow.n_components} components with {kind} covariance"
    if gain < _STRUCTURE:
        candidate = min((row for row in usable if row.n_components == 1), key=lambda row: row.bic).candidate
        return Verdict(
            candidate,
            "no cluster structure",
            f"No cluster structure: the best elbow of the grid, {what}, describes a row only {gain:.2f} nats better "
            f"than one Gaussian (at least {_STRUCTURE} would show structure). One component was taken.",
        )
    types = f" Of {len(elbows)} covariance types, {kind} has the lowest BIC at its elbow." if len(elbows) > 1 else ""
    if elbow.stands:
        return Verdict(
            Candidate(elbow.n_components, kind),
            "elbow",
            f"{what}: the elbow of the BIC curve over log2 k. The doubling of k before it gained "
            f"{elbow.gain_before:.2f} nats a row, the doubling after it {elbow.gain_after:.2f}; it describes a row "
            f"{gain:.2f} nats better than one Gaussian.{types}",
        )
    return Verdict(
        Candidate(elbow.n_components, kind),
        "no elbow",
        f"No elbow: {_why_not(elbow)}. {_range(elbow)}{what} was taken because it lies farthest below the chord of "
        f"the BIC curve, {gain:.2f} nats a row better than one Gaussian.{types}",
    )


def _range(elbow: Elbow) -> str:
    if len(elbow.near) == 1:
        return ""
    return f"Any k from {elbow.near[0]} to {elbow.near[-1]} is as defensible; "


def _why_not(elbow: Elbow) -> str:
    reasons = []
    if elbow.gain_before < _GAIN_BEFORE:
        reasons.append(
            f"the doubling of k before {elbow.n_components} gained only {elbow.gain_before:.2f} nats a row "
            f"(a standing elbow needs {_GAIN_BEFORE})"
        )
    if np.isnan(elbow.gain_after):
        reasons.append(f"the grid ends at {elbow.n_components}")
    elif elbow.gain_after > _SHARE_AFTER * elbow.gain_before:
        reasons.append(
            f"the doubling after {elbow.n_components} still gained {elbow.gain_after:.2f} nats a row, after "
            f"{elbow.gain_before:.2f} before it"
        )
    if elbow.shorter == 0:
        reasons.append("the grid is too short to tell whether it would stay where it is")
    elif not elbow.stands and not reasons:
        reasons.append(f"without the grid's last doubling it would be {elbow.shorter} instead of {elbow.n_components}")
    return ", and ".join(reasons)


def table_columns(table: Sequence[Criteria]) -> dict[str, npt.NDArray[np.generic]]:
    """The selection table as one array a column, in the order of the grid."""
    columns = {field.name: np.array([getattr(row, field.name) for row in table]) for field in fields(Criteria)}
    # Fixed-length strings have no place in the Zarr v3 specification.
    return {name: c.astype(np.dtypes.StringDType()) if c.dtype.kind == "U" else c for name, c in columns.items()}
