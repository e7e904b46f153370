"""A file on a local disk that appears under its name whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

_SUFFIX = ".partial"


def write_whole(path: Path, body: bytes) -> None:
    """Write a file by way of a temporary one beside it; folders are made as needed."""
    temporary = path.with_name(f".{uuid4().hex}{_SUFFIX}")
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
