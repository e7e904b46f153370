"""A store in memory whose errors are no OSErrors, as those of gcsfs, and that fails as it is told to."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class StoreFaultError(Exception):
    """What this store raises."""


@dataclass
class Fault:
    """What happens to calls.

    Attributes
    ----------
    operation : str
        ``put``, ``get``, ``list``, ``remove`` or ``modified``.
    part : str
        Of the path.
    error : Exception or callable
        Raised; or called.
    times : int
        How many calls it happens to.
    done : bool
        Whether the call is carried out first: the answer is lost.
    """

    operation: str
    part: str
    error: Any
    times: int = 1
    done: bool = False


class Scripted(MemoryFileSystem):
    """Fails by a list of faults."""

    protocol = "scripted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[Fault]] = []
    _lock: ClassVar[Lock] = Lock()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self._do("put", path, lambda: super(Scripted, self).pipe_file(path, value, mode=mode))

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
            fault = next((one for one in self.faults if one.operation == operation and one.part in path), None)
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
