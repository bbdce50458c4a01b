"""Headers of arrays in NumPy's format, parsed one at a time and each once; arrays in bytes."""

import threading
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether it is stored column by column, and dtype."""

# NumPy reads headers with Python's ast, whose threads share a depth counter: a SystemError by chance (cpython #106905).
_ONE_HEADER = threading.Lock()
_KINDS = 1_024  # of headers that are kept
_LONG = 12  # bytes before a header, the last four of them its length; in version 1.0 ten, and two


def read_header(member: Any) -> Header:
    """Shape, order and dtype of an array in NumPy's format; the file stands at its values then."""
    with _ONE_HEADER:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(member)


def array_in(content: bytes) -> npt.NDArray[Any]:
    """The array that is all of some bytes, as ``np.save`` wrote it.

    To parse a header takes longer than all else where an array is small, and those of a stage's items are alike.

    Raises
    ------
    ValueError, TypeError
        When they are no such array, too few, or Python's own objects.
    """
    first = 10 if content[6:8] == b"\x01\x00" else _LONG
    begin = first + int.from_bytes(content[8:first], "little")
    shape, is_fortran, dtype = _parsed(content[:begin])
    if dtype.hasobject:
        raise ValueError("an array of Python's objects is not read")
    return np.ndarray(shape, dtype, content, begin, order="F" if is_fortran else "C").copy("K")


@lru_cache(maxsize=_KINDS)
def _parsed(header: bytes) -> Header:
    return read_header(BytesIO(header))
