"""Section images kept between builds, under a key made of all that defines them.

An entry is a JPEG body followed by a SHA-256 digest of the key and the body. An entry whose digest does not match is
absent: damaged, cut short, or copied from another key.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import uuid4

from ..errors import AtlaszarrError, AtlaszarrWarning, InputError
from ..stores.target import Target

_T = TypeVar("_T")
_DIGEST_BYTES = hashlib.sha256().digest_size
#: Identifiers of the caches that failed in this process; pickled copies of a cache share one.
_FAILED: set[str] = set()
_LOCK = threading.Lock()


class ImageCache:
    """JPEG bodies in a folder, or under any URL that fsspec opens and every worker reaches.

    A cache never stops a build: on the first failure to read or write it warns, and from then on every copy of it in
    the process is empty and stores nothing.

    Parameters
    ----------
    location : str or path-like
        A folder, created on first use, or a URL.
    options : mapping, optional
        Storage options of a URL.

    Raises
    ------
    InputError
        If the location or the options are not valid.

    Warns
    -----
    AtlaszarrWarning
        If the cache cannot be read or written.
    """

    def __init__(self, location: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> None:
        self._id = uuid4().hex
        try:
            self._target: Target | None = Target.of(location, options)
        except InputError as error:
            raise InputError(f"cache: {error}") from None
        except AtlaszarrError as error:
            self._target = None
            self._fail(error)

    def get(self, key: str) -> bytes | None:
        """The body under a key; None if it is missing or damaged."""
        entry = self._try(lambda target: target.read(_path(key)))
        if entry is None:
            return None
        body, digest = entry[:-_DIGEST_BYTES], entry[-_DIGEST_BYTES:]
        return body if digest == _digest(key, body) else None

    def put(self, key: str, body: bytes) -> None:
        """Store a body that passed its checks."""
        self._try(lambda target: target.write(_path(key), body + _digest(key, body)))

    def __contains__(self, key: str) -> bool:
        """Whether a key has an entry, which is not read: its digest is not checked."""
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


def _path(key: str) -> str:
    # Not `images/`: entries there have no digest.
    return f"section-images/{key[:2]}/{key}.jpg"


def _digest(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + body).digest()


def default_location() -> str | None:
    """Where images are cached by default: ``$ATLASZARR_CACHE``, else the user's cache folder; None for no cache."""
    named = os.environ.get("ATLASZARR_CACHE")
    if named is not None:
        return None if named in ("", "none") else named
    from platformdirs import user_cache_path

    return str(user_cache_path("atlaszarr"))
