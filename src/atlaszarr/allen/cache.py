"""Section images kept between builds, under a key made of all that defines them.

A file appears under its name only when it is whole, and only after its checks; what a reader finds is
checked again, since others may have touched the folder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any


class ImageCache:
    """JPEG bodies in a folder, or under any URL that fsspec opens and every worker reaches.

    Parameters
    ----------
    location : str or path-like
        A folder, made when first used, or a URL.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location)
        self._remote = "://" in self.location

    def get(self, key: str) -> bytes | None:
        """What is kept under a key, or None."""
        try:
            return bytes(self._fs().cat_file(self._path(key))) if self._remote else Path(self._path(key)).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, key: str, body: bytes) -> None:
        """Keep a body that has passed its checks."""
        path = self._path(key)
        if self._remote:
            self._fs().pipe_file(path, body)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=Path(path).parent, prefix=".", suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def __contains__(self, key: str) -> bool:
        return bool(self._fs().exists(self._path(key))) if self._remote else Path(self._path(key)).is_file()

    def discard(self, key: str) -> None:
        """Forget a key whose body was found damaged."""
        if self._remote:
            self._fs().rm_file(self._path(key))
        else:
            Path(self._path(key)).unlink(missing_ok=True)

    def _path(self, key: str) -> str:
        return f"{self.location.rstrip('/')}/images/{key[:2]}/{key}.jpg"

    def _fs(self) -> Any:
        import fsspec

        return fsspec.core.url_to_fs(self.location)[0]


def default_location() -> str | None:
    """Where images are kept by default: ``$ATLASZARR_CACHE``, else the user's cache folder; None for nowhere."""
    named = os.environ.get("ATLASZARR_CACHE")
    if named is not None:
        return None if named in ("", "none") else named
    from platformdirs import user_cache_path

    return str(user_cache_path("atlaszarr"))
