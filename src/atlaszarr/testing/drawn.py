"""Drawn images kept, so that each is drawn once: bounded in memory, and in a directory if one is given.

It knows keys and bytes, not what they show.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path


class DrawnImages:
    """Encoded images by key; safe to use from many threads.

    Parameters
    ----------
    directory : path, optional
        Where images are kept between runs.
    limit : int
        Bytes kept in memory; the least recently used go first.
    """

    def __init__(self, directory: str | Path | None = None, limit: int = 256 * 1024**2) -> None:
        self._directory = None if directory is None else Path(directory)
        self._limit = limit
        self._size = 0
        self._images: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, draw: Callable[[], bytes]) -> bytes:
        """The image of a key (a file name), drawn now if it never was."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        image = self._read(key)
        if image is None:
            image = draw()
            self._write(key, image)
        with self._lock:
            if key not in self._images:
                self._images[key] = image
                self._size += len(image)
            while self._size > self._limit:
                self._size -= len(self._images.popitem(last=False)[1])
        return image

    def _read(self, key: str) -> bytes | None:
        if self._directory is None:
            return None
        try:
            return (self._directory / key).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, key: str, image: bytes) -> None:
        """Whole or not at all: another process may read the same directory."""
        if self._directory is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._directory / f"{key}.{os.getpid()}-{threading.get_ident()}"
        partial.write_bytes(image)
        partial.replace(self._directory / key)
