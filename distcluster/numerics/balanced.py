"""How many rows of each cluster make a balanced sample."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def even_shares(available: npt.ArrayLike, wanted: int) -> Int64:
    """Take as evenly as possible from some clusters: the small ones whole, of the others as many each, but for one.

    Parameters
    ----------
    available : (K,) int
        Rows of each.
    wanted : int
        At most their sum.

    Returns
    -------
    (K,) int64
        Summing to ``wanted``; what cannot be divided goes to the largest clusters, of equal ones to the last.

    Examples
    --------
    >>> even_shares([100, 2, 50, 7], 40).tolist(), even_shares([5, 5, 5], 2).tolist()
    ([16, 2, 15, 7], [0, 1, 1])
    """
    sizes = np.asarray(available, np.int64)
    shares, left = np.zeros(len(sizes), np.int64), wanted
    for taken, cluster in enumerate(np.argsort(sizes, kind="stable")):
        shares[cluster] = min(int(sizes[cluster]), left // (len(sizes) - taken))
        left -= int(shares[cluster])
    return shares


def nested_shares(available: npt.ArrayLike, levels: Sequence[npt.NDArray[np.integer]], wanted: int) -> Int64:
    """The same from the top of a hierarchy down: evenly over the coarsest level's clusters, then within each of them.

    Parameters
    ----------
    available : (K,) int
        Rows of each of the finest clusters.
    levels : sequence of (K,) int
        Each finest cluster's cluster at each level, the coarsest level first; none: ``even_shares``.
    wanted : int

    Returns
    -------
    (K,) int64

    Examples
    --------
    Of two halves, one of them three clusters:

    >>> nested_shares([90, 90, 90, 90], [np.array([0, 1, 1, 1])], 60).tolist()
    [30, 10, 10, 10]
    """
    sizes = np.asarray(available, np.int64)
    if not levels:
        return even_shares(sizes, wanted)
    of, shares = levels[0], np.zeros(len(sizes), np.int64)
    of_groups = np.zeros(int(of.max()) + 1, np.int64)
    np.add.at(of_groups, of, sizes)
    for group, share in enumerate(even_shares(of_groups, wanted)):
        own = of == group
        shares[own] = nested_shares(sizes[own], [level[own] for level in levels[1:]], int(share)) if share else 0
    return shares


def first_of_each(label: npt.NDArray[np.integer], priority: npt.NDArray[np.uint64], shares: Int64) -> Int64:
    """Positions of the rows with the lowest priorities of each cluster, as many as its share; ascending.

    Parameters
    ----------
    label : (n,) int
    priority : (n,) uint64
    shares : (K,) int64

    Returns
    -------
    (m,) int64
    """
    order = np.lexsort((priority, label))
    ordered = label[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(order[place < shares[ordered]])
