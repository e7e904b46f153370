"""Objects on a local disk: files that are written atomically and survive a power cut."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate, count
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from ..errors import InputError, TargetError
from .backend import LARGEST_OBJECT, Backend, Part, TooLargeError, Uploads
from .failures import disk_code

_SUFFIX = ".partial"
_numbers = count()


def _machine() -> str:
    """A name of this boot of this machine and its process ids, of 8 digits; random without Linux's ``/proc``."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    return uuid4().hex[:8]


_MACHINE = _machine()
_RUN = _MACHINE + uuid4().hex[8:]
#: The name of a temporary file: the run, of which the first digits are the machine, the process, and a number.
_TEMPORARY = re.compile(rf"\.(?P<machine>[0-9a-f]{{8}})[0-9a-f]{{24}}-(?P<process>\d+)-\d+{re.escape(_SUFFIX)}")
#: Seconds after which a temporary file of another machine is abandoned: files are renamed in batches within seconds.
_ABANDONED = 3600.0
#: Files that are synced in one batch, and concurrent syncs.
_BATCH = 64
_SYNCING = 8
#: Seconds up to which a sync is not handed to another thread, which takes as long: file systems in memory take less.
_FAST_SYNC = 2e-4
#: Flags to open a file: a named pipe is opened at once, also if nobody writes to it.
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
#: Errors of file systems that cannot sync a folder.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


