"""Running tasks on local threads or on a Dask cluster, a bounded number of them at a time. Knows no more of them."""

from __future__ import annotations

import concurrent.futures as cf
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from .errors import InputError

Future = Any


class Scheduler(AbstractContextManager["Scheduler"], Protocol):
    """Where tasks run. A task's arguments may be futures, or lists of them: it starts once those are done."""

    workers: int

    def fetch(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task that mostly waits for the network."""
        ...

    def compute(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task that mostly computes."""
        ...

    def share(self, value: Any) -> Any:
        """A value that many tasks take, to be passed in its place."""
        ...

    def wait(self, futures: set[Future]) -> set[Future]:
        """The futures that are done, once at least one is."""
        ...


def usable_cores() -> int:
    """How many cores this process may use."""
    # macOS and Windows do not say which cores a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """Threads of this process: some that compute, others that fetch.

    Parameters
    ----------
    workers : int
        How many compute.
    fetchers : int
        How many fetch.
    """

    def __init__(self, workers: int, fetchers: int = 6) -> None:
        self.workers = workers
        self._compute = cf.ThreadPoolExecutor(self.workers, "atlaszarr-compute")
        self._fetch = cf.ThreadPoolExecutor(fetchers, "atlaszarr-fetch")
        self._stopped = threading.Event()

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        # After an error a fetch is not waited for, since it may hang until its timeout; a task that computes is,
        # so that nothing is written any more once this returns.
        if error is not None:
            self._stopped.set()
        self._fetch.shutdown(wait=error is None, cancel_futures=True)
        self._compute.shutdown(cancel_futures=True)

    def fetch(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a fetching thread."""
        return self._fetch.submit(function, *args)

    def compute(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a computing thread."""
        return self._compute.submit(lambda: function(*(self._result(arg) for arg in args)))

    def share(self, value: Any) -> Any:
        """The value itself."""
        return value

    def wait(self, futures: set[Future]) -> set[Future]:
        """The futures that are done, once at least one is."""
        # An untimed wait can miss a Ctrl-C: Python's handler runs between waits only.
        while not (done := cf.wait(futures, timeout=0.5, return_when=cf.FIRST_COMPLETED).done):
            pass
        return set(done)

    def _result(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._result(item) for item in value]
        if not isinstance(value, cf.Future):
            return value
        while True:
            if self._stopped.is_set():
                raise cf.CancelledError
            with suppress(cf.TimeoutError):
                return value.result(timeout=0.2)


class Cluster:
    """The workers of a `distributed` scheduler.

    Parameters
    ----------
    address : str
        Of the scheduler.

    Raises
    ------
    InputError
        If `distributed` is not installed or nothing answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise InputError(f"scheduler {address!r} needs distributed; install atlaszarr[cluster]") from None
        try:
            self._client = distributed.Client(address, set_as_default=True, timeout="10s")
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {address!r} does not answer: {error}") from None
        try:
            self._client.wait_for_workers(1, timeout=10)
        except TimeoutError:
            self._client.close()
            raise InputError(f"scheduler {address!r} has no workers; start some first") from None
        self._distributed = distributed
        self.workers = max(sum(self._client.nthreads().values()), 1)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def fetch(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a worker."""
        return self._client.submit(function, *args, pure=False)

    def compute(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a worker."""
        return self._client.submit(function, *args, pure=False)

    def share(self, value: Any) -> Any:
        """The value as the workers hold it."""
        return self._client.scatter(value, broadcast=True, hash=False)

    def wait(self, futures: set[Future]) -> set[Future]:
        """The futures that are done, once at least one is."""
        return set(self._distributed.wait(list(futures), return_when="FIRST_COMPLETED").done)


def in_window(scheduler: Scheduler, starts: Iterator[Callable[[], Future]], window: int) -> Iterator[Any]:
    """Start tasks one after another, no more than `window` unfinished, and yield results as they come.

    Parameters
    ----------
    scheduler : Scheduler
    starts : iterator of callable
        Each starts one task and gives its future.
    window : int
    """
    under_way: set[Future] = set()
    for start in starts:
        under_way.add(start())
        while len(under_way) >= window:
            for future in (done := scheduler.wait(under_way)):
                yield future.result()
            under_way -= done
    while under_way:
        for future in (done := scheduler.wait(under_way)):
            yield future.result()
        under_way -= done
