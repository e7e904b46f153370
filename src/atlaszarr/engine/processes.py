"""Running tasks on processes of this machine: for sources whose computing threads would wait for one another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle

from .schedulers import Threads


@dataclass(frozen=True)
class _Shared:
    """A value that lies in a file of the parent's, for every process to read once."""

    path: str


class Processes(Threads):
    """Processes that compute, and threads of this one that fetch. Linux only.

    Scripts that use it keep what they run under ``if __name__ == "__main__"``, since every process imports them.

    Parameters
    ----------
    workers : int
        How many compute.
    fetchers : int
        How many threads fetch.
    """

    batch = 4

    def __init__(self, workers: int, fetchers: int = 6) -> None:
        super().__init__(workers, fetchers)
        self._shared: list[int] = []
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(os.getpid(),))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._pool.shutdown(cancel_futures=True)
        for descriptor in self._shared:
            os.close(descriptor)

    def share(self, value: Any) -> Any:
        """What the processes find the value by."""
        # In memory, since it may hold credentials and must not outlive the process.
        descriptor = os.memfd_create("atlaszarr")
        self._shared.append(descriptor)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(cloudpickle.dumps(value))
        return _Shared(f"/proc/{os.getpid()}/fd/{descriptor}")

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return super()._call(lambda: self._pool.submit(_call, cloudpickle.dumps((function, args))).result(), ())


def _begin(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(body: bytes) -> Any:
    function, args = cloudpickle.loads(body)
    return function(*(_read(arg.path) if isinstance(arg, _Shared) else arg for arg in args))


@lru_cache(maxsize=8)
def _read(path: str) -> Any:
    return cloudpickle.loads(Path(path).read_bytes())
