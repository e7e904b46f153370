"""A file anywhere fsspec reaches, read once from its beginning: its size and digest, and errors in plain words.

What the file holds is not its business.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import AtlaszarrError, InputError, NotFoundError, SourceError
from .locations import local_path, normalize, shown
from .target import from_client_library, reason

#: Seconds to wait before a read that failed is tried again.
_WAITS = (0.5, 1.0, 4.0)
_BUFFER = 2**20


class SourceFile:
    """A file that is open for reading, as a context manager; `open` makes one.

    Attributes
    ----------
    name : str
        The path or URL without what may be secret in it.
    path : Path or None
        Where it is a local file.
    stream : io.BufferedReader
        Its bytes, forwards only.
    """

    def __init__(self, name: str, path: Path | None, opener: Callable[[], Any]) -> None:
        self.name = name
        self.path = path
        self._raw = _Counted(opener, name)
        self.stream = io.BufferedReader(self._raw, _BUFFER)

    @classmethod
    def open(cls, uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> SourceFile:
        """Open a file.

        Parameters
        ----------
        uri : str or path-like
            A local path, or any URL that fsspec opens.
        storage_options : mapping, optional
            To fsspec; of ``s3://`` as `atlaszarr.build` takes them.

        Raises
        ------
        InputError
            If the URL or an option cannot be used.
        NotFoundError
            If there is no such file.
        SourceError
            If it cannot be read.
        """
        name, path, options = shown(uri), local_path(uri), dict(storage_options or {})
        if path is None:
            with reading(name):
                return cls(name, None, _remote(normalize(uri), options))
        if options:
            raise InputError(f"storage option {next(iter(options))!r} is not supported for the path {name}")
        if path.is_dir():
            raise InputError(f"{name} is a folder; give a file, or a folder whose name ends in .zarr")
        with reading(name):
            return cls(name, path, lambda: path.open("rb", buffering=0))

    @property
    def count(self) -> int:
        """Bytes that were read from the file so far."""
        return self._raw.count

    def read(self) -> bytes:
        """All that is left."""
        return self.stream.read()

    def finish(self) -> tuple[int, str]:
        """Read to the end: the size in bytes and the SHA-256 (hexadecimal) of the whole file."""
        while self.stream.read(_BUFFER):
            pass
        return self._raw.count, self._raw.digest.hexdigest()

    def copy_to(self, path: Path) -> None:
        """Write all that is left to a local file."""
        with path.open("wb") as file:
            while body := self.stream.read(_BUFFER):
                file.write(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a store raises into an error that names the file and no credential."""
    try:
        yield
    except AtlaszarrError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        # Of HTTP, fsspec calls whatever happens at opening so, with what it was as the cause.
        cause = error.__cause__
        if isinstance(cause, Exception) and from_client_library(cause):
            status = getattr(cause, "status", None)
            if status not in (404, 410):
                said = reason(cause) if status is None else f"HTTP {status}"
                raise SourceError(f"cannot read {name}: {said}") from None
        raise NotFoundError(f"there is no file {name}; check the path or the URL") from None
    except (TypeError, ValueError, ImportError) as error:
        # What fsspec makes of a protocol or an option that it does not know.
        raise InputError(f"cannot read {name}: {type(error).__name__}; check the URL and the storage options") from None
    except Exception as error:
        if not (isinstance(error, OSError) or from_client_library(error)):
            raise
        raise SourceError(f"cannot read {name}: {reason(error)}") from None


def _remote(url: str, options: dict[str, Any]) -> Callable[[], Any]:
    if url.startswith("s3://"):
        from .s3 import S3Objects

        folder, _, key = url.rpartition("/")
        objects = S3Objects(folder, options)
        return lambda: objects.reader(key)
    import fsspec

    fs, path = fsspec.core.url_to_fs(url, **options)
    return lambda: fs.open(path, "rb")


class _Counted(io.RawIOBase):
    """A file's bytes, counted and digested as they are read; a remote read that fails is tried again."""

    def __init__(self, opener: Callable[[], Any], name: str) -> None:
        self.count = 0
        self.digest = hashlib.sha256()
        self._opener = opener
        self._name = name
        self._file: Any = None  # closed by Python even where it could not be opened
        self._file = opener()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with reading(self._name):
            body = self._read(len(buffer))
        buffer[: len(body)] = body
        self.count += len(body)
        self.digest.update(body)
        return len(body)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()

    def _read(self, size: int) -> bytes:
        for wait in _WAITS:
            try:
                return bytes(self._file.read(size))
            except Exception as error:
                if not (isinstance(error, ConnectionError | TimeoutError) or from_client_library(error)):
                    raise
            time.sleep(wait)
            self._file = self._opener()
            self._file.seek(self.count)
        return bytes(self._file.read(size))
