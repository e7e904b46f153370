"""Run tasks on threads of this process or on a Dask cluster, a bounded number of them at a time."""

from __future__ import annotations

import concurrent.futures as cf
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..errors import InputError

if TYPE_CHECKING:
    import distributed

Future = Any
#: The `scheduler` of a public function: the address of a `distributed` scheduler, a client, a cluster object such as
#: `distributed.LocalCluster`, ``"threads"``, or None for the active client, else threads.
SchedulerLike: TypeAlias = "str | distributed.Client | distributed.deploy.Cluster | None"
#: Seconds to wait for the running tasks of a cluster after an error.
_STOPPING = 60.0


class Scheduler(AbstractContextManager["Scheduler"], Protocol):
    """Runs tasks. An argument of a task may be a future or a list of futures: the task starts once they are done.

    Attributes
    ----------
    workers : int
        Tasks that run at a time.
    batch : int
        Blocks for one task, so that its overhead is small next to its work.
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
        """Return what to pass to tasks instead of a value that many of them take."""
        ...

    def wait(self, futures: set[Future]) -> set[Future]:
        """Wait until at least one future is done, and return those that are."""
        ...

    def stop(self) -> None:
        """Start no further task, and return once none writes."""
        ...


def usable_cores() -> int:
    """The number of cores that this process may use; on macOS and Windows all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """Threads of this process: `workers` that compute, and `fetchers` that fetch."""

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
        """Start no further task, and return once none computes; fetches are not waited for."""
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
        """Wait until at least one future is done, and return those that are."""
        # A wait without a timeout can miss a Ctrl-C: Python's handler runs only between waits.
        while not (done := cf.wait(futures, timeout=0.5, return_when=cf.FIRST_COMPLETED).done):
            pass
        return set(done)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            values = [self._result(arg) for arg in args]
            if self._stopped.is_set():
                raise self._error or cf.CancelledError()
            return function(*values)
        except BaseException as error:
            self._error = self._error or error  # after an error no other task starts
            self._stopped.set()
            raise

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
    scheduler : str, distributed.Client or distributed.deploy.Cluster
        A client stays open. The scheduler and its first worker must answer within dask's setting
        ``distributed.comm.timeouts.connect``, 30 s by default.

    Raises
    ------
    InputError
        If `distributed` is not installed, the scheduler does not answer, or it has no workers.
    """

    #: A task costs the scheduler 2 to 3 ms, and a small block takes only 5.
    batch = 16

    def __init__(self, scheduler: str | distributed.Client | distributed.deploy.Cluster) -> None:
        import dask

        try:
            import distributed
        except ImportError:
            raise InputError(
                f"scheduler {scheduler!r} needs distributed; install atlaszarr[cluster]", code="missing-dependency"
            ) from None
        timeout = dask.config.get("distributed.comm.timeouts.connect")
        self._owned = not isinstance(scheduler, distributed.Client)
        try:
            if isinstance(scheduler, str):
                distributed.comm.resolve_address(scheduler)
            # Not as the default client: dask would send all other computations of this process to it.
            options = {"set_as_default": False, "timeout": timeout}
            client: Any = distributed.Client(scheduler, **options) if self._owned else scheduler
        except (OSError, ValueError) as error:
            raise InputError(
                f"scheduler {_name(scheduler)!r} does not answer: {error}", code="scheduler-unreachable"
            ) from None
        if client.status != "running":
            raise InputError(
                f"scheduler {_name(scheduler)!r} does not answer: its client is {client.status}",
                code="scheduler-unreachable",
            )
        self._client = client
        try:
            client.wait_for_workers(1, timeout=timeout)
        except TimeoutError:
            self._close()
            raise InputError(
                f"scheduler {_name(scheduler)!r} has no workers; start workers first", code="scheduler-without-workers"
            ) from None
        self._wait, self._closed = distributed.wait, distributed.client.ClosedClientError
        self._started: weakref.WeakSet[Future] = weakref.WeakSet()
        self.workers = max(sum(client.nthreads().values()), 1)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            if error is not None:
                self.stop()
        finally:
            self._close()

    def _close(self) -> None:
        if self._owned:
            self._client.close()

    def stop(self) -> None:
        """Cancel the tasks that have not started, and wait for the others, at most `_STOPPING` seconds."""
        futures, until = list(self._started), time.monotonic() + _STOPPING
        self._started.clear()
        keys = {future.key for future in futures}
        with suppress(OSError, RuntimeError, self._closed):  # the scheduler has ended, which the first error reports
            self._client.cancel(futures)
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
        """Send the value to every worker, and return a future of it."""
        # In a list: scatter shares a dict value by value.
        (shared,) = self._client.scatter([value], broadcast=True, hash=False)
        return shared

    def wait(self, futures: set[Future]) -> set[Future]:
        """Wait until at least one future is done, and return those that are."""
        with self._client.as_current():  # instead of the caller's client
            return set(self._wait(list(futures), return_when="FIRST_COMPLETED").done)


def active_client() -> distributed.Client | None:
    """The connected `distributed` client that dask computes with; None without one, and in a task on a worker."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client, get_worker

    with suppress(ValueError):
        get_worker()
        return None  # a task that waits for tasks of its own cluster could wait for itself
    with suppress(ValueError):
        client = default_client()
        if client.status == "running" and not client.asynchronous:
            return client
    return None


