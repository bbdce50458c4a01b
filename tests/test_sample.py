"""The subsamples: exact sizes, and a function of (seed, N) and the valid rows only."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, planted_rows, write_input
from hypothesis import given
from hypothesis import strategies as st

from distcluster.numerics.sampling import (
    invalid_rows,
    priority_bound,
    resolve_sizes,
    sampling_priority,
    select_subsamples,
    why_invalid,
)
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.storage.run import Run


def permutation(seed: int, n_rows: int) -> np.ndarray:
    rows = np.arange(n_rows)
    return np.lexsort((rows, sampling_priority(seed, n_rows, rows)))


@given(st.integers(0, 2**32 - 1), st.integers(40, 500), st.integers(16, 600), st.integers(2, 600), st.data())
def test_draws_are_the_first_valid_rows_of_the_permutation(
    seed: int, n_rows: int, sample_rows: int, mixture_rows: int, data: st.DataObject
) -> None:
    invalid = data.draw(st.sets(st.integers(0, n_rows - 1), max_size=n_rows - 20))
    valid = np.setdiff1d(np.arange(n_rows), list(invalid))
    sizes = resolve_sizes(sample_rows, mixture_rows, len(valid), n_neighbors=15)
    shuffled = np.random.default_rng(seed).permutation(valid)
    sample, mixture = select_subsamples(shuffled, sampling_priority(seed, n_rows, shuffled), sizes)
    expected = [row for row in permutation(seed, n_rows) if row not in invalid]
    assert len(sample) == min(sample_rows, len(valid))
    assert len(mixture) == min(mixture_rows, len(valid))
    assert shuffled[sample].tolist() == expected[: len(sample)]
    disjoint = len(valid) - len(sample) >= len(mixture)
    start = len(sample) if disjoint else len(valid) - len(mixture)
    assert shuffled[mixture].tolist() == expected[start : start + len(mixture)]


def test_the_bound_gathers_enough_rows() -> None:
    for seed in range(200):
        priority = sampling_priority(seed, 20_000, np.arange(20_000))
        assert (priority <= np.uint64(priority_bound(300, 20_000))).sum() >= 300


def test_every_row_is_as_likely_to_be_sampled() -> None:
    counts = np.zeros(100)
    for seed in range(4000):
        counts[permutation(seed, 100)[:25]] += 1
    assert abs(counts / 4000 - 0.25).max() < 5 * (0.25 * 0.75 / 4000) ** 0.5


def test_rows_that_cannot_be_clustered() -> None:
    rows = np.array([[1, 2], [np.nan, 1], [0, 0], [np.inf, 0]], np.float32)
    assert invalid_rows(rows, "euclidean").tolist() == [False, True, False, True]
    assert invalid_rows(rows, "cosine").tolist() == [False, True, True, True]
    long = np.array([[3e18, 0], [9e18, 0], [1e19, 0], [1e30, 1e30]], np.float32)
    assert invalid_rows(long, "euclidean").tolist() == [False, False, True, True]
    assert not invalid_rows(long, "cosine").any()


def test_the_reason_of_an_invalid_row_has_its_value() -> None:
    for raw, metric, why in (
        ([np.nan, 1.0], "cosine", "NaN"),
        ([-np.inf, 1.0], "cosine", "infinite"),
        ([1.0, -1e300], "euclidean", "-1e+300 does not fit float32"),
        ([0.0, 0.0], "cosine", "only zeros"),
        ([0.0, 1e-60], "cosine", "at most 1e-60, which is zero in float32"),
        ([1e30, 0.0], "euclidean", "its squared length 1e+60 does not fit float32"),
    ):
        with np.errstate(over="ignore"):
            row = np.array(raw).astype(np.float32)
        assert invalid_rows(row[None], metric).all()
        assert why_invalid(np.array(raw), row, metric) == why


def test_too_small_a_sample_says_what_would_do() -> None:
    with pytest.raises(ValueError, match="at least 32 valid rows are needed"):
        resolve_sizes("auto", "auto", 20, n_neighbors=15)
    with pytest.raises(ValueError, match=r"raise sample\.rows"):
        resolve_sizes(10, "auto", 1000, n_neighbors=15)


def test_a_mostly_invalid_input_still_gives_draws_of_exact_size(
    new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows, _ = planted_rows(6000, 4)
    lost = np.random.default_rng(1).random(6000) < 0.6
    rows[lost] = np.nan
    run = new_command(
        write_input(tmp_path / "input", rows), input__on_invalid="skip", sample__rows=1000, sample__mixture_rows=700
    ).run_to_the_end()
    expected = [row for row in permutation(0, 6000) if not lost[row]]
    assert run.array("sample/row")[:].tolist() == expected[:1000]
    assert run.array("sample/mixture_row")[:].tolist() == expected[1000:1700]


def test_without_held_out_rows_the_mixture_subsample_compares_the_candidates_and_the_summary_says_so(
    new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows, _ = planted_rows(2000, 4)
    command = new_command(write_input(tmp_path / "input", rows), sample__rows=1500, sample__mixture_rows=2000)
    done = command.run()
    assert done.returncode == 0, done.stderr
    assert "their figures flatter" in " ".join(done.stdout.split())
    facts = SELECT_CANDIDATE.facts_of(Run(str(command.output)))
    assert (facts.n_held_out, facts.uses_mixture_rows) == (2000, True)
