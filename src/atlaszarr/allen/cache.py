"""A cache of section images that lasts between builds.

An entry is a JPEG body, or the pixels of an image from a slide, followed by the SHA-256 digest of its key and body. One
whose digest does not match (damaged, truncated, or copied from another key) counts as missing.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from ..errors import AtlaszarrError, AtlaszarrWarning, InputError
from ..stores.local import is_partial
from ..stores.target import Target

_T = TypeVar("_T")
_FOLDER = "section-images"
#: Seconds after which a temporary file belongs to no living process: an image is written in a moment.
_LONGEST_WRITE = 3600.0
_DIGEST_BYTES = hashlib.sha256().digest_size
#: Ids of the caches that failed in this process; pickled copies of a cache have its id.
_FAILED: set[str] = set()
_LOCK = threading.Lock()


class ImageCache:
    """A cache of section images in a folder, or at any URL that fsspec opens and all workers can reach.

    A cache never stops a build: the first failure to read or write emits a warning and disables every copy of the
    cache in the process.

    Parameters
    ----------
    location : str or path-like
        A folder (created on first use) or a URL.
    options : mapping, optional
        Storage options for a URL.

    Raises
    ------
    InputError
        If the location or an option is invalid.

    Warns
    -----
    AtlaszarrWarning
        If the cache cannot be read or written.
    """

    def __init__(self, location: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> None:
        self._id = uuid4().hex
        self._used = False
        try:
            self._target: Target | None = Target.of(location, options)
        except InputError as error:
            raise InputError(f"cache: {error}", code=error.code) from None
        except AtlaszarrError as error:
            self._target = None
            self._fail(error)

    def get(self, key: str, most: int) -> bytes | None:
        """The body stored under a key; None if it is missing, damaged, or larger than `most` bytes."""
        entry = self._try(lambda target: _read(target, _path(key), most + _DIGEST_BYTES))
        if entry is None:
            return None
        body, digest = entry[:-_DIGEST_BYTES], entry[-_DIGEST_BYTES:]
        return body if digest == _digest(key, body) else None

    def put(self, key: str, body: bytes) -> None:
        """Store a validated body; the first time, remove the temporary files that killed processes left in a folder."""
        with _LOCK:
            first, self._used = not self._used, True
        if first:
            self._try(_remove_temporary)
        self._try(lambda target: target.write(_path(key), body + _digest(key, body)))

    def __contains__(self, key: str) -> bool:
        """Whether a key has an entry; the entry is not read or validated."""
        return bool(self._try(lambda target: target.sizes(_path(key))))

    def _try(self, use: Callable[[Target], _T]) -> _T | None:
        if self._target is None or self._id in _FAILED:
            return None
        try:
            return use(self._target)
        except AtlaszarrError as error:
            self._fail(error)
            return None

    def _fail(self, error: AtlaszarrError) -> None:
        with _LOCK:
            if self._id in _FAILED:
                return
            _FAILED.add(self._id)
        warnings.warn(f"section images are not cached: {error}", AtlaszarrWarning, stacklevel=2)


def _read(target: Target, path: str, most: int) -> bytes | None:
    try:
        return target.read(path, most)
    except InputError as error:
        if error.code != "file-too-large":
            raise
        return None


def _remove_temporary(target: Target) -> None:
    """Remove temporary files of a cache on a local disk that are older than any write takes."""
    if not target.is_local:
        return
    before = time.time() - _LONGEST_WRITE
    for path in Path(target.url, _FOLDER).glob("*/.*"):
        with suppress(OSError):  # removed by another process
            if is_partial(path.name) and path.stat(follow_symlinks=False).st_mtime < before:
                path.unlink()


def _path(key: str) -> str:
    # Entries under `images/`, from earlier versions, have no digest.
    return f"{_FOLDER}/{key[:2]}/{key}.jpg"


def _digest(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + body).digest()


def default_location() -> str | None:
    """The default location: ``$ATLASZARR_CACHE``, or the user's cache folder; None for no cache."""
    location = os.environ.get("ATLASZARR_CACHE")
    if location is not None:
        return None if location in ("", "none") else location
    from platformdirs import user_cache_path

    return str(user_cache_path("atlaszarr"))
