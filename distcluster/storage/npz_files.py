"""NumPy's .npz as an array whose rows are read forward: a compressed member can be read in no other way."""

import io
import math
import threading
import zipfile
from typing import Any

import numpy as np

from distcluster.errors import JobError
from distcluster.storage.array_store import Array
from distcluster.storage.npy_headers import read_header
from distcluster.storage.object_file import ObjectFile, objects_of
from distcluster.url import Url

_BUFFER_BYTES = 2**22  # asked of a store at a time


class NpzArray:
    """An array (N, D) of an .npz.

    Attributes
    ----------
    shape, dtype
        As a Zarr array has them.
    starts : (1,) int64
        Where reading begins anew.
    """

    starts = np.zeros(1, np.int64)

    def __init__(self, url: Url, archive: zipfile.ZipFile, name: str) -> None:
        self._archive, self._member = archive, f"{name}.npy"
        self.shape, is_fortran, self.dtype = _header(archive, name)
        if is_fortran:
            raise JobError(f"{name} in {url} is stored column by column: save it in C order first.")
        if archive.getinfo(self._member).file_size < math.prod(self.shape) * self.dtype.itemsize:
            raise JobError(f"{url} cannot be read: {self._member} is cut short.")
        self._own = threading.local()

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(self.shape[0])
        if not hasattr(self._own, "file"):
            self._own.file = self._archive.open(self._member)
            read_header(self._own.file)
            self._own.begin = self._own.file.tell()
        wide = self.shape[1] * self.dtype.itemsize
        self._own.file.seek(self._own.begin + start * wide)
        content = self._own.file.read((stop - start) * wide)
        return np.frombuffer(content, self.dtype).reshape(-1, self.shape[1])


def open_npz(url: Url, name: str | None) -> NpzArray | None:
    """The array of an .npz, by its name or the only one of two dimensions; None where there is no such file.

    Raises
    ------
    JobError
        When there is no such array, or several and no name.
    """
    store, files = objects_of(url, ".npz")
    if len(files) != 1:
        return None
    archive = zipfile.ZipFile(io.BufferedReader(ObjectFile(store, *files[0]), _BUFFER_BYTES))
    names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
    fitting = [each for each in names if len(_header(archive, each)[0]) == 2]
    return NpzArray(url, archive, chosen(name, fitting, url, "arrays of two dimensions"))


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with archive.open(f"{name}.npy") as member:
        return read_header(member)


def chosen(asked: str | None, fitting: list[str], source: Url, what: str) -> str:
    """What a caller has asked for by name, or the only one that fits.

    Raises
    ------
    JobError
        When there is none, or there are several and no name.
    """
    if asked is not None:
        if asked not in fitting:
            raise JobError(f"{source} has no {asked!r} among its {what}: {', '.join(fitting) or 'none'}.")
        return asked
    if len(fitting) != 1:
        raise JobError(f"{source} has {what}: {', '.join(fitting) or 'none'}. Name one with --column.")
    return fitting[0]
