"""A short round of random kills; ``python -m benchmarks.chaos`` makes long ones."""

from pathlib import Path

import pytest

from benchmarks.chaos import measure


@pytest.mark.timeout(900)
def test_random_kills_of_workers_scheduler_and_client_change_no_byte(tmp_path: Path) -> None:
    outcome = measure(tmp_path, kills=6, partitions=12, seed=4)
    assert outcome.differing == []
    assert outcome.strikes.total() == 6
    assert outcome.commits > 100
