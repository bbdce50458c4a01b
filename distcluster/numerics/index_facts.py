"""What is recorded of an index: read by those, too, who never search."""

from dataclasses import dataclass
from typing import Literal

INDEX_ARRAYS = ("graph", "mean", "components")
"""What an index is stored as, beside its facts."""
Kind = Literal["exact", "8-bit graph", "32-bit graph"]


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """How a sample is searched, and how well."""

    kind: Kind
    search_candidates: int
    """faiss's efSearch; for "exact" the number of sample rows."""
    recall: float
    """Share of the k nearest sample rows that the search finds, over probe rows outside the sample."""
    step: float
    """Unit of the 8-bit codes."""
