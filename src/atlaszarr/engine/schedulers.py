"""Run tasks on threads of this process or on a Dask cluster."""

from __future__ import annotations

import concurrent.futures as cf
import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..errors import InputError
from .cluster import Cluster, address_of

if TYPE_CHECKING:
    import distributed

    from ..stores.target import Target

Future = Any
#: The `scheduler` of a public function: the address of a `distributed` scheduler, a client, a cluster object such as
#: `distributed.LocalCluster`, ``"threads"``, or None for the active client, else threads.
SchedulerLike: TypeAlias = "str | distributed.Client | distributed.deploy.Cluster | None"


class Scheduler(AbstractContextManager["Scheduler"], Protocol):
    """Runs tasks. An argument of a task may be a future or a list of futures: the task starts once they are done.

    Attributes
    ----------
    batch : int
        The most blocks that one task writes, and records at once, so that its overhead is small next to its work.
    """

    batch: int

    @property
    def workers(self) -> int:
        """Tasks that run at a time."""
        ...

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

    def result(self, future: Future) -> Any:
        """Wait for a future and return its result, or raise the exception of its task."""
        ...

    def stop(self) -> None:
        """Start no further task, and return once none writes."""
        ...


def usable_cores() -> int:
    """The number of cores that this process may use; on macOS and Windows all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """Threads of this process: `workers` that compute, and `fetchers` that fetch.

    In a task on a worker of a cluster they belong to that worker: `distributed.get_worker` returns it in them too.
    """

    batch = 4

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
        return self._fetch.submit(copy_context().run, function, *args)

    def compute(self, function: Callable[..., Any], *args: Any) -> Future:
        """Start a task on a computing thread."""
        return self._compute.submit(copy_context().run, self._run, function, args)

    def share(self, value: Any) -> Any:
        """The value itself."""
        return value

    def wait(self, futures: set[Future]) -> set[Future]:
        """Wait until at least one future is done, and return those that are."""
        # A wait without a timeout can miss a Ctrl-C: Python's handler runs only between waits.
        while not (done := cf.wait(futures, timeout=0.5, return_when=cf.FIRST_COMPLETED).done):
            pass
        return set(done)

    def result(self, future: Future) -> Any:
        """Wait for a future and return its result, or raise the exception of its task."""
        return future.result()

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
        if hasattr(value, "key") and type(value).__module__.startswith(
            "distributed."
        ):  # a value in the memory of a cluster
            return value.result()
        if not isinstance(value, cf.Future):
            return value
        while True:
            if self._stopped.is_set():
                raise self._error or cf.CancelledError()
            with suppress(cf.TimeoutError):
                return value.result(timeout=0.2)


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
                f"scheduler {address_of(scheduler)!r} is asynchronous; give its address", code="scheduler-asynchronous"
            )
    if target.startswith("memory://") and scheduler != "threads" and not address_of(scheduler).startswith("inproc://"):
        raise InputError(
            f"{target} is in the memory of this process, which the workers of scheduler {address_of(scheduler)!r} do "
            "not reach; choose another location, or scheduler 'threads'",
            code="target-in-memory",
        )
    return scheduler


def scheduler_for(
    scheduler: SchedulerLike, workers: int | None, fetchers: int = 6, target: Target | None = None
) -> Scheduler:
    """Start threads, or connect to a `distributed` scheduler.

    Parameters
    ----------
    scheduler : SchedulerLike
    workers : int, optional
        Threads that compute; default: one for each core.
    fetchers : int
        Threads that fetch.
    target : Target, optional
        What tasks write to. Those that write to a store on the network wait for it: by default two threads for each
        core.

    Raises
    ------
    InputError
        If `scheduler` is not supported or does not answer, or `workers` is less than 1.
    """
    count, resolved = worker_count(workers), resolve_scheduler(scheduler)
    if workers is None and target is not None and not target.is_local:
        count *= 2
    return Threads(count, fetchers) if resolved == "threads" else Cluster(resolved)


def worker_count(workers: int | None) -> int:
    """The given number, or one for each core; raises an InputError if it is not a whole number of at least 1."""
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, Integral)):
        raise InputError(f"workers {workers!r} must be a whole number", code="wrong-type")
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers} must be at least 1", code="out-of-range")
    return workers or usable_cores()