class LocalBackend(Backend):
    """Files under a folder.

    A symbolic link under the folder is read as the file or folder that it points to. Nothing is written or removed
    through a link: to put an object under a link fails, and to delete it removes the link itself.

    Parameters
    ----------
    root : str
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def read(self, key: str, most: int = LARGEST_OBJECT) -> bytes | None:
        """Same as in `Backend`; devices and pipes, which may have no end, are not read."""
        try:
            descriptor = os.open(f"{self._root}/{key}" if key else self._root, _READING)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            status = os.fstat(descriptor)
            if status.st_size > most:
                raise TooLargeError(key, most)
            if not stat.S_ISREG(status.st_mode):
                error = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
                raise OSError(error, os.strerror(error), key)
            body = os.read(descriptor, status.st_size + 1)
            while len(body) < status.st_size and (part := os.read(descriptor, status.st_size - len(body))):
                body += part
            return body
        finally:
            os.close(descriptor)

    def read_range(self, key: str, start: int, stop: int, most: int) -> Part | None:
        """Same as in `Backend`."""
        try:
            with self.open(key) as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(start)
                body = file.read(max(min(stop, size) - start, 0))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Part(start, body, size, None)

    def read_each(self, keys: Iterable[str], most: int = LARGEST_OBJECT) -> dict[str, bytes | None]:
        """Same as in `Backend`, but one after another."""
        return {key: self.read(key, most) for key in keys}

    def open(self, key: str) -> io.FileIO:
        """Same as in `Backend`."""
        return (self._root / key).open("rb", buffering=0)

    def uploads(self) -> Uploads:
        """Same as in `Backend`."""
        return AtomicFiles(self.writable)

    def put_file(self, key: str, path: Path) -> None:
        """Same as in `Backend`; the file is moved, and must be on the same disk."""
        destination = self.writable(key)
        _sync_file(path)
        path.replace(destination)
        _sync_folder(destination.parent)

    def create(self, key: str, body: bytes) -> bool:
        """Same as in `Backend`."""
        path = self.folder_of(key) / Path(key).name
        try:
            with path.open("xb") as file:
                file.write(body)
        except FileExistsError:
            return False
        return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """Same as in `Backend`; links are followed, except those to a folder above them."""
        base = self._root / prefix
        if base.is_file():
            return {prefix: base.stat().st_size}
        found = {}
        for key, entry in self._entries(prefix.rstrip("/"), through_links=True):
            with suppress(FileNotFoundError):
                if not _is_circle(entry):
                    found[key] = entry.stat().st_size
        return found

    def entries(self, folder: str) -> dict[str, bool]:
        """Same as in `Backend`; links are followed, and broken ones are left out."""
        try:
            with os.scandir(self._root / folder) as scanned:
                entries = [entry for entry in scanned if not _is_circle(entry)]
                return {entry.name: entry.is_dir() for entry in entries if entry.is_dir() or entry.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def links(self, prefix: str) -> list[str]:
        """Keys at or under a prefix of links that do not point to a file: links to folders and broken links."""
        prefix = prefix.rstrip("/")
        if prefix and (self._root / prefix).is_symlink():
            return [] if (self._root / prefix).is_file() else [prefix]
        entries = self._entries(prefix, through_links=False)
        return [key for key, entry in entries if entry.is_symlink() and not (self._root / key).is_file()]

    def link_above(self, key: str, known: Collection[str] = ()) -> str | None:
        """The first folder above a key that is a link; None if there is no link. `known` folders are not looked at."""
        root, end = os.fspath(self._root), key.find("/")
        while end >= 0:
            # 1.9 us; Path.is_symlink takes 4.5 us.
            if key[:end] not in known and os.path.islink(f"{root}/{key[:end]}"):  # noqa: PTH114
                return key[:end]
            end = key.find("/", end + 1)
        return None

    def writable(self, key: str, known: Collection[str] = ()) -> Path:
        """Path of a key to write; raises an InputError if a folder above it, except the `known` ones, is a link."""
        if (link := self.link_above(key, known)) is not None:
            raise InputError(
                f"{self._root}/{link} is a link, and nothing is written through links; remove it, or replace it by a "
                "folder",
                code="link-in-target",
            )
        return self._root / key

    def folder_of(self, key: str) -> Path:
        """The folder of a key to write, which is created; raises an InputError if a folder above the key is a link."""
        folder = self.writable(key).parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def delete(self, keys: Iterable[str]) -> None:
        """Same as in `Backend`; removes folders that are then empty."""
        folders: set[Path] = set()
        for key in keys:
            path = self._root / (self.link_above(key) or key)
            path.unlink(missing_ok=True)
            for folder in path.parents[: len(path.parts) - len(self._root.parts)]:
                if folder in folders:  # and those above it
                    break
                folders.add(folder)
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            with suppress(OSError):
                folder.rmdir()

    def abandoned(self, folder: str) -> list[str]:
        """Keys of temporary files directly in a folder whose process has ended."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._root / folder) as entries:
            for entry in entries:
                if (match := _TEMPORARY.fullmatch(entry.name)) is None:
                    continue
                with suppress(FileNotFoundError):
                    is_here = match["machine"] == _MACHINE
                    age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                    if (is_here and _has_ended(match["process"])) or age > _ABANDONED:
                        found.append(f"{folder}/{entry.name}".lstrip("/"))
        return found

    def modified(self, key: str) -> datetime | None:
        """Same as in `Backend`."""
        return datetime.fromtimestamp((self._root / key).stat().st_mtime, UTC)

    def _entries(self, prefix: str, through_links: bool) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Files and links under a prefix by their keys; links to folders only if links are not followed."""
        base = self._root / prefix
        try:
            real = Path(os.path.realpath(base, strict=True))
            above = {_identity(folder.stat()) for folder in (real, *real.parents)}
        except (FileNotFoundError, NotADirectoryError):
            return
        pending = [(prefix, frozenset(above))]
        while pending:
            folder, above_it = pending.pop()
            try:
                with os.scandir(self._root / folder) as scanned:
                    entries = list(scanned)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                key = f"{folder}/{entry.name}".lstrip("/")
                if _is_circle(entry) or not entry.is_dir(follow_symlinks=through_links):
                    yield key, entry
                elif (own := _identity(entry.stat())) not in above_it:  # else a link to a folder above it
                    pending.append((key, above_it | {own}))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_circle(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link that points to itself."""
    if not entry.is_symlink():
        return False
    try:
        entry.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


