"""Versions of installed packages, for the metadata of an output."""

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed


@cache
def version(package: str = "atlaszarr") -> str:
    """The installed version of a package, or "unknown"."""
    try:
        return _installed(package)
    except PackageNotFoundError:
        return "unknown"
