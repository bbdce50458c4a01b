"""The levels of the hierarchy: what a reader sees of each coarser cluster."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distcluster.report.clusters import Item, shown_item
from distcluster.report.row_statistics import RowStatistics
from distcluster.report.words import distinguishing_words
from distcluster.storage import layout
from distcluster.storage.run import Run

_WORDS = 6
_TYPICAL = 3


@dataclass(frozen=True, slots=True)
class LevelCluster:
    """A cluster of a level: its number, its rows, the components that it holds, and what tells it."""

    number: int
    size: int
    components: list[int]
    words: list[str]
    typical: list[Item]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """A cut of the tree; clusters with rows, the largest first."""

    n_clusters: int
    clusters: list[LevelCluster]


def read_levels(run: Run, statistics: RowStatistics, texts: Mapping[int, str], *, has_items: bool) -> list[Level]:
    """The levels, the coarsest first: that is read first.

    Parameters
    ----------
    run : Run
    statistics : RowStatistics
    texts : mapping of int to str
        Items by row.
    has_items : bool
    """
    size, exemplar = run.read(layout.CLUSTER_SIZE), run.read(layout.LEVEL_EXEMPLAR)
    ks, cuts = run.read(layout.LEVEL_CLUSTERS).tolist(), run.read(layout.LEVEL)
    rows = statistics.word_rows
    items, label = [texts.get(int(row), "") for row in rows.row], rows.label.to_numpy()
    found, first = [], 0
    for k, cut in zip(ks, cuts, strict=True):
        words = distinguishing_words(items, cut[label], k, _WORDS) if has_items else [[] for _ in range(k)]
        clusters = [
            LevelCluster(
                number=number,
                size=int(size[cut == number].sum()),
                components=np.flatnonzero(cut == number).tolist(),
                words=words[number],
                typical=[Item(int(row), shown_item(row, texts)) for row in exemplar[first + number] if row >= 0][
                    :_TYPICAL
                ],
            )
            for number in range(k)
        ]
        first += k
        found.append(Level(k, sorted((each for each in clusters if each.size), key=lambda each: -each.size)))
    return found[::-1]
