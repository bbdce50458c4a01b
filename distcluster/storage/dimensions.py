"""Names of the axes of a run's arrays: what xarray and others open them by."""

from distcluster.storage.run_arrays import ItemArray, RowArray

_NAMES = {
    "N": "row", "blocks": "block", "d": "dimension", "top": "rank", "n_neighbors": "neighbour", "K": "cluster",
    "candidates": "candidate", "levels": "level",
}  # fmt: skip
"""The letters of shapes that have the same length in all arrays of a group."""


def dimensions(array: RowArray | ItemArray, ndim: int) -> tuple[str, ...]:
    """A name for every axis of an array; of two axes of a group with one name, both have one length.

    Examples
    --------
    >>> from distcluster.storage import layout
    >>> dimensions(layout.PROJECTION, 2), dimensions(layout.VIEW_2D, 2), dimensions(layout.EXEMPLAR, 2)
    (('row', 'dimension'), ('row', 'view_2d_1'), ('cluster', 'exemplar_1'))
    """
    axes = [axis.strip() for axis in array.shape.strip("()").split(",") if axis.strip()]
    if len(axes) != ndim:  # told in words
        axes = [""] * ndim
    own = array.path.rpartition("/")[2]
    return tuple(_NAMES.get(axis, f"{own}_{place}") for place, axis in enumerate(axes))
