"""The table of clusters: what each is, how stable it is across replicates, and the items that tell it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from distcluster.numerics.mixture.trust import trust_of
from distcluster.report.palette import colours
from distcluster.report.row_statistics import RowStatistics
from distcluster.report.words import distinguishing_words

TYPICAL = 4
"""Rows nearest to a component's mean that stand for it."""

_BORDERLINE = 3
_WORDS = 8
_LETTERS = 160


@dataclass(frozen=True, slots=True)
class Badge:
    """How stable a cluster is across replicates, as a word and a class of the style sheet."""

    word: str
    style: str


@dataclass(frozen=True, slots=True)
class Item:
    """A row as a person reads it, with a remark such as its distance."""

    row: int
    text: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One row of the cluster table; NaN where nothing was measured."""

    label: int
    colour: str
    size: int
    share: float
    stability: float
    badge: Badge
    mean_probability: float
    silhouette: float
    cosine: float
    words: list[str]
    typical: list[Item]
    borderline: list[Item]
    name: str = ""


def cluster_rows(
    arrays: Mapping[str, Any],
    statistics: RowStatistics,
    cosine: npt.NDArray[np.float64],
    texts: Mapping[int, str],
    *,
    has_items: bool,
) -> list[ClusterRow]:
    """The cluster table, the most stable first, then the largest; empty components are left out.

    Parameters
    ----------
    arrays : mapping of str to array
        The run's ``cluster/``.
    statistics : RowStatistics
    cosine : (K,) float64
        Cosine silhouettes among the embeddings.
    texts : mapping of int to str
        Items by row.
    has_items : bool
    """
    size = arrays["size"]
    K = len(size)
    word_rows = statistics.word_rows
    words = (
        distinguishing_words([texts.get(int(row), "") for row in word_rows.row], word_rows.label.to_numpy(), K, _WORDS)
        if has_items
        else [[] for _ in range(K)]
    )
    borderline = dict(iter(statistics.borderline.groupby("label")))
    rows = [
        ClusterRow(
            label=k,
            colour=colours(K)[k],
            size=int(size[k]),
            share=float(size[k] / size.sum()),
            stability=float(arrays["stability"][k]),
            badge=badge(float(arrays["stability"][k])),
            mean_probability=float(arrays["mean_probability"][k]),
            silhouette=float(statistics.silhouette[k]),
            cosine=float(cosine[k]),
            words=words[k],
            typical=[
                Item(int(row), shown_item(row, texts), f"{distance:.2f}")
                for row, distance in zip(arrays["exemplar"][k], arrays["exemplar_distance"][k], strict=True)
                if row >= 0
            ][:TYPICAL],
            borderline=_borderline(borderline[k], texts),
        )
        for k in range(K)
        if size[k] > 0
    ]
    return sorted(rows, key=lambda row: (-np.nan_to_num(row.stability, nan=-1.0), -row.size))


def badge(stability: float) -> Badge:
    """The word for a cluster's stability."""
    word = trust_of(stability)
    return Badge(word, "none" if word == "not measured" else word)


def _borderline(rows: pd.DataFrame, texts: Mapping[int, str]) -> list[Item]:
    return [
        Item(
            int(row.row),
            shown_item(row.row, texts),
            f"{row.probability:.2f} here, {row.neighbour_probability:.2f} in cluster {row.neighbour}"
            + (f", held by {row.stability:.0%} of the replicates" if row.stability >= 0 else ""),
        )
        for row in rows.head(_BORDERLINE).itertuples()
        if row.neighbour >= 0
    ]


def shown_item(row: int, texts: Mapping[int, str], letters: int = _LETTERS) -> str:
    """A row's item, cut to a length; its number where it has none."""
    text = texts.get(int(row), f"row {row}")
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
