"""Rows of groups that the sample holds few of: added to both subsamples, the same on any cluster."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, unequal, write_input

from distcluster.storage.run import Run

N, RARE, OF_RARE = 16_000, 10, 20


@pytest.fixture(scope="module")
def rare() -> tuple[np.ndarray, np.ndarray]:
    """Rows of twelve large groups and ten of twenty rows, and the number of each row's rare group, or -1."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(12 + RARE, 16)) * 1.5
    group = random.integers(12, size=N)
    place = random.permutation(N)[: RARE * OF_RARE].reshape(RARE, OF_RARE)
    for i, rows in enumerate(place):
        group[rows] = 12 + i
    extent = np.where(group < 12, 0.5, 0.12)[:, None]
    return (centres[group] + random.normal(size=(N, 16)) * extent).astype(np.float32), group - 12


@pytest.fixture(scope="module")
def plain(
    rare: tuple[np.ndarray, np.ndarray], new_command: Callable[..., Command], tmp_path_factory: pytest.TempPathFactory
) -> Command:
    source = write_input(tmp_path_factory.mktemp("rare") / "input.zarr", rare[0])
    return new_command(source, sample__rows=1500, sample__mixture_rows=3000,
                       mixture__n_components=[32], mixture__covariance_type=["full"])  # fmt: skip


def groups_found(run: Run, group: np.ndarray) -> int:
    """Rare groups most of whose rows are in clusters that hold rows of rare groups alone, nearly."""
    label = run.array("label")[:]
    size, of_rare = (np.bincount(label[rows], minlength=label.max() + 1) for rows in (group >= -12, group >= 0))
    is_rare = of_rare > 0.9 * size
    return sum(is_rare[label[group == i]].mean() > 0.5 for i in range(RARE))


def test_rare_groups_are_found_with_a_top_up_and_not_without(
    rare: tuple[np.ndarray, np.ndarray], plain: Command, tmp_path: Path
) -> None:
    group = rare[1]
    topped = replace(plain, output=tmp_path / "topped", settings=plain.settings | {"sample.top_up": True})
    without, run = plain.run_to_the_end(), topped.run_to_the_end()
    drawn = np.concatenate([without.array(f"sample/{name}")[:] for name in ("row", "mixture_row")])
    sample, mixture = (run.array(f"sample/{name}")[:] for name in ("row", "mixture_row"))
    added = np.setdiff1d(np.concatenate([sample, mixture]), drawn)
    assert len(np.intersect1d(sample, mixture)) == 0
    assert (group[added] >= 0).mean() > 0.95
    seen = [i for i in range(RARE) if (group[without.array("sample/row")[:]] == i).any()]
    enough = [i for i in seen if min((group[each] == i).sum() for each in (sample, mixture)) >= 5]
    assert len(enough) >= len(seen) - 1
    found = {each: groups_found(each, group) for each in (without, run)}
    assert found[run] >= len(enough) - 1, found
    assert found[without] <= 1
    other = replace(topped, output=tmp_path / "other", settings=topped.settings | {"assign.partition_rows": 4096})
    again = replace(other, settings=other.settings | {"deploy.n_workers": 2}).run_to_the_end()
    assert unequal(run, again) == []
