"""A bound on requests under way and on their rate: for one process, or for a whole Dask cluster.

One slot is held for as long as its request takes, and for at least ``concurrency / rate`` seconds. That
alone bounds the rate, so that a counting semaphore is all that must be shared.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Protocol


class _Semaphore(Protocol):
    def acquire(self) -> Any: ...
    def release(self) -> Any: ...


class Politeness:
    """A context manager to hold while a request is under way.

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
        self._shared: dict[str, _Semaphore] = {}
        self._held = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return Politeness, (self.concurrency, self.rate)

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
            timer = threading.Timer(left, semaphore.release)
            timer.daemon = True
            timer.start()

    def _cluster(self) -> _Semaphore | None:
        if "distributed" not in sys.modules:
            return None
        from distributed import Semaphore, default_client, get_worker

        try:
            scheduler = get_worker().scheduler.address
        except ValueError:
            try:
                client = default_client()
                scheduler = client.scheduler.address
            except (ValueError, AttributeError):
                return None
            if client.status != "running":  # it never reached its scheduler, or lost it
                return None
        if scheduler not in self._shared:
            name = f"atlaszarr-requests-{self.concurrency}"
            self._shared = {scheduler: Semaphore(max_leases=self.concurrency, name=name)}
        return self._shared[scheduler]
