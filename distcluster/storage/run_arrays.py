"""The two kinds of arrays that a run holds: of all rows, and of one item of a stage."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

ONE = "all"
"""The item of a stage that is one task."""


@dataclass(frozen=True, slots=True)
class RowArray:
    """An array with one entry a row, or a block of rows, that tasks fill partition by partition.

    Attributes
    ----------
    path : str
        In the run.
    stage : str
        The stage that writes it.
    shape : str
        In the letters of ``docs/store-layout.md``; N or blocks first.
    dtype : str
    fill_value : float
        What Zarr gives for a missing chunk: never a valid value.
    meaning : str
    """

    path: str
    stage: str
    shape: str
    dtype: str
    fill_value: float
    meaning: str

    @property
    def counts(self) -> Literal["rows", "blocks"]:
        """What the first axis counts."""
        return "blocks" if self.shape.startswith("(blocks") else "rows"

    def tail(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape without its first axis, once the letters' sizes are known.

        Examples
        --------
        >>> from distcluster.storage import layout
        >>> layout.PROJECTION.tail({"d": 5}), layout.VIEW_2D.tail({}), layout.LABEL.tail({})
        ((5,), (2,), ())
        """
        axes = self.shape.strip("()").replace(" ", "").split(",")[1:]
        return tuple(sizes[axis] if axis.isalpha() or "_" in axis else int(axis) for axis in axes if axis)

    def of(self, item: int) -> "RowArray":
        """The array of one item, which ``{item}`` in the path stands for."""
        return replace(self, path=self.path.format(item=item))


@dataclass(frozen=True, slots=True)
class ItemArray:
    """An array that belongs to one item of a stage and is written whole; fields as ``RowArray``'s.

    ``{item}`` in the path stands for the item. What only later stages read lies in ``partial/STAGE/ITEM.npz``.
    """

    path: str
    stage: str
    shape: str
    dtype: str
    meaning: str = "left for the stages that reduce it"

    def at(self, item: str = ONE) -> str:
        """The path of an item's array.

        Examples
        --------
        >>> from distcluster.storage import layout
        >>> layout.CANDIDATE["means"].at("full-8")
        'selection/fit/full-8/means'
        """
        return self.path.format(item=item)
