"""Objects of a store as files that others can read, and the objects of a folder in the order of their numbers."""

import contextlib
import io
import re
from typing import Any
from urllib.parse import urlsplit

import obstore

from distcluster.job import WRITABLE_SCHEMES
from distcluster.storage.urls import file_store, local_path, object_store
from distcluster.url import Url


class ObjectFile(io.RawIOBase):
    """An object, opened for reading: every read asks the store for just these bytes."""

    def __init__(self, store: Any, path: str, size: int) -> None:
        super().__init__()
        self._store, self._path, self._size, self._position = store, path, size, 0

    def readable(self) -> bool:
        """As ``io.RawIOBase``."""
        return True

    def seekable(self) -> bool:
        """As ``io.RawIOBase``."""
        return True

    def tell(self) -> int:
        """As ``io.RawIOBase``."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As ``io.RawIOBase``."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As ``io.RawIOBase``."""
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        content = obstore.get_range(self._store, self._path, start=self._position, length=length)
        buffer[:length] = memoryview(content)
        self._position += length
        return length


def objects_of(url: Url, suffix: str) -> tuple[Any, list[tuple[str, int]]]:
    """The objects that end in a suffix: the one that a URL names, or all below it; their store, paths and sizes.

    Numbers in names count as numbers, so that ``part_2`` comes before ``part_10``. Names that begin with a dot or an
    underscore are other programs' notes.
    """
    path = local_path(url)
    if (url.partition("?")[0] if path is None else url).lower().endswith(suffix):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a folder may have such a name, too
            store, name = file_store(url)
            return store, [(name, obstore.head(store, name)["size"])]
    if not path.is_dir() if path is not None else urlsplit(url).scheme not in WRITABLE_SCHEMES:  # who cannot list
        return None, []
    store = object_store(url)
    found = [(item["path"], item["size"]) for batch in obstore.list(store) for item in batch]
    own = [(name, size) for name, size in found if name.lower().endswith(suffix) and not _HIDDEN.search(name)]
    return store, sorted(own, key=lambda each: _natural(each[0]))


_HIDDEN = re.compile(r"(^|/)[._]")


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
