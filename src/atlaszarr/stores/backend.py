"""What a target and an input file need of a store, and the threads that requests to it run in."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from .local import WholeFiles

#: Requests at once to stores other than the local disk, in one process.
_CONCURRENCY = 16
#: Bytes of the objects that are put at the same time.
BATCH = 16 * 2**20
#: Seconds that a request may take, unless the storage option ``timeout`` is given.
_TIMEOUT = 30.0


class Backend(ABC):
    """Objects by their keys below one root. An object appears whole or not at all.

    The empty key is the root itself, where that is an object.
    """

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Content of an object; None where it is missing."""

    @abstractmethod
    def open(self, key: str) -> Any:
        """An object as a binary file that can be read and sought.

        Raises
        ------
        FileNotFoundError
            If it is missing.
        """

    @abstractmethod
    def uploads(self) -> Uploads | WholeFiles:
        """Start to put objects."""

    @abstractmethod
    def create(self, key: str, body: bytes) -> bool:
        """Put an object unless it exists: whether it was put. Of two calls at the same time one succeeds."""

    @abstractmethod
    def sizes(self, prefix: str) -> dict[str, int]:
        """Size of every object at or under a prefix."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects."""

    @abstractmethod
    def modified(self, key: str) -> datetime | None:
        """When an object was put, by the store's own clock; None where the store does not know."""

    def read_each(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Content of objects by key, read several at a time; None where one is missing."""
        wanted = list(keys)
        return dict(zip(wanted, requests().map(self.read, wanted), strict=True))

    def read_tagged(self, key: str) -> tuple[bytes, str | None] | None:
        """Content of an object and its tag, None where the store has no tags; None if the object is missing."""
        body = self.read(key)
        return None if body is None else (body, None)

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Put an object if the present one has this tag, or without a condition if the tag is None: whether it was."""
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
    """The threads that requests wait in."""
    return ThreadPoolExecutor(_CONCURRENCY, "atlaszarr-store")


class Uploads:
    """Objects that are put while further ones are made, `BATCH` bytes at a time.

    Parameters
    ----------
    put : callable
        Puts a group of objects.
    group : int
        Bytes up to which objects wait to be put in one call; with 0 each has a call of its own.
    """

    def __init__(self, put: Callable[[Mapping[str, bytes]], object], group: int) -> None:
        self._put, self._limit = put, group
        self._group: dict[str, bytes] = {}
        self._waiting = 0
        self._running: deque[tuple[int, Future[object]]] = deque()
        self._size = 0

    def add(self, key: str, body: bytes) -> None:
        """Put an object, at the latest with `finish`."""
        self._group[key] = body
        self._waiting += len(body)
        if self._waiting > self._limit or not self._limit:
            self._start()

    def finish(self) -> None:
        """Return once the store holds all objects."""
        if self._group and not self._running:  # in this thread, which other requests do not hold up
            self._put(self._group)
            self._group, self._waiting = {}, 0
        self._start()
        while self._running:
            self._wait()

    def discard(self) -> None:
        """Drop objects that are not put yet, and wait for the calls that run."""
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
        raise InputError(f"storage option timeout {options['timeout']!r} is not a number of seconds") from None
    return seconds
