"""What a report shows of a partition's rows, taken while they are at hand: some of them, and sums over all."""

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Table = npt.NDArray[np.void]

OUTLIERS = 20
"""Rows kept of those that the UMAP subsample represents least, and of the least probable ones."""

BORDERLINE = 5
"""The least probable rows kept of each cluster."""

HELD_OUT_ROWS = 20_000
"""Rows of a run, and as many new ones, whose densities and supports are compared."""

SHOWN = 2**21
"""Rows of a run that its map and its silhouettes are made of: 100 MiB, and all rows of most runs."""


def row_table(n: int, d: int) -> Table:
    """An empty table of rows: row, x and y in the two-dimensional view, and all results of ``assign``; (n,)."""
    columns = [
        ("row", np.int64), ("x", np.float32), ("y", np.float32), ("label", np.int32), ("probability", np.float32),
        ("neighbour", np.int32), ("neighbour_probability", np.float32), ("support", np.float32),
        ("log_density", np.float32), ("stability", np.float32), ("projection", np.float32, (d,)),
    ]  # fmt: skip
    return np.zeros(n, columns)


def columns_of(table: Table, names: list[str]) -> Table:
    """Some columns of a table, in memory of their own.

    Examples
    --------
    >>> columns_of(row_table(9, d=1), ["row", "label"]).nbytes
    108
    """
    from numpy.lib.recfunctions import repack_fields  # with masked arrays: who looks at a run need not wait for them

    return np.asarray(repack_fields(table[names]))


def spread_rows(table: Table, n_rows: int) -> Table:
    """Every so many-th row of a run of ``n_rows``, at most two million of it: the same whatever the partitions."""
    return np.asarray(table[table["row"] % -(-n_rows // SHOWN) == 0])


def spread_evenly(table: Table, at_most: int) -> Table:
    """So many entries of a table, or all of fewer, in its order and at even distances.

    Examples
    --------
    >>> spread_evenly(np.arange(8), 6).tolist()
    [0, 1, 2, 4, 5, 6]
    """
    n = min(len(table), at_most)
    return np.asarray(table[np.arange(n) * len(table) // max(n, 1)])


def notable_rows(table: Table) -> Table:
    """The rows among which a run's outliers, least probable and borderline rows are, by row."""
    positions = [outliers(table), least_probable(table), borderline(table)]
    return table[np.unique(np.concatenate(positions))]


def outliers(table: Table) -> npt.NDArray[np.int64]:
    """Positions of the rows with the largest support, falling."""
    return np.argsort(-table["support"], kind="stable")[:OUTLIERS]


def least_probable(table: Table) -> npt.NDArray[np.int64]:
    """Positions of the rows with the smallest probability, rising."""
    return np.argsort(table["probability"], kind="stable")[:OUTLIERS]


def borderline(table: Table) -> npt.NDArray[np.int64]:
    """Positions of the least probable rows of each cluster, clusters and probabilities rising.

    Examples
    --------
    >>> table = row_table(9, d=1)
    >>> table["label"][:2], table["probability"] = 1, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    >>> borderline(table).tolist()
    [8, 7, 6, 5, 4, 1, 0]
    """
    order = np.lexsort((table["probability"], table["label"]))
    _, first, counts = np.unique(table["label"][order], return_index=True, return_counts=True)
    return order[np.arange(len(order)) - np.repeat(first, counts) < BORDERLINE]


def moment_sums(table: Table, K: int) -> Float64:
    """Of every cluster's rows: their number, the sum of their coordinates, and of their squared lengths; (K, d + 2)."""
    rows = table["projection"].astype(np.float64)
    columns = [np.ones(len(rows)), *rows.T, (rows**2).sum(axis=1)]
    return np.stack([np.bincount(table["label"], column, K) for column in columns], axis=1)
