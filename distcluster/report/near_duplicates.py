"""The near duplicates that were found in a run: as a table, in figures, and as the report shows them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from distcluster.errors import JobError
from distcluster.report.subsample_rows import rows_of
from distcluster.stages.deduplicating import PUBLISH_DUPLICATES, require_distance
from distcluster.storage import layout
from distcluster.storage.input_columns import read_column, readable_id
from distcluster.storage.run import Run

Int64 = npt.NDArray[np.int64]

DISTANCE = 0.01
"""The cosine distance of near duplicates, where none is given: all but the same text, in most sentence embeddings."""

_LARGEST = 10  # groups that a summary shows


@dataclass(frozen=True, slots=True)
class Group:
    """One of the largest groups of duplicates: its number, rows, first row, most distant row from it, and clusters."""

    group: int
    rows: int
    representative: int
    farthest: float
    clusters: list[int]


@dataclass(frozen=True, slots=True)
class DuplicateSummary:
    """What near duplicates a run has.

    Attributes
    ----------
    url : str
    distance : float
        0: equal rows only.
    n_rows : int
        Valid rows of the run.
    n_groups, n_grouped : int
        Groups, and rows in them.
    n_removable : int
        Rows that are not the first of their group.
    largest : list of Group
    """

    url: str
    distance: float
    n_rows: int
    n_groups: int
    n_grouped: int
    n_removable: int
    largest: list[Group]


def duplicates(run: Run, distance: float) -> pd.DataFrame:
    """The rows that are duplicates within a distance, by group and row.

    Parameters
    ----------
    run : Run
        In which they have been looked for.
    distance : float

    Returns
    -------
    pandas.DataFrame
        ``group`` (numbered in the order of first rows), ``row``, ``id`` where the job names one, ``representative``
        (the first row of the group), ``distance`` (the cosine distance to it), ``cluster``.

    Raises
    ------
    JobError
        When they have not been looked for.
    """
    table = _without_ids(run, distance)
    if (name := readable_id(run)) is not None:
        row = table.row.to_numpy()
        table.insert(2, "id", read_column(run, name, row) if len(row) else np.empty(0, object))
    return table


def _without_ids(run: Run, distance: float) -> pd.DataFrame:
    """What the run itself has: the input, where names are, may have gone since."""
    row, representative, to_first = found_duplicates(run, distance)
    _, group = np.unique(representative, return_inverse=True)
    columns: dict[str, Any] = {
        "group": group.astype(np.int64),
        "row": row,
        "representative": representative,
        "distance": to_first,
        "cluster": rows_of(run, layout.LABEL, row) if len(row) else np.empty(0, np.int32),
    }
    return pd.DataFrame(columns).iloc[np.lexsort((row, group))].reset_index(drop=True)


def found_duplicates(run: Run, distance: float) -> tuple[Int64, Int64, npt.NDArray[np.float64]]:
    """The rows that are duplicates within a distance, ascending, the first row of each one's group, and the distance.

    Raises
    ------
    JobError
        When they have not been looked for.
    """
    of, item = run.around or run, str(require_distance(distance, "distance"))
    if PUBLISH_DUPLICATES.find_facts(of, item) is None:
        raise JobError(
            f"near duplicates within {distance:g} have not been looked for in {of.url}: "
            f"run `distcluster duplicates {of.url} --distance {distance:g}` first."
        )
    row, representative, to_first = (of.read(array, item) for array in layout.DUPLICATES.values())
    return row, representative, to_first


def summarise_duplicates(run: Run, distance: float, table: pd.DataFrame) -> DuplicateSummary:
    """The figures of ``duplicates``, and its largest groups.

    Parameters
    ----------
    run : Run
    distance : float
    table : pandas.DataFrame
        ``duplicates``.
    """
    facts = PUBLISH_DUPLICATES.facts_of(run.around or run, str(require_distance(distance, "distance")))
    size = np.bincount(table.group, minlength=facts.n_groups)
    largest = []
    for number in np.argsort(-size, kind="stable")[:_LARGEST].tolist():
        own = table[table.group == number]
        clusters = sorted(set(own.cluster.tolist()))
        largest.append(Group(number, len(own), int(own.row.iloc[0]), float(own.distance.max()), clusters))
    removable = facts.n_grouped - facts.n_groups
    return DuplicateSummary(str(run.url), distance, facts.n_valid, facts.n_groups, facts.n_grouped, removable, largest)


# --- in the report ----------------------------------------------------------------------------------------------

_MEMBERS = 4  # of a group that are shown: its first row, and those farthest from it


@dataclass(frozen=True, slots=True)
class ShownDuplicates:
    """The duplicates within one distance.

    Attributes
    ----------
    summary : DuplicateSummary
    members : list of list of (int, float)
        Of each of its largest groups the first row, and the three that are farthest from it, with their distance to it.
    """

    summary: DuplicateSummary
    members: list[list[tuple[int, float]]]

    @property
    def rows(self) -> Int64:
        """Those of all members."""
        return np.array([row for group in self.members for row, _ in group], np.int64)


def read_duplicates(run: Run) -> list[ShownDuplicates]:
    """What was found within every distance that was searched, the smallest first; a choice has its run's."""
    distances = sorted(float(item) for item in PUBLISH_DUPLICATES.all_facts(run.around or run))
    return [_shown(run, distance) for distance in distances]


def _shown(run: Run, distance: float) -> ShownDuplicates:
    table = _without_ids(run, distance)
    summary = summarise_duplicates(run, distance, table)
    members = []
    for each in summary.largest:
        own = table[table.group == each.group]
        farthest = own.iloc[1:].sort_values("distance", ascending=False, kind="stable").head(_MEMBERS - 1)
        told = pd.concat([own[:1], farthest])
        members.append(list(zip(told.row.tolist(), told.distance.tolist(), strict=True)))
    return ShownDuplicates(summary, members)
