"""A file on a local disk that appears under its name whole, or not at all."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

_SUFFIX = ".partial"
_RUN = uuid4().hex
_numbers = itertools.count()


def write_whole(path: str | os.PathLike[str], body: bytes) -> None:
    """Write a file by way of a temporary one beside it; folders are made as needed."""
    # Plain calls: a build writes a file for every chunk, and pathlib takes longer than the disk.
    folder = os.path.dirname(path) or "."  # noqa: PTH120
    temporary = f"{folder}/.{_RUN}-{os.getpid()}-{next(_numbers)}{_SUFFIX}"
    try:
        try:
            _write(temporary, body)
        except FileNotFoundError:
            Path(folder).mkdir(parents=True, exist_ok=True)
            _write(temporary, body)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def is_partial(key: str) -> bool:
    """Whether a file is a temporary one, left by a process that was killed."""
    name = key.rsplit("/", 1)[-1]
    return name.startswith(".") and name.endswith(_SUFFIX)


def _write(path: str, body: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(file, view) :]
    finally:
        os.close(file)
