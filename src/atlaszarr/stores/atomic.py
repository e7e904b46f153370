"""Files on a local disk that appear under their names whole, or not at all, and survive a power cut."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from ..errors import TargetError

_SUFFIX = ".partial"
_RUN = uuid4().hex
_numbers = itertools.count()
#: Files that are synced in one go, and at the same time.
_BATCH = 64
_SYNCING = 8
#: What a file system answers that cannot sync a folder.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


class WholeFiles:
    """Files that are written under temporary names first, and renamed once their content is on the disk."""

    def __init__(self) -> None:
        self._temporary: dict[Path, Path] = {}
        self._folders: set[Path] = set()

    def add(self, path: Path, body: bytes) -> None:
        """Write a file, in a folder that is made as needed; it appears at the latest with `finish`."""
        temporary = path.with_name(f".{_RUN}-{os.getpid()}-{next(_numbers)}{_SUFFIX}")
        self._temporary[temporary] = path
        try:
            temporary.write_bytes(body)
        except FileNotFoundError:
            self._folders.update(folder.parent for folder in path.parents if not folder.exists())
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(body)
        if len(self._temporary) >= _BATCH:
            self.finish()

    def finish(self) -> None:
        """Sync the files, rename them, then sync their folders."""
        _each(_sync_file, self._temporary)
        for temporary, path in list(self._temporary.items()):
            temporary.replace(path)
            del self._temporary[temporary]
            self._folders.add(path.parent)
        _each(_sync_folder, self._folders)
        self._folders.clear()

    def discard(self) -> None:
        """Remove the files that have not appeared yet."""
        for temporary in self._temporary:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_whole(path: Path, body: bytes) -> None:
    """Write one file that appears whole, or not at all; folders are made as needed.

    Raises
    ------
    TargetError
        If it cannot be written.
    """
    files = WholeFiles()
    try:
        files.add(path, body)
        files.finish()
    except OSError as error:
        raise TargetError(f"cannot write {str(path)!r}: {error.strerror}") from None
    finally:
        files.discard()


def _each(sync: Callable[[Path], None], paths: Collection[Path]) -> None:
    """Sync several paths at the same time: a disk writes them all for little more than one costs."""
    if len(paths) < 2:
        for path in paths:
            sync(path)
        return
    with ThreadPoolExecutor(min(len(paths), _SYNCING), "atlaszarr-sync") as pool:
        list(pool.map(sync, paths))


def _sync_file(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def is_partial(key: str) -> bool:
    """Whether a file is a temporary one, left by a process that was killed."""
    name = key.rsplit("/", 1)[-1]
    return name.startswith(".") and name.endswith(_SUFFIX)
