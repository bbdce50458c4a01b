"""The scan of the input: which rows are invalid, and which rows the models are fitted on."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

_AUTO_ROWS, _AUTO_MIXTURE_ROWS = 50_000, 100_000

REPLICATE_ROWS = 10_000
"""Of the mixture subsample, at most: those that a replicate fits mixtures to, and those that all replicates label."""


def invalid_rows(rows: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.bool_]:
    """Which rows cannot be clustered.

    Parameters
    ----------
    rows : (n, D) float32
    metric : "cosine" or "euclidean"

    Returns
    -------
    (n,) bool
        True where a value is NaN or infinite in float32; under cosine, where all are zero: a row of zeros has no
        direction; under euclidean, where the squared distance to its opposite would overflow float32.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [np.nan, 1.0], [0.0, 0.0]], np.float32)
    >>> invalid_rows(rows, "cosine").tolist(), invalid_rows(rows, "euclidean").tolist()
    ([False, True, True], [False, True, False])
    """
    invalid = ~np.isfinite(rows).all(axis=1)
    if metric == "cosine":
        invalid |= ~rows.any(axis=1)
    else:
        invalid |= ~(_squared_length(rows) < _MOST_SQUARED)
    return np.asarray(invalid)


_MOST_SQUARED = float(np.finfo(np.float32).max) / 4  # of a length: two opposite rows lie twice as far apart


def _squared_length(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def why_invalid(raw: npt.NDArray[Any], row: npt.NDArray[np.float32], metric: str) -> str:
    """The reason that ``invalid_rows`` has for a row, in a few words.

    Parameters
    ----------
    raw : (D,)
        As the input has it.
    row : (D,) float32
        The same as float32.

    Examples
    --------
    >>> why_invalid(np.array([1e300, 1.0]), np.array([np.inf, 1.0], np.float32), "cosine")
    '1e+300 does not fit float32'
    """
    if np.isnan(raw).any():
        return "NaN"
    if np.isinf(raw).any():
        return "infinite"
    if np.isinf(row).any():
        return f"{raw[np.argmax(np.abs(raw))]:.3g} does not fit float32"
    if metric == "cosine":
        return "only zeros" if not raw.any() else f"at most {np.abs(raw).max():.3g}, which is zero in float32"
    return f"its squared length {_squared_length(row[None])[0]:.3g} does not fit float32"


def spread(rows: npt.NDArray[np.float32]) -> float:
    """The mean squared distance of some rows (n, D) to their mean, in double precision."""
    x = rows.astype(np.float64)
    return float(np.square(x - x.mean(axis=0)).sum(axis=1).mean())


LEAST_SPREAD = 1e-30
"""Below, squared distances of near rows vanish in float32."""


def sampling_priority(seed: int, n_rows: int, rows: Rows) -> npt.NDArray[np.uint64]:
    """Place of rows in a random permutation of all N: sorting by (priority, row) is the permutation.

    A counter-based hash (SplitMix64's finaliser: Steele, Lea, Flood, OOPSLA 2014) of the row number, keyed by seed
    and N. Any part of the permutation can be had without the rest, so every task finds its own rows of the subsamples.

    Parameters
    ----------
    seed : int
    n_rows : int
        N.
    rows : (n,) int64
        Global row numbers.

    Returns
    -------
    (n,) uint64

    Examples
    --------
    The place of a row does not depend on which others are asked for:

    >>> every = sampling_priority(0, 1000, np.arange(1000))
    >>> bool((sampling_priority(0, 1000, np.array([7, 500])) == every[[7, 500]]).all())
    True
    """
    key = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(n_rows))
    return _mix(rows.astype(np.uint64) ^ key)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def priority_bound(wanted: int, n_rows: int) -> int:
    """The priority below which at least ``wanted`` of N rows lie, but for a chance of about 1e-9.

    Six standard deviations of the binomial above the mean. Where rows are invalid, or luck is bad, too few are gathered
    and the next band of priorities is read.

    Examples
    --------
    >>> round(priority_bound(1000, 10_000) / 2**64, 4)
    0.1196
    """
    share = min(1.0, (wanted + 6.0 * (wanted**0.5 + 1.0)) / n_rows)
    return min(int(share * 2.0**64), 2**64 - 1)


@dataclass(frozen=True, slots=True)
class SubsampleSizes:
    """How many rows each subsample has.

    Attributes
    ----------
    sample : int
        S, rows of the UMAP subsample: for the index and UMAP.
    mixture : int
        M, rows of the mixture subsample: for the mixtures.
    overlap : int
        Rows of the mixture subsample that are also in the UMAP subsample, because there are not enough others.
    """

    sample: int
    mixture: int
    overlap: int

    @property
    def total(self) -> int:
        """Distinct rows in either subsample."""
        return self.sample + self.mixture - self.overlap


def auto_sizes(rows: Literal["auto"] | int, mixture_rows: Literal["auto"] | int, n: int) -> tuple[int, int]:
    """S and M of n rows: as asked for, or min(50,000, n/2) and min(100,000, n/4).

    Examples
    --------
    >>> auto_sizes("auto", "auto", 12_000), auto_sizes("auto", 500, 10**6)
    ((6000, 3000), (50000, 500))
    """
    sample = min(_AUTO_ROWS, n // 2) if rows == "auto" else min(rows, n)
    mixture = min(_AUTO_MIXTURE_ROWS, n // 4) if mixture_rows == "auto" else min(mixture_rows, n)
    return sample, mixture


def resolve_sizes(
    rows: Literal["auto"] | int, mixture_rows: Literal["auto"] | int, n_valid: int, n_neighbors: int
) -> SubsampleSizes:
    """S and M for V valid rows (``auto_sizes``), and by how much they overlap.

    Raises
    ------
    ValueError
        When the UMAP subsample cannot hold ``n_neighbors`` neighbours for each of its rows.

    Examples
    --------
    >>> resolve_sizes("auto", "auto", n_valid=20_000, n_neighbors=15)
    SubsampleSizes(sample=10000, mixture=5000, overlap=0)
    >>> resolve_sizes(15_000, 8_000, n_valid=20_000, n_neighbors=15).overlap
    3000
    """
    sample, mixture = auto_sizes(rows, mixture_rows, n_valid)
    if sample <= n_neighbors or mixture < 2:
        least = n_neighbors + 1
        remedy = f"at least {max(2 * least, 8):,} valid rows are needed" if rows == "auto" else "raise sample.rows"
        raise ValueError(
            f"{n_valid:,} valid rows give a UMAP subsample of {sample:,} and a mixture subsample of {mixture:,}, "
            f"but n_neighbors = {n_neighbors} needs a UMAP subsample of {least:,} or more and a mixture needs 2: "
            f"{remedy}, or lower projection.n_neighbors."
        )
    return SubsampleSizes(sample, mixture, max(0, sample + mixture - n_valid))


def select_subsamples(rows: Rows, priority: npt.NDArray[np.uint64], sizes: SubsampleSizes) -> tuple[Rows, Rows]:
    """Take both subsamples from gathered valid rows: the first S of the permutation, and the next M.

    Parameters
    ----------
    rows, priority : (n,) int64, (n,) uint64
        Valid rows, complete up to the priority that is needed, in any order.

    Returns
    -------
    sample, mixture : (S,), (M,) int64
        Positions in ``rows``, in the permutation's order. Where the rows are too few for both, the mixture
        subsample is the last M: it takes from the UMAP subsample only what it must.

    Examples
    --------
    >>> rows = np.arange(8)
    >>> sizes = resolve_sizes(4, 2, n_valid=8, n_neighbors=2)
    >>> sample, mixture = select_subsamples(rows, sampling_priority(0, 8, rows), sizes)
    >>> len(sample), len(mixture), len({*sample, *mixture})
    (4, 2, 6)
    """
    order = np.lexsort((rows, priority))[: sizes.total]
    return order[: sizes.sample], order[sizes.sample - sizes.overlap :]


def replicate_sizes(mixture_rows: int) -> tuple[int, int]:
    """Rows of the mixture subsample that all replicates label, and those that each fits mixtures to: two parts besides.

    Examples
    --------
    >>> replicate_sizes(100_000), replicate_sizes(3_000)
    ((10000, 10000), (600, 1200))
    """
    common = min(REPLICATE_ROWS, mixture_rows // 5)
    return common, min(REPLICATE_ROWS, (mixture_rows - common) // 2)
