"""Cluster ids that follow a previous fit's: planted births, deaths, splits and merges, and laws of any labels."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distcluster.numerics.lineage import Lineage, count_events, number_components, trace_clusters


def traced(before: list[int], label: list[int], previous_k: int, n_components: int, new: int = 0) -> Lineage:
    """Of rows that are given in hundreds; the last ``new`` hundreds are not common."""
    many = np.repeat(np.array(label, np.int32), 100)
    common = np.arange(100 * len(before))
    assert len(many) == len(common) + 100 * new
    old = np.repeat(np.array(before, np.int32), 100)
    return trace_clusters(old, many, common, previous_k=previous_k, n_components=n_components)


PLANTED = {
    "the same": ([0, 1, 2], [0, 1, 2], [0, 1, 2], "kept kept kept", "kept kept kept"),
    "other numbers": ([0, 1, 2], [2, 0, 1], [2, 0, 1], "kept kept kept", "kept kept kept"),
    "a split": ([0, 1, 1, 1], [1, 0, 0, 2], [1, 0, 2], "kept split split", "kept split"),
    "a split in three equal parts": ([0, 0, 0, 1], [3, 1, 2, 0], [1, 0, 2, 3], "split kept split split", "split kept"),
    "a merge": ([0, 0, 1, 2], [0, 0, 0, 1], [0, 1], "merged kept", "merged merged kept"),
    "a part of a split, merged": ([0, 0, 0, 1], [0, 0, 1, 0], [0, 1], "merged split", "split merged"),
    "a death": ([0, 0, 1, 1, 2, 2, 3, 3, 3], [1, 1, 2, 2, 0, 0, 0, 1, 2], [1, 2, 0], "kept kept kept",
                "kept kept kept died"),
    "a birth": ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 3, 1, 1, 3, 2, 2, 3], [0, 1, 2, 3], "kept kept kept born",
                "kept kept kept"),
    "a death and a birth": ([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [1, 1, 0, 2, 2, 0, 3, 3, 0, 1, 2, 3], [1, 2, 3, 0],
                            "kept kept kept born", "kept kept kept died"),
    "a number that there is no more": ([0, 0, 1, 2], [0, 0, 0, 1], [0, 1], "merged kept", "merged merged kept"),
    "a component without rows": ([0, 1], [2, 0], [2, 0, 1], "kept kept unseen", "kept kept"),
}  # fmt: skip
"""By name: previous and new labels of hundreds of rows, then the component of each number, and the events."""


@pytest.mark.parametrize("name", PLANTED)
def test_planted_changes_are_found(name: str) -> None:
    before, label, component, events, previous_events = PLANTED[name]
    K = len(component)
    found = traced(before, label, max(before) + 1, K)
    assert found.component.tolist() == component
    assert found.events == tuple(events.split())
    assert found.previous_events == tuple(previous_events.split())
    place = np.argsort(found.component)
    expected = np.zeros((max(before) + 1, K), np.int64)
    np.add.at(expected, (before, place[label]), 100)
    assert found.counts.tolist() == expected.tolist()


def test_every_cluster_but_a_born_one_has_a_predecessor() -> None:
    for before, label, component, *_ in PLANTED.values():
        found = traced(before, label, max(before) + 1, len(component))
        for predecessor, event, rows in zip(found.predecessor, found.events, found.counts.T, strict=True):
            assert (predecessor < 0) == (event in ("born", "unseen"))
            assert predecessor < 0 or rows[predecessor] == rows.max()


def test_a_cluster_of_new_rows_is_born_whatever_strays_into_it() -> None:
    before, label = [0] * 9 + [1] * 10, [0] * 9 + [1] * 9 + [2]
    assert traced(before, label, 2, 3).events == ("kept", "split", "split")
    found = traced(before, label + [2] * 10, 2, 3, new=10)
    assert found.events == ("kept", "kept", "born")
    assert found.predecessor.tolist() == [0, 1, -1]


def test_all_rows_may_be_twice_as_many_without_a_change() -> None:
    label = [1, 1, 0, 0, 2, 2]
    found = traced([0, 0, 1, 1, 1, 1], label + label, 2, 3, new=6)
    assert found.events == ("kept", "split", "split")


labellings = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=60)


@given(labellings, st.permutations(range(5)), st.integers(0, 9))
def test_laws_of_any_two_labellings(rows: list[tuple[int, int]], order: list[int], new: int) -> None:
    before, label = (np.array(each, np.int32) for each in zip(*rows, strict=True))
    more = np.concatenate([label, np.zeros(new, np.int32)])
    found = trace_clusters(before, more, np.arange(len(label)), previous_k=6, n_components=5)
    assert sorted(found.component) == list(range(5))
    assert found.counts.sum() == len(rows)
    assert found.events.count("kept") == found.previous_events.count("kept")
    assert count_events(found.events, found.previous_events)["died"] == found.previous_events.count("died")
    # How a fit numbers its components changes nothing, but for numbers that it has to break a tie by.
    renamed = trace_clusters(before, np.array(order, np.int32)[more], np.arange(len(label)), previous_k=6,
                             n_components=5)  # fmt: skip
    assert renamed.previous_events == found.previous_events
    assert sorted(renamed.events) == sorted(found.events)
    # A fit that follows one which followed this one has its numbers.
    again = trace_clusters(np.argsort(found.component)[label].astype(np.int32), label, np.arange(len(label)),
                           previous_k=5, n_components=5)  # fmt: skip
    assert again.component.tolist() == found.component.tolist()
    assert set(again.events) <= {"kept", "unseen"}


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=6))
def test_no_other_numbers_keep_more_rows(rows: list[list[int]]) -> None:
    counts = np.array(rows, np.int64)
    component = number_components(counts)
    kept = np.trace(counts[:, component])
    assert kept == max(np.trace(counts[:, list(each)]) for each in itertools.permutations(range(4)))
