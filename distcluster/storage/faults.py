"""What a store does wrong: it is away for a while, full, or says no; told apart from data that are wrong."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from distcluster.errors import ExpectedError, JobError, StorageError
from distcluster.storage.urls import reason_of

_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRONG = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL,
}  # fmt: skip
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise what a store did wrong as one of our errors.

    Raises
    ------
    JobError
        When it says no: missing rights, a read-only file system, a path that cannot be.
    StorageError
        When it was away for longer than it is tried again, or is full: trying later can help.
    """
    try:
        yield
    except ExpectedError:
        raise
    except (BaseError, OSError) as error:
        found = of_storage(error)
        if found is None:
            raise
        raise found from error


def of_storage(error: Exception) -> JobError | StorageError | None:
    """What an exception says of a store, or None where it is not a store's."""
    if isinstance(error, StorageError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (inner := _SYSTEM_ERROR.search(str(error))):  # obstore's
        number = int(inner[1])
    if number is None and type(error) is FileNotFoundError:  # obstore's, of a bucket
        return JobError(f"there is no such place: {reason_of(error)}.")
    if number is None and not isinstance(error, BaseError):
        return None
    said = os.strerror(number) if number is not None else reason_of(error)
    if number in _REFUSED or isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return JobError(f"the storage refuses: {said}{_place(error)}.")
    if number in _WRONG:
        return JobError(f"{said}{_place(error)}.")
    if number == errno.ENOSPC:
        return StorageError(f"the storage is full{_place(error)}. What was committed stays: make room and run again.")
    return StorageError(f"the storage failed: {said}{_place(error)}. What was committed stays: run again to resume.")


def _place(error: Exception) -> str:
    """Which file, where the error says so."""
    if isinstance(error, OSError) and error.filename:
        return f" ({error.filename})"
    found = re.search(r'path: "([^"]+)"', str(error)) if isinstance(error, BaseError) else None
    return f" ({found[1]})" if found else ""
