"""Run tasks on the workers of a Dask cluster."""

from __future__ import annotations

import concurrent.futures as cf
import pickle
import re
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import cloudpickle

from ..errors import AtlaszarrError, InputError, SchedulerError
from ..versions import version

if TYPE_CHECKING:
    import distributed

#: Seconds to wait for the running tasks of a cluster after an error.
_STOPPING = 60.0
#: Seconds to wait for a first worker, or for another one after all are lost, unless dask's setting
#: ``distributed.scheduler.no-workers-timeout`` is given: cloud machines and batch jobs start within a few minutes.
_NO_WORKERS = 300.0
#: Seconds for the answer of a scheduler: twice what dask allows for a connection, and more than a busy one needs.
_SILENCE = 60.0
#: Seconds to copy a shared value to all workers: several GB at the 100 MB/s of a slow network.
_COPYING = 120.0
#: Seconds without a finished task after which the scheduler is asked for its workers.
_POLL = 5.0
#: The version of atlaszarr in another process, for `eval`, which a process without atlaszarr has too.
_VERSION = "__import__('atlaszarr.versions', fromlist=['version']).version()"
#: Errors of a task whose cause is the environment of its worker: the process of the build has the credentials.
_OF_WORKER = ("missing-credentials", "access-denied", "store-forbidden")


