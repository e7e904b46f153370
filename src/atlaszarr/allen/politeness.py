"""A bound on requests under way and on their rate: for one process, or for a whole Dask cluster.

One slot is held for as long as its request takes, and for at least ``concurrency / rate`` seconds. That
alone bounds the rate, so that a counting semaphore is all that must be shared.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from typing import Any, Protocol


class _Semaphore(Protocol):
    def acquire(self) -> Any: ...
    def release(self) -> Any: ...


class Politeness:
    """A context manager to hold while a request is under way, its retries included.

    When a `distributed` client is active, or in a task on one of its workers, the slots are those of a
    `distributed.Semaphore` and so are shared by the whole cluster.

    Parameters
    ----------
    concurrency : int
        The most requests under way.
    rate : float
        The most requests started per second, over any time much longer than ``concurrency / rate``;
        infinite for no limit.
    """

    def __init__(self, concurrency: int = 6, rate: float = 20.0) -> None:
        self.concurrency = concurrency
        self.rate = rate
        self._local = threading.BoundedSemaphore(concurrency)
        self._shared: tuple[str, _Semaphore] | None = None
        self._held = threading.local()

    def __enter__(self) -> None:
        semaphore = self._cluster() or self._local
        semaphore.acquire()
        self._held.slot = (semaphore, time.monotonic())

    def __exit__(self, *_: object) -> None:
        semaphore, since = self._held.slot
        left = self.concurrency / self.rate - (time.monotonic() - since)
        if left <= 0:
            semaphore.release()
        else:
            timer = threading.Timer(left, _release, [semaphore])
            timer.daemon = True
            timer.start()

    def _cluster(self) -> _Semaphore | None:
        if "distributed" not in sys.modules:
            return None
        from distributed import Semaphore, default_client, get_worker

        try:
            member = get_worker().id
        except ValueError:
            try:
                client = default_client()
            except ValueError:
                return None
            if client.status != "running":  # it never reached its scheduler, or lost it
                return None
            member = client.id
        if self._shared is None or self._shared[0] != member:
            name = f"atlaszarr-requests-{self.concurrency}"
            self._shared = (member, Semaphore(max_leases=self.concurrency, name=name))
        return self._shared[1]


def _release(semaphore: _Semaphore) -> None:
    """Give a slot back; where the cluster is gone meanwhile, its slots are too."""
    with suppress(RuntimeError, OSError):
        semaphore.release()
