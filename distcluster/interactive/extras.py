"""Packages that not everyone needs."""

from importlib.util import find_spec


def require_extra(package: str, wanted_by: str) -> None:
    """Refuse what needs a package that is not installed.

    Raises
    ------
    ImportError
        Naming the extra that has it.
    """
    if find_spec(package) is None:
        raise ImportError(f"{wanted_by} needs the package {package}: pip install 'distcluster[notebook]'")