def resolve_scheduler(
    scheduler: SchedulerLike, target: str = ""
) -> str | distributed.Client | distributed.deploy.Cluster:
    """Validate a scheduler: ``"threads"``, or an address, client or cluster whose workers reach a target.

    Parameters
    ----------
    scheduler : SchedulerLike
    target : str
        URL of the target.

    Raises
    ------
    InputError
        If `scheduler` is not supported, or its workers cannot reach the target.
    """
    if scheduler is None:
        scheduler = active_client() or "threads"
    if scheduler == "processes":
        raise InputError(
            "scheduler 'processes' is not supported; leave it out for threads, or give the address of a dask "
            "scheduler (distributed.LocalCluster() starts processes on this machine)",
            code="not-supported",
        )
    if not isinstance(scheduler, str):
        if not (hasattr(scheduler, "scheduler_address") or hasattr(scheduler, "scheduler_info")):
            raise InputError(
                f"scheduler {scheduler!r:.80} is not supported; give an address, a distributed.Client, a "
                "distributed.LocalCluster, or 'threads'",
                code="not-supported",
            )
        if getattr(scheduler, "asynchronous", False):
            raise InputError(
                f"scheduler {_name(scheduler)!r} is asynchronous; give its address", code="scheduler-asynchronous"
            )
    if target.startswith("memory://") and scheduler != "threads" and not _name(scheduler).startswith("inproc://"):
        raise InputError(
            f"target {target} is in the memory of this process, and the workers of scheduler {_name(scheduler)!r} "
            "cannot write to it; choose another target, or scheduler 'threads'",
            code="target-in-memory",
        )
    return scheduler


def _name(scheduler: Any) -> str:
    """The address of a scheduler."""
    if isinstance(scheduler, str):
        return scheduler
    return str(getattr(scheduler, "scheduler_address", None) or getattr(scheduler.scheduler, "address", scheduler))


def scheduler_for(scheduler: SchedulerLike, workers: int | None, fetchers: int = 6) -> Scheduler:
    """Start threads, or connect to a `distributed` scheduler.

    Parameters
    ----------
    scheduler : SchedulerLike
    workers : int, optional
        Threads that compute; default: one for each core.
    fetchers : int
        Threads that fetch.

    Raises
    ------
    InputError
        If `scheduler` is not supported or does not answer, or `workers` is less than 1.
    """
    count, resolved = worker_count(workers), resolve_scheduler(scheduler)
    return Threads(count, fetchers) if resolved == "threads" else Cluster(resolved)


def worker_count(workers: int | None) -> int:
    """The given number, or one for each core; raises an InputError if it is less than 1."""
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers} must be at least 1", code="out-of-range")
    return workers or usable_cores()


def in_window(
    scheduler: Scheduler,
    starts: Iterator[Callable[[], Future]],
    window: int,
    fetches: set[Future] | None = None,
    fetched: Callable[[], None] = lambda: None,
) -> Iterator[Any]:
    """Start tasks one after another, at most `window` unfinished, and yield each result once it is available.

    Parameters
    ----------
    scheduler : Scheduler
    starts : iterator of callable
        Each starts one task and returns its future.
    window : int
    fetches : set of Future, optional
        Unfinished fetches that tasks wait for: `starts` adds them, and `in_window` removes them once they are done.
    fetched : callable
        Called after finished fetches are removed.
    """
    unfinished: set[Future] = set()
    fetches = set() if fetches is None else fetches

    def results() -> Iterator[Any]:
        done = scheduler.wait(unfinished | fetches)
        if not fetches.isdisjoint(done):
            fetches.difference_update(done)
            fetched()
        for future in done & unfinished:
            yield future.result()
        unfinished.difference_update(done)

    for start in starts:
        unfinished.add(start())
        while len(unfinished) >= window:
            yield from results()
    while unfinished:
        yield from results()
