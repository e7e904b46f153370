"""An input file on a disk, on S3 or in any store that fsspec opens, read once from its start and hashed."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import InputError
from .backend import PATIENCE, WAITS, Backend
from .failures import from_client_library, reading
from .locations import is_url, normalize, shown
from .target import open_backend

_BUFFER = 2**20
#: The most bytes of a remote file that are copied to the local disk: six times the CCF at 10 um in four bytes.
LARGEST_COPY = 2**35
#: The same if the server does not say how long the file is: a TIFF other than a BigTIFF has no more.
LARGEST_WITHOUT_LENGTH = 2**32


def cut_short(name: str, declared: str, held: int) -> InputError:
    """The error for a file that holds less than its header declares, such as ``8 planes of voxels``."""
    text = f"{name} is cut short: its header declares {declared}, and it holds {max(held, 0)}; get the file again"
    return InputError(text, code="truncated-file")


def too_long(name: str, size: int) -> InputError:
    """The error for a file that holds more bytes of numbers than its header declares."""
    text = f"{name} holds more than the {size} bytes of numbers of its header; get the file again"
    return InputError(text, code="file-too-large")


class InputFile:
    """A file that is open for reading, as a context manager; `open` returns one.

    Attributes
    ----------
    name : str
        The path or URL without credentials and signatures.
    path : Path or None
        Of a local file.
    stream : io.BufferedReader
        Its bytes; not seekable.
    """

    def __init__(self, name: str, path: Path | None, backend: Backend) -> None:
        self.name = name
        self.path = path
        self._raw = _Counted(name, backend)
        self.stream = io.BufferedReader(self._raw, _BUFFER)

    @classmethod
    def open(cls, uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> InputFile:
        """Open a file.

        Parameters
        ----------
        uri : str or path-like
            A local path, or a URL that fsspec opens.
        storage_options : mapping, optional
            Same as in `atlaszarr.build`.

        Raises
        ------
        InputError
            If the URL or an option is not valid, or if the file is a folder.
        NotFoundError
            If the file does not exist.
        SourceError
            If it cannot be read.
        """
        name, location, options = shown(uri), normalize(uri), dict(storage_options or {})
        path = None if is_url(location) else Path(location)
        if path is not None and path.is_dir():
            message = f"{name} is a folder; give a file, or a folder whose name ends in .zarr"
            raise InputError(message, code="not-a-file")
        with reading(name):
            return cls(name, path, open_backend(location, options))

    def read(self, most: int | None = None) -> bytes:
        """Read the remaining bytes.

        Raises
        ------
        InputError
            If there are more than `most` bytes.
        """
        found = bytearray()
        while part := self.stream.read(_BUFFER):
            found += part
            if most is not None and len(found) > most:
                raise self._too_large(most)
        return bytes(found)

    def finish(self) -> tuple[int, str]:
        """Read to the end, and return the size in bytes and the SHA-256 (hexadecimal) of the whole file."""
        while self.stream.read(_BUFFER):
            pass
        return self._raw.count, self._raw.digest.hexdigest()

    def copy_to(self, path: Path, most: int = LARGEST_COPY) -> None:
        """Write the remaining bytes to a local file.

        Raises
        ------
        InputError
            If there are more than `most` bytes, or more than `LARGEST_WITHOUT_LENGTH` and the server gives no length;
            if by its length the file does not fit on the disk.
        """
        if self._raw.size is None:
            most = min(most, LARGEST_WITHOUT_LENGTH)
        elif self._raw.size > most:
            raise self._too_large(most)
        elif self._raw.size > (free := shutil.disk_usage(path.parent).free):
            message = f"{self.name} has {self._raw.size} bytes, and {path.parent} has room for {free}; free some space"
            raise InputError(message, code="disk-full")
        with path.open("wb") as file:
            while body := self.stream.read(_BUFFER):
                if file.tell() + len(body) > most:
                    raise self._too_large(most)
                file.write(body)

    def _too_large(self, most: int) -> InputError:
        message = f"{self.name} is larger than the {most} bytes allowed for such a file"
        return InputError(message, code="file-too-large")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()


class _Counted(io.RawIOBase):
    """The bytes of a file, counted and hashed as they are read; a failed remote read is retried."""

    def __init__(self, name: str, backend: Backend) -> None:
        self.count = 0
        self.digest = hashlib.sha256()
        self._name = name
        self._backend = backend
        self._file: Any = None  # Python closes this object even if the file cannot be opened
        self._file = backend.open("")

    @property
    def size(self) -> int | None:
        """Size of the file in bytes, as the store gives it before the file is read; None if it does not."""
        size = getattr(self._file, "size", None)
        return size if isinstance(size, int) else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with reading(self._name, connecting=not self.count):
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
        began = time.monotonic()
        for wait in WAITS:
            try:
                return bytes(self._file.read(size))
            except Exception as error:
                if not (isinstance(error, ConnectionError | TimeoutError) or from_client_library(error)):
                    raise
                if time.monotonic() - began > PATIENCE:
                    raise
                failure = error
            time.sleep(wait)
            self._file.close()
            self._file = self._backend.open("")
            try:
                self._file.seek(self.count)
            except ValueError:  # a server that gives no length sends files only from their start
                raise failure from None
        return bytes(self._file.read(size))