class Cluster:
    """The workers of a `distributed` scheduler.

    Parameters
    ----------
    scheduler : str, distributed.Client or distributed.deploy.Cluster
        A client stays open. The scheduler must answer within dask's setting ``distributed.comm.timeouts.connect``, 30 s
        by default, and have a worker within ``distributed.scheduler.no-workers-timeout``, 300 s by default; an adaptive
        cluster starts one for the first task.

    Raises
    ------
    InputError
        If `distributed` is not installed, the scheduler does not answer, it has no workers, or one of its
        processes has no atlaszarr or another version of it.
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
        self._name = address_of(scheduler)
        self._owned = not isinstance(scheduler, distributed.Client)
        try:
            if isinstance(scheduler, str):
                distributed.comm.resolve_address(scheduler)
            # Not as the default client: dask would send all other computations of this process to it.
            options = {"set_as_default": False, "timeout": dask.config.get("distributed.comm.timeouts.connect")}
            client: Any = distributed.Client(scheduler, **options) if self._owned else scheduler
        except (OSError, ValueError) as error:
            raise InputError(
                f"scheduler {self._name!r} does not answer: {error}", code="scheduler-unreachable"
            ) from None
        if client.status != "running":
            raise InputError(
                f"scheduler {self._name!r} does not answer: its client is {client.status}",
                code="scheduler-unreachable",
            )
        self._client = client
        self._wait = distributed.wait
        self._started: weakref.WeakSet[distributed.Future] = weakref.WeakSet()
        patience = dask.config.get("distributed.scheduler.no-workers-timeout")
        self._patience = _NO_WORKERS if patience is None else dask.utils.parse_timedelta(patience)
        self._without_workers_since: float | None = None
        self._silent = False
        try:
            self._validate_workers()
            self._count_workers()
        except BaseException as error:
            self._close()
            if isinstance(error, SchedulerError):  # nothing is written yet
                raise InputError(str(error), code=error.code) from None
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            if error is not None:
                self.stop()
        finally:
            self._close()

    @property
    def workers(self) -> int:
        """Threads of all workers, at least 1; counted again every few seconds, since workers come and go."""
        if time.monotonic() - self._counted > _POLL:
            self._count_workers()
        return self._workers

    def _count_workers(self) -> None:
        self._workers: int = max(sum(self._ask(self._client.scheduler.ncores).values()), 1)
        self._counted = time.monotonic()

    def _close(self) -> None:
        if self._owned:
            with suppress(TimeoutError):
                self._client.close(timeout=0 if self._silent else _SILENCE)

    def stop(self) -> None:
        """Cancel the tasks that have not started, and wait for the others, at most `_STOPPING` seconds."""
        futures, until = list(self._started), time.monotonic() + _STOPPING
        self._started.clear()
        keys = {future.key for future in futures}
        with suppress(SchedulerError):  # the scheduler has ended, which the first error reports
            self._ask(lambda: self._client.cancel(futures))
            while time.monotonic() < until:
                running = self._ask(self._client.scheduler.processing)
                if keys.isdisjoint(key for tasks in running.values() for key in tasks):
                    return
                time.sleep(0.2)

    def fetch(self, function: Callable[..., Any], *args: Any) -> distributed.Future:
        """Start a task on a worker."""
        return self.compute(function, *args)

    def compute(self, function: Callable[..., Any], *args: Any) -> distributed.Future:
        """Start a task on a worker."""
        import dask

        key = f"{dask.utils.funcname(function)}-{uuid.uuid4()}"
        future = self._submit(_run_on_worker, _own_version(), function, *args, key=key)
        self._started.add(future)
        return future

    def compute_graph(self, lazy: Any) -> Any:
        """Compute a dask collection on the workers."""
        try:
            return lazy.compute(scheduler=self._client)
        except Exception as error:
            explained = self._explained(error)
            if explained is error:
                raise
            raise explained from None

    def share(self, value: Any) -> Any:
        """Send the value to every worker, and return a future of it.

        It is a task, so that the value is sent again if all workers that have it are lost. It is pickled here, so that
        the scheduler does not need the modules that it refers to; not for workers of this process, which share it.
        """
        import dask

        in_process = self._name.startswith("inproc://")
        load = (
            partial(_same, value)
            if in_process
            else partial(pickle.loads, pickle.PickleBuffer(cloudpickle.dumps(value)))
        )
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 PiB"}):  # the value may be an array
            shared = self._submit(_run_on_worker, _own_version(), load, pure=False)
        self.wait({shared})
        # Not fatal: a worker without a copy fetches one.
        with suppress(Exception):
            self._client.sync(lambda: self._client.replicate([shared]), callback_timeout=_COPYING)
        return shared

    def wait(self, futures: set[distributed.Future]) -> set[distributed.Future]:
        """Wait until at least one future is done, and return those that are."""
        waiting = list(futures)
        while True:
            try:
                with self._client.as_current():  # instead of the caller's client
                    return set(self._wait(waiting, timeout=_POLL, return_when="FIRST_COMPLETED").done)
            except TimeoutError:
                self._require_workers()
            except Exception as error:
                raise self._explained(error) from None

    def result(self, future: distributed.Future) -> Any:
        """Wait for a future and return its result, or raise the exception of its task."""
        if not future.done():
            self.wait({future})
        while True:
            try:
                return future.result(timeout=_SILENCE)
            except TimeoutError:
                if future.status == "error":
                    raise
                self._require_workers()  # the worker that had the result is lost, and the task runs again
            except Exception as error:
                explained = self._explained(error)
                if explained is error:
                    raise
                raise explained from None

    def _submit(self, *args: Any, **options: Any) -> distributed.Future:
        try:
            return self._client.submit(*args, **options)
        except Exception as error:
            raise self._explained(error) from None

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The answer of the scheduler to a coroutine function."""
        try:
            if not self._silent:
                return self._client.sync(question, callback_timeout=_SILENCE)
            raise TimeoutError
        except TimeoutError:
            self._silent = True
            message = f"scheduler {self._name} has not answered for {_SILENCE:.0f} s; run the same command to resume"
            raise SchedulerError(message, code="scheduler-unreachable") from None
        except Exception:
            raise self._lost() from None

    def _validate_workers(self) -> None:
        """Compare the versions of atlaszarr; an adaptive cluster starts its first worker for a task."""
        try:
            self.result(self._submit(eval, _VERSION, pure=False))
        except SchedulerError as error:
            if error.code != "package-missing":  # else the answers tell where
                raise
        found = self._ask(lambda: self._client.run(eval, _VERSION, on_error="return"))
        versions = {f"worker {worker}": answer for worker, answer in found.items()}
        with suppress(SchedulerError):  # a scheduler may allow no questions
            versions[f"the process of scheduler {self._name}"] = self._ask(self._scheduler_version)
        for where, answer in versions.items():
            if isinstance(answer, ModuleNotFoundError):
                raise _lacks(where, answer)
            if isinstance(answer, str):  # else the worker has ended meanwhile
                _require_version(answer, where, _own_version())

    async def _scheduler_version(self) -> Any:
        try:
            return await self._client.run_on_scheduler(eval, _VERSION)
        except ModuleNotFoundError as error:
            return error

    def _require_workers(self) -> None:
        """Raise an error if no worker has run for a time, so that no task can finish."""
        if self._ask(self._client.scheduler.ncores_running):
            self._without_workers_since = None
            return
        now = time.monotonic()
        since = self._without_workers_since = self._without_workers_since or now
        if now - since < self._patience - _POLL:
            return
        raise self._no_workers()

    def _no_workers(self) -> SchedulerError:
        """The error for a scheduler without workers, or with workers that are all paused."""
        if paused := self._ask(self._client.scheduler.ncores):
            return SchedulerError(
                f"the {len(paused)} workers of scheduler {self._name} have been paused for {self._patience:.0f} s "
                "because their memory is full; give them more memory or fewer threads, or make smaller chunks, then "
                "run the same command to resume",
                code="workers-paused",
            )
        return SchedulerError(
            f"scheduler {self._name} has had no workers for {self._patience:.0f} s; start workers (the logs of those "
            "that ended say why), then run the same command",
            code="scheduler-without-workers",
        )

    def _explained(self, error: Exception) -> Exception:
        """The SchedulerError for an exception of `distributed`; any other exception is returned unchanged."""
        from distributed import KilledWorker
        from distributed.client import ClosedClientError
        from distributed.comm import CommClosedError

        explained: Exception = error
        if isinstance(error, AtlaszarrError):
            pass
        elif isinstance(error, KilledWorker):
            explained = SchedulerError(
                f"a task ended {error.allowed_failures + 1} workers of scheduler {self._name}, the last at "
                f"{error.last_worker.address}, most often for lack of memory (their logs say why); give workers more "
                "memory or fewer threads, or make smaller chunks, then run the same command to resume",
                code="worker-killed",
            )
        elif type(error).__name__ in ("NoWorkerError", "NoValidWorkerError"):
            explained = self._no_workers()
        elif isinstance(error, (cf.CancelledError, ClosedClientError, CommClosedError)) or (
            isinstance(error, RuntimeError) and self._client.status in ("closing", "closed")  # its event loop is closed
        ):
            explained = self._lost()
        # A module that is missing in the function of a block has the note of the block.
        elif "No module named" in str(error) and not getattr(error, "__notes__", ()):
            explained = _lacks(f"a worker of scheduler {self._name}", error)
        return explained

    def _lost(self) -> SchedulerError:
        return SchedulerError(
            f"the connection to scheduler {self._name} was lost or closed, or its tasks were cancelled; start it again "
            "if it has ended, then run the same command to resume",
            code="scheduler-lost",
        )


