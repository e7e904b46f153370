"""The operations of a store, and the threads that its requests run in."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..errors import InputError

#: Concurrent requests of one process to stores other than the local disk.
_CONCURRENCY = 16
#: Bytes of the objects that are put concurrently.
BATCH = 16 * 2**20
#: Default of the storage option ``timeout``, in seconds.
_TIMEOUT = 30.0
#: Seconds to wait before each retry of a read.
WAITS = (0.5, 1.0, 4.0)
#: Seconds after which a read that has failed is not tried again: a server that drips makes each try as long as allowed.
PATIENCE = 60.0
#: Redirects that are followed: the Allen API redirects once, from http to https.
MAX_REDIRECTS = 5
#: The most bytes of an object that is read at once: a shard of the largest block, 2**30 voxels of four bytes.
LARGEST_OBJECT = 2**32
#: The same for an object that is no chunk, if there is no other figure: the label index of 2**23 rows, the largest that
#: is read, has half of it.
LARGEST_SIDECAR = 2**29


class TooLargeError(Exception):
    """An object has more bytes than may be read.

    Parameters
    ----------
    key : str
    most : int
        The most bytes that may be read.
    """

    def __init__(self, key: str, most: int) -> None:
        super().__init__(key, most)
        self.key, self.most = key, most


class WrongRangeError(ConnectionError):
    """A server sends other bytes of a file than those that were asked for."""


class Part(NamedTuple):
    """Bytes of an object.

    Attributes
    ----------
    start : int
        Position of the first byte in the object.
    body : bytes
    size : int
        Bytes of the whole object.
    tag : str or None
        The ETag of the object, without quotes; None if the store has none.
    """

    start: int
    body: bytes
    size: int
    tag: str | None


class Uploads(Protocol):
    """Objects that are put one after another."""

    def add(self, key: str, body: bytes) -> None:
        """Put an object, at the latest with `finish`."""

    def finish(self) -> None:
        """Return once the store holds all objects."""

    def discard(self) -> None:
        """Drop the objects that are not put yet."""


class Backend(ABC):
    """Objects by their keys under a root. A reader sees an object whole or not at all.

    The empty key is the root itself, if the root is an object.
    """

    @abstractmethod
    def read(self, key: str, most: int = LARGEST_OBJECT) -> bytes | None:
        """Content of an object; None if it is missing.

        Raises
        ------
        TooLargeError
            If it has more than `most` bytes; no more than a little above are read.
        """

    @abstractmethod
    def read_range(self, key: str, start: int, stop: int, most: int) -> Part | None:
        """The bytes [start, stop) of an object, fewer at its end; None if it is missing.

        A store that does not send parts of objects returns the whole object. The part is empty if the object ends
        before `start`.

        Raises
        ------
        TooLargeError
            If such a store sends more than `most` bytes.
        WrongRangeError
            If a server sends other bytes.
        """

    @abstractmethod
    def open(self, key: str) -> Any:
        """Open an object as a seekable binary file.

        Raises
        ------
        FileNotFoundError
            If the object is missing.
        """

    @abstractmethod
    def uploads(self) -> Uploads:
        """Start to put objects."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Put an object from a local file, which may be larger than memory."""

    @abstractmethod
    def create(self, key: str, body: bytes) -> bool:
        """Put an object unless it exists, and return whether it was put. Of two concurrent calls one succeeds."""

    @abstractmethod
    def sizes(self, prefix: str) -> dict[str, int]:
        """Size of every object at or under a prefix."""

    @abstractmethod
    def entries(self, folder: str) -> dict[str, bool]:
        """Name of every object and folder directly in a folder, and whether it is a folder."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects."""

    @abstractmethod
    def modified(self, key: str) -> datetime | None:
        """Time at which an object was put, by the clock of the store; None if the store does not record it."""

    def read_each(self, keys: Iterable[str], most: int = LARGEST_OBJECT) -> dict[str, bytes | None]:
        """Content of each object by its key, read concurrently, each as in `read`; None for a missing object."""
        wanted = list(keys)
        return dict(zip(wanted, requests().map(lambda key: self.read(key, most), wanted), strict=True))

    def read_tagged(self, key: str, most: int = LARGEST_OBJECT) -> tuple[bytes, str | None] | None:
        """Content of an object as in `read`, and its tag (None if the store has no tags); None if it is missing."""
        body = self.read(key, most)
        return None if body is None else (body, None)

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Put an object if the stored one has this tag, always if the tag is None; return whether it was put."""
        assert tag is None
        uploads = self.uploads()
        try:
            uploads.add(key, body)
            uploads.finish()
        finally:
            uploads.discard()
        return True


@lru_cache(maxsize=1)
def requests() -> ThreadPoolExecutor:
    """The thread pool of the requests to stores."""
    return ThreadPoolExecutor(_CONCURRENCY, "atlaszarr-store")


class ConcurrentUploads:
    """Uploads in the threads of `requests`, of at most `BATCH` bytes at a time.

    Parameters
    ----------
    put : callable
        Puts a group of objects.
    group : int
        Largest group in bytes; with 0 every object is a group.
    """

    def __init__(self, put: Callable[[Mapping[str, bytes]], object], group: int) -> None:
        self._put, self._limit = put, group
        self._group: dict[str, bytes] = {}
        self._waiting = 0
        self._running: deque[tuple[int, Future[object]]] = deque()
        self._size = 0

    def add(self, key: str, body: bytes) -> None:
        """Same as in `Uploads`; waits while more than `BATCH` bytes are being put."""
        self._group[key] = body
        self._waiting += len(body)
        if self._waiting > self._limit or not self._limit:
            self._start()

    def finish(self) -> None:
        """Same as in `Uploads`."""
        if self._group and not self._running:  # in this thread: the pool may be busy
            self._put(self._group)
            self._group, self._waiting = {}, 0
        self._start()
        while self._running:
            self._wait()

    def discard(self) -> None:
        """Same as in `Uploads`; waits for the running calls."""
        self._group = {}
        wait([put for _, put in self._running if not put.cancel()])

    def _start(self) -> None:
        if self._group:
            self._running.append((self._waiting, requests().submit(self._put, self._group)))
            self._size += self._waiting
            self._group, self._waiting = {}, 0
        while self._size > BATCH:
            self._wait()

    def _wait(self) -> None:
        size, put = self._running.popleft()
        self._size -= size
        put.result()


def timeout_of(options: Mapping[str, Any]) -> float:
    """The storage option ``timeout``, in seconds.

    Raises
    ------
    InputError
        If it is not a positive number.
    """
    try:
        seconds = float(options.get("timeout", _TIMEOUT))
        if not 0 < seconds < threading.TIMEOUT_MAX:
            raise ValueError
    except (TypeError, ValueError):
        message = f"storage option timeout {options['timeout']!r} is not a number of seconds"
        raise InputError(message, code="invalid-storage-options") from None
    return seconds
