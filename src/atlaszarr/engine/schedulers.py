"""Running tasks on local threads or on a Dask cluster, a bounded number of them at a time. Knows no more of them."""

from __future__ import annotations

import concurrent.futures as cf
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from ..errors import InputError

Future = Any
#: Seconds that tasks on a cluster are waited for when a build ends in an error.
_STOPPING = 60.0


class Scheduler(AbstractContextManager["Scheduler"], Protocol):
    """Where tasks run. A task's arguments may be futures, or lists of them: it starts once those are done.

    Attributes
    ----------
    workers : int
        Tasks that run at a time.
    batch : int
        Blocks that a task had better do one after another: as many as make what a task costs small beside its work.
    """

    workers: int
    batch: int

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

    def stop(self) -> None:
        """Begin no further task, and return once none writes any more."""
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

    batch = 1

    def __init__(self, workers: int, fetchers: int = 6) -> None:
        self.workers = workers
        self._compute = cf.ThreadPoolExecutor(self.workers, "atlaszarr-compute")
        self._fetch = cf.ThreadPoolExecutor(fetchers, "atlaszarr-fetch")
        self._stopped = threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is not None:
            self.stop()
        self._fetch.shutdown(wait=error is None)
        self._compute.shutdown()

    def stop(self) -> None:
        """Begin no further task, and return once none computes any more.

        A fetch is not waited for, since it may hang until its timeout.
        """
        self._stopped.set()
        self._fetch.shutdown(wait=False, cancel_futures=True)
        self._compute.shutdown(cancel_futures=True)

    def fetch(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a fetching thread."""
        return self._fetch.submit(function, *args)

    def compute(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a computing thread."""
        return self._compute.submit(self._run, function, args)

    def share(self, value: Any) -> Any:
        """The value itself."""
        return value

    def wait(self, futures: set[Future]) -> set[Future]:
        """The futures that are done, once at least one is."""
        # An untimed wait can miss a Ctrl-C: Python's handler runs between waits only.
        while not (done := cf.wait(futures, timeout=0.5, return_when=cf.FIRST_COMPLETED).done):
            pass
        return set(done)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return self._call(function, tuple(self._result(arg) for arg in args))
        except BaseException as error:
            self._error = self._error or error  # one error ends it all: nothing that still waits need begin
            self._stopped.set()
            raise

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._stopped.is_set():
            raise self._error or cf.CancelledError()
        return function(*args)

    def _result(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._result(item) for item in value]
        if not isinstance(value, cf.Future):
            return value
        while True:
            if self._stopped.is_set():
                raise self._error or cf.CancelledError()
            with suppress(cf.TimeoutError):
                return value.result(timeout=0.2)


class Cluster:
    """The workers of a `distributed` scheduler.

    Parameters
    ----------
    address : str
        Of the scheduler. It, and its first worker, is waited for as long as dask's own setting
        ``distributed.comm.timeouts.connect`` says; 30 s unless changed.

    Raises
    ------
    InputError
        If `distributed` is not installed or nothing answers there.
    """

    #: A task costs the scheduler 2 to 3 ms, and some blocks take no more than 5.
    batch = 16

    def __init__(self, address: str) -> None:
        import dask

        try:
            import distributed
        except ImportError:
            raise InputError(f"scheduler {address!r} needs distributed; install atlaszarr[cluster]") from None
        patience = dask.config.get("distributed.comm.timeouts.connect")
        try:
            distributed.comm.resolve_address(address)
            # Not the default, through which all that dask computes in this process would go, even where none answers.
            self._client = distributed.Client(address, set_as_default=False, timeout=patience)
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {address!r} does not answer: {error}") from None
        try:
            self._client.wait_for_workers(1, timeout=patience)
        except TimeoutError:
            self._client.close()
            raise InputError(f"scheduler {address!r} has no workers; start some first") from None
        self._distributed = distributed
        self._started: weakref.WeakSet[Future] = weakref.WeakSet()
        self.workers = max(sum(self._client.nthreads().values()), 1)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def stop(self) -> None:
        """Cancel what has not begun, and wait for what runs: as long as a store may take to answer."""
        keys = {future.key for future in self._started}
        self._client.cancel(list(self._started))
        until = time.monotonic() + _STOPPING
        while time.monotonic() < until:
            if keys.isdisjoint(key for running in self._client.processing().values() for key in running):
                return
            time.sleep(0.2)

    def fetch(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a worker."""
        return self.compute(function, *args)

    def compute(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a worker."""
        future = self._client.submit(function, *args, pure=False)
        self._started.add(future)
        return future

    def share(self, value: Any) -> Any:
        """The value as the workers hold it."""
        # In a list, since of a dict it would share every value by its key.
        (shared,) = self._client.scatter([value], broadcast=True, hash=False)
        return shared

    def wait(self, futures: set[Future]) -> set[Future]:
        """The futures that are done, once at least one is."""
        with self._client.as_current():  # not whatever client the caller has
            return set(self._distributed.wait(list(futures), return_when="FIRST_COMPLETED").done)


def scheduler_for(address: str | None, workers: int | None, fetchers: int = 6) -> Scheduler:
    """The scheduler at an address, processes of this machine, or threads of this process.

    Parameters
    ----------
    address : str, optional
        Of a `distributed` scheduler; or ``processes``.
    workers : int, optional
        Local threads or processes; default one a core.
    fetchers : int

    Raises
    ------
    InputError
        If nothing answers at the address, or there are to be no workers.
    """
    count = worker_count(workers)
    if address == "processes":
        if not hasattr(os, "memfd_create"):
            raise InputError("scheduler 'processes' needs Linux; leave it out for threads, or start a dask cluster")
        from .processes import Processes

        return Processes(count, fetchers)
    return Cluster(address) if address is not None else Threads(count, fetchers)


def worker_count(workers: int | None) -> int:
    """As many as are asked for, or one a core.

    Raises
    ------
    InputError
        If there are to be none.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers} must be at least 1")
    return workers or usable_cores()


def in_window(
    scheduler: Scheduler,
    starts: Iterator[Callable[[], Future]],
    window: int,
    fetches: set[Future] | None = None,
    fetched: Callable[[], None] = lambda: None,
) -> Iterator[Any]:
    """Start tasks one after another, no more than `window` unfinished, and yield results as they come.

    Parameters
    ----------
    scheduler : Scheduler
    starts : iterator of callable
        Each starts one task and gives its future.
    window : int
    fetches : set of Future, optional
        Fetches that the tasks wait for, which `starts` adds to. Each is removed when it is done.
    fetched : callable
        Called after fetches were removed.
    """
    under_way: set[Future] = set()
    fetches = set() if fetches is None else fetches

    def results() -> Iterator[Any]:
        done = scheduler.wait(under_way | fetches)
        if not fetches.isdisjoint(done):
            fetches.difference_update(done)
            fetched()
        for future in done & under_way:
            yield future.result()
        under_way.difference_update(done)

    for start in starts:
        under_way.add(start())
        while len(under_way) >= window:
            yield from results()
    while under_way:
        yield from results()
