"""A store in memory that fails by a list of faults, with errors that are not OSErrors, as those of gcsfs are not."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class StoreFaultError(Exception):
    """An error of this store."""


@dataclass
class Fault:
    """A fault of some calls.

    Attributes
    ----------
    operation : str
        ``put``, ``get``, ``list``, ``remove`` or ``modified``.
    part : str
        A part of the path of the call.
    error : Exception or callable
        Raised, or called before the call is carried out.
    times : int
        Number of calls that fail.
    done : bool
        Whether the call is carried out before the error, so that its answer is lost.
    """

    operation: str
    part: str
    error: Any
    times: int = 1
    done: bool = False


class Scripted(MemoryFileSystem):
    """A filesystem in memory that fails by the list `faults`."""

    protocol = "scripted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[Fault]] = []
    _lock: ClassVar[Lock] = Lock()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self._do("put", path, lambda: super(Scripted, self).pipe_file(path, value, mode=mode))

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **options: Any) -> None:
        self._do("put", rpath, lambda: super(Scripted, self).put_file(lpath, rpath, *arguments, **options))

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        return self._do("get", path, lambda: super(Scripted, self).cat_file(path, *arguments, **options))

    def find(self, path: str, **options: Any) -> Any:
        return self._do("list", path, lambda: super(Scripted, self).find(path, **options))

    def rm_file(self, path: str) -> None:
        self._do("remove", path, lambda: super(Scripted, self).rm_file(path))

    def modified(self, path: str) -> Any:
        return self._do("modified", path, lambda: super(Scripted, self).modified(path))

    def _do(self, operation: str, path: str, call: Callable[[], Any]) -> Any:
        with self._lock:
            fault = next((f for f in self.faults if f.operation == operation and f.part in path), None)
            if fault is not None:
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
        if fault is None:
            return call()
        if fault.done:
            call()
        if callable(fault.error):
            fault.error()
            return call()
        raise fault.error

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("scripted://", "memory://")))


fsspec.register_implementation("scripted", Scripted, clobber=True)
