"""Section images kept between builds, under a key made of all that defines them.

A file appears under its name only when it is whole, and only after its checks; what a reader finds is
checked again, since others may have touched the folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..atomic import write_whole
from ..errors import InputError, TargetError


class ImageCache:
    """JPEG bodies in a folder, or under any URL that fsspec opens and every worker reaches.

    Parameters
    ----------
    location : str or path-like
        A folder, made when first used, or a URL.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location).removeprefix("file://")
        self._remote = "://" in self.location

    def get(self, key: str) -> bytes | None:
        """What is kept under a key, or None; TargetError if the place cannot be read."""
        try:
            return bytes(self._fs().cat_file(self._path(key))) if self._remote else Path(self._path(key)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._error("read", error) from None

    def put(self, key: str, body: bytes) -> None:
        """Keep a body that has passed its checks; TargetError if the place cannot be written."""
        try:
            self._put(self._path(key), body)
        except OSError as error:
            raise self._error("write to", error) from None

    def _put(self, path: str, body: bytes) -> None:
        if self._remote:
            self._fs().pipe_file(path, body)
            return
        write_whole(Path(path), body)

    def __contains__(self, key: str) -> bool:
        return bool(self._fs().exists(self._path(key))) if self._remote else Path(self._path(key)).is_file()

    def discard(self, key: str) -> None:
        """Forget a key whose body was found damaged."""
        try:
            self._fs().rm_file(self._path(key)) if self._remote else Path(self._path(key)).unlink()
        except FileNotFoundError:  # another process was faster
            return
        except OSError as error:
            raise self._error("remove from", error) from None

    def _path(self, key: str) -> str:
        return f"{self.location.rstrip('/')}/images/{key[:2]}/{key}.jpg"

    def _fs(self) -> Any:
        import fsspec

        try:
            return fsspec.core.url_to_fs(self.location)[0]
        except (ValueError, ImportError) as error:
            raise InputError(f"cache {self._place} cannot be opened: {type(error).__name__}; check the URL") from None

    def _error(self, verb: str, error: OSError) -> TargetError:
        reason = error.strerror or type(error).__name__
        return TargetError(f"cannot {verb} the cache {self._place}: {reason}; give another place or 'none'")

    @property
    def _place(self) -> str:
        """For a message: a URL may hold a password."""
        return self.location.partition("://")[0] + "://..." if self._remote else self.location


def default_location() -> str | None:
    """Where images are kept by default: ``$ATLASZARR_CACHE``, else the user's cache folder; None for nowhere."""
    named = os.environ.get("ATLASZARR_CACHE")
    if named is not None:
        return None if named in ("", "none") else named
    from platformdirs import user_cache_path

    return str(user_cache_path("atlaszarr"))
