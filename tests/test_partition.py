"""Laws of row ranges and of the fixed-order sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distcluster.numerics.partition import Partitioning, tree_sum

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 64), st.integers(0, 6))


@given(sizes)
def test_partitions_and_their_blocks_cover_every_row_once(size: tuple[int, int, int]) -> None:
    n_rows, block_rows, power = size
    parts = Partitioning(n_rows, block_rows, block_rows * 2**power)
    blocks = [block for index in range(len(parts)) for block in parts.blocks(parts[index])]
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(n_rows))
    assert [block.index for block in blocks] == list(range(parts.n_blocks))


@given(sizes, st.integers(0, 2**32 - 1))
def test_a_sum_has_the_same_bits_for_any_size_of_a_partition(size: tuple[int, int, int], seed: int) -> None:
    n_rows, block_rows, power = size
    parts = Partitioning(n_rows, block_rows, block_rows * 2**power)
    values = np.random.default_rng(seed).lognormal(sigma=20, size=(parts.n_blocks, 2))
    nodes = [tree_sum(values[[b.index for b in parts.blocks(parts[i])]]) for i in range(len(parts))]
    assert tree_sum(np.stack(nodes)).tobytes() == tree_sum(values).tobytes()


@pytest.mark.parametrize("partition_rows", [0, 100, 512 * 3, 511])
def test_a_partition_is_a_power_of_two_blocks(partition_rows: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Partitioning(1000, 512, partition_rows)
