"""The fit of one candidate, from labels to start with."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.em import centre_rows, from_labels, maximise, remarks
from distcluster.numerics.mixture.parameters import Mixture


@dataclass(frozen=True, slots=True)
class CandidateFit:
    """The result of fitting one candidate; ``mixture`` is None where ``error`` says why there is none.

    ``mean_log_likelihood`` is of the rows that it was fitted on, before the last M-step, nats per row.
    """

    candidate: Candidate
    mixture: Mixture | None
    n_iter: int
    converged: bool
    seconds: float
    error: str = ""
    note: str = ""
    mean_log_likelihood: float = float("nan")


def fit_candidate(
    points: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    candidate: Candidate,
    *,
    tol: float,
    reg_covar: float,
    max_iter: int,
) -> CandidateFit:
    """Fit one candidate by EM from labels to start with.

    Parameters
    ----------
    points : (M, d) float32
    labels : (M,) int32
        ``Starts.labels`` for the candidate's k.
    candidate : Candidate
    tol, reg_covar, max_iter
        As ``maximise``'s.

    Returns
    -------
    CandidateFit
        With an error instead of a mixture where the rows are too few.

    Examples
    --------
    >>> points = np.random.default_rng(0).normal([[-5.0]] * 500 + [[5.0]] * 500).astype(np.float32)
    >>> labels = (points[:, 0] > 0).astype(np.int32)
    >>> fit = fit_candidate(points, labels, Candidate(2, "diag"), tol=1e-3, reg_covar=1e-6, max_iter=100)
    >>> fit.converged, sorted(fit.mixture.means.round(1).ravel().tolist())
    (True, [-5.0, 4.9])
    """
    started = time.perf_counter()
    rows = centre_rows(points)
    try:
        start = from_labels(rows, labels, candidate, reg_covar)
        found = maximise(rows, start, tol=tol, reg_covar=reg_covar, max_iter=max_iter)
    except ValueError as error:
        return CandidateFit(candidate, None, 0, False, time.perf_counter() - started, str(error))
    return CandidateFit(
        candidate,
        found.mixture.moved(rows.centre),
        len(found.log_likelihoods),
        found.converged,
        time.perf_counter() - started,
        note=remarks(found.mixture, rows.of_rows, reg_covar),
        mean_log_likelihood=found.log_likelihoods[-1],
    )
