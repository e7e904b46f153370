"""A file on a local disk that appears under its name whole, or not at all."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from uuid import uuid4

_SUFFIX = ".partial"
_RUN = uuid4().hex
_numbers = itertools.count()


def write_whole(path: str | os.PathLike[str], body: bytes) -> None:
    """Write a file by way of a temporary one beside it; folders are made as needed."""
    path = Path(path)
    temporary = path.with_name(f".{_RUN}-{os.getpid()}-{next(_numbers)}{_SUFFIX}")
    try:
        try:
            temporary.write_bytes(body)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(body)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_partial(key: str) -> bool:
    """Whether a file is a temporary one, left by a process that was killed."""
    name = key.rsplit("/", 1)[-1]
    return name.startswith(".") and name.endswith(_SUFFIX)