def _run_on_worker(its_version: str, function: Callable[..., Any], *args: Any) -> Any:
    """Run a task on a worker that has the same version of atlaszarr as the process of the build."""
    from distributed import get_worker

    _require_version(_own_version(), f"worker {get_worker().address}", its_version)
    try:
        return function(*args)
    except AtlaszarrError as error:
        if error.code not in _OF_WORKER:
            raise
        raise SchedulerError(
            f"worker {get_worker().address}: {error}; a worker has the credentials of its own environment, or those "
            "that are given as storage options",
            code=error.code,
        ) from None


def _same(value: Any) -> Any:
    return value


def _require_version(found: str, where: str, expected: str) -> None:
    if found != expected:
        raise SchedulerError(
            f"{where} has atlaszarr {found}, and this process has {expected}; install the same version everywhere",
            code="version-mismatch",
        )


def _lacks(where: str, error: Exception) -> SchedulerError:
    """The error for a process that lacks a package, from its ModuleNotFoundError."""
    found = re.search(r"No module named '([\w.]+)", str(error))
    package = found[1].partition(".")[0] if found else "a package"
    return SchedulerError(f"{where} lacks {package}; install the same packages there as here", code="package-missing")


@cache
def _own_version() -> str:
    """The version of atlaszarr in this process, which tasks compare."""
    return version()


def address_of(scheduler: Any) -> str:
    """The address of a scheduler."""
    if isinstance(scheduler, str):
        return scheduler
    return str(getattr(scheduler, "scheduler_address", None) or getattr(scheduler.scheduler, "address", scheduler))
