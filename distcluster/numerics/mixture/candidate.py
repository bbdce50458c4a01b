"""One point of the grid; imports nothing that takes time, for the job file names covariance types too."""

from dataclasses import dataclass
from typing import Literal, get_args

CovarianceType = Literal["spherical", "diag", "tied", "full"]
COVARIANCE_TYPES: tuple[CovarianceType, ...] = get_args(CovarianceType)
"""scikit-learn's, from few parameters to many."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A number of components and a covariance type.

    Examples
    --------
    >>> print(Candidate(8, "full"), Candidate(8, "full").n_parameters(d=2))
    full-8 47
    """

    n_components: int
    covariance_type: CovarianceType

    def __str__(self) -> str:
        return f"{self.covariance_type}-{self.n_components}"

    def n_parameters(self, d: int) -> int:
        """Free parameters in d dimensions, as BIC counts them."""
        K = self.n_components
        of_covariance = {"spherical": K, "diag": K * d, "tied": d * (d + 1) // 2, "full": K * d * (d + 1) // 2}
        return K - 1 + K * d + of_covariance[self.covariance_type]