class AtomicFiles:
    """Uploads as files that have temporary names until their content is on the disk.

    Parameters
    ----------
    locate : callable
        Returns the path of the file for a key, given folders that were located for other keys.
    """

    def __init__(self, locate: Callable[[str, Collection[str]], Path]) -> None:
        self._locate = locate
        self._located: set[str] = set()
        #: The path of each folder of the files that have temporary names, and the key of one of them.
        self._parents: dict[str, tuple[str, str]] = {}
        self._temporary: dict[str, str] = {}
        self._folders: set[str] = set()

    def add(self, key: str, body: bytes) -> None:
        """Write a file and create its folders; it has its name at the latest after `finish`."""
        folder, _, name = key.rpartition("/")
        if folder not in self._parents:
            self._parents[folder] = os.fspath(self._locate(key, self._located).parent), key
            self._note(folder)
        parent, _ = self._parents[folder]
        # Paths as text: objects of `pathlib` take 20 us a file.
        temporary = f"{parent}{os.sep}{_temporary_name()}"
        self._temporary[temporary] = f"{parent}{os.sep}{name}"
        try:
            _write(temporary, body)
        except FileNotFoundError:
            path = Path(temporary)
            self._folders.update(os.fspath(above.parent) for above in path.parents if not above.exists())
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(temporary, body)
        if len(self._temporary) >= _BATCH:
            self.finish()

    def finish(self) -> None:
        """Sync the files, rename them, then sync their folders."""
        _each(_sync_file, self._temporary)
        # A folder may have become a link since `add`.
        self._located.clear()
        for folder, (_, key) in self._parents.items():
            self._locate(key, self._located)
            self._note(folder)
        self._parents.clear()
        for temporary, path in list(self._temporary.items()):
            os.replace(temporary, path)  # noqa: PTH105 (4.5 us; Path.replace takes 9.9 us)
            del self._temporary[temporary]
            self._folders.add(path.rpartition(os.sep)[0])
        _each(_sync_folder, self._folders)
        self._folders.clear()

    def _note(self, folder: str) -> None:
        """Locate a folder, and those above it, no more in this batch."""
        self._located.update(accumulate(folder.split("/"), "{}/{}".format))

    def discard(self) -> None:
        """Remove the files that still have temporary names."""
        for temporary in self._temporary:
            with suppress(OSError):
                Path(temporary).unlink()


def write_whole(path: str | os.PathLike[str], body: bytes) -> None:
    """Write a file atomically, and create the folder that holds it.

    Raises
    ------
    TargetError
        If the file cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(Path(path)) as file:
            file.write(body)
    except OSError as error:
        raise TargetError(f"cannot write {os.fspath(path)!r}: {error.strerror}", code=disk_code(error)) from None


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write; its path is unchanged until the context ends, and if the context raises."""
    temporary = path.with_name(_temporary_name())
    try:
        with temporary.open("wb") as file:
            yield file
        _sync_file(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_name() -> str:
    return f".{_RUN}-{os.getpid()}-{next(_numbers)}{_SUFFIX}"


def _write(path: str, body: bytes) -> None:
    # Without the objects of `pathlib` and `io`, which take longer than to write a chunk.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        left = memoryview(body)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def _has_ended(process: str) -> bool:
    """Whether a process of this machine has ended; False without Linux's ``/proc``."""
    return Path("/proc/self").exists() and not Path("/proc", process).exists()


def _each(sync: Callable[[str], None], paths: Collection[str]) -> None:
    """Sync paths: in this thread if that takes no time, else concurrently, which takes little longer than one sync."""
    left = list(paths)
    while left:
        begun = time.perf_counter()
        sync(left.pop())
        if left and time.perf_counter() - begun > _FAST_SYNC:
            list(_syncs(os.getpid()).map(sync, left))
            return


@lru_cache(maxsize=1)
def _syncs(_process: int) -> ThreadPoolExecutor:
    """The threads of this process that sync; a fork has none of its parent's."""
    return ThreadPoolExecutor(_SYNCING, "atlaszarr-sync")


def _sync_file(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: str | Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows does not open folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def is_partial(key: str) -> bool:
    """Whether a key is that of a temporary file, which a killed process may leave."""
    name = key.rsplit("/", 1)[-1]
    return name.startswith(".") and name.endswith(_SUFFIX)
