"""What a job asks of its store grows with its partitions as ``benchmarks.traffic`` says, and no faster."""

from pathlib import Path

import pytest

from benchmarks.traffic import GROWTH, count_requests

FEW, MANY = 16, 64
BY_CHANCE = 12
"""Requests more or less: which of the two workers gets a task decides who reads, once, what all tasks share."""


@pytest.mark.timeout(600)
def test_requests_grow_with_partitions_as_stated_and_no_faster(tmp_path: Path) -> None:
    few, many = (count_requests(tmp_path / str(n), n) for n in (FEW, MANY))
    grown = {each: many[each] - few[each] for each in many}
    stated = {each: GROWTH.get(each, 0) * (MANY - FEW) for each in many}
    assert {each: n for each, n in grown.items() if n > stated[each] + BY_CHANCE} == {}
    assert sum(grown.values()) > 40 * (MANY - FEW)  # it was a whole job, and the proxy has seen it
