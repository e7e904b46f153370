"""Objects by their keys under one place: on a local disk, on S3, or anywhere else that fsspec reaches."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from .atomic import WholeFiles

#: Requests under way at once to stores that are not the local disk, in one process.
_CONCURRENCY = 16
#: Bytes that are put at once: several puts under way, little in memory.
BATCH = 16 * 2**20


class Puts(Protocol):
    """Objects on their way to a store: one after another is added, several may be under way."""

    def add(self, key: str, body: bytes) -> None:
        """Put an object, or begin to."""
        ...

    def finish(self) -> None:
        """Return once the store holds all objects, after a power cut too."""
        ...

    def discard(self) -> None:
        """Give up what is not stored; called at the end in any case."""
        ...


class Objects(Protocol):
    """What a target needs of a store. What is put appears whole or not at all."""

    def get(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The content of objects; None where there is none."""
        ...

    def puts(self) -> Puts:
        """Begin to put objects."""
        ...

    def create(self, key: str, body: bytes) -> bool:
        """Put an object unless there is one; of two at once one succeeds."""
        ...

    def read_tagged(self, key: str) -> tuple[bytes, str | None] | None:
        """The content of an object and its tag, which is None where the store has none; None if there is no object."""
        ...

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Put an object if the one in its place has this tag, and return whether it was put; any has the tag None."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Size of every object at or under a prefix."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects."""
        ...

    def modified(self, key: str) -> datetime | None:
        """When an object was put, by the store's own clock; None where it does not say."""
        ...


class _Untagged(ABC):
    """Objects without tags: each is replaced whatever it holds by then."""

    @abstractmethod
    def get(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Same as in `Objects`."""

    @abstractmethod
    def puts(self) -> Puts:
        """Same as in `Objects`."""

    def read_tagged(self, key: str) -> tuple[bytes, str | None] | None:
        """Same as in `Objects`."""
        body = self.get([key])[key]
        return None if body is None else (body, None)

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Same as in `Objects`."""
        assert tag is None
        puts = self.puts()
        try:
            puts.add(key, body)
            puts.finish()
        finally:
            puts.discard()
        return True


class LocalObjects(_Untagged):
    """Files under a folder.

    A link below the folder is read like what it leads to. Nothing is written or removed through it: an object whose key
    leads through a link is not put, and to remove it is to remove the link itself.

    Parameters
    ----------
    root : str
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def get(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """As of `Objects`."""
        return {key: self._read(key) for key in keys}

    def puts(self) -> Puts:
        """Same as in `Objects`."""
        return _LocalPuts(self, self._root)

    def create(self, key: str, body: bytes) -> bool:
        """As of `Objects`."""
        self.refuse_link(key)
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(body)
        except FileExistsError:
            return False
        return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """As of `Objects`; of links too, but for those to a folder that they lie in."""
        base = self._root / prefix
        if base.is_file():
            return {prefix: base.stat().st_size}
        found = {}
        for key, entry in self._entries(prefix.rstrip("/"), through_links=True):
            with suppress(FileNotFoundError):
                if not _is_circle(entry):
                    found[key] = entry.stat().st_size
        return found

    def links(self, prefix: str) -> list[str]:
        """Keys at or under a prefix that are links, but not to files; those that lead nowhere too."""
        prefix = prefix.rstrip("/")
        if prefix and (self._root / prefix).is_symlink():
            return [] if (self._root / prefix).is_file() else [prefix]
        entries = self._entries(prefix, through_links=False)
        return [key for key, entry in entries if entry.is_symlink() and not (self._root / key).is_file()]

    def link_above(self, key: str) -> str | None:
        """The first folder on the way to a key that is a link; None where there is none."""
        parts = key.split("/")[:-1]
        ways = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return next((way for way in ways if (self._root / way).is_symlink()), None)

    def refuse_link(self, key: str) -> None:
        """Raise an InputError if a key leads through a link."""
        if (link := self.link_above(key)) is not None:
            raise InputError(
                f"{self._root}/{link} is a link, and nothing is written through links; remove it, or put a folder in "
                "its place"
            )

    def delete(self, keys: Iterable[str]) -> None:
        """As of `Objects`; folders that are empty then go too."""
        folders: set[Path] = set()
        for key in keys:
            path = self._root / (self.link_above(key) or key)
            path.unlink(missing_ok=True)
            folders.update(folder for folder in path.parents if self._root in (folder, *folder.parents))
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            with suppress(OSError):
                folder.rmdir()

    def modified(self, key: str) -> datetime | None:
        """As of `Objects`."""
        return datetime.fromtimestamp((self._root / key).stat().st_mtime, UTC)

    def _read(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _entries(self, prefix: str, through_links: bool) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """By their keys, all that lies under a prefix and is no folder; links to folders unless they are followed."""
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
                elif (own := _identity(entry.stat())) not in above_it:  # else a link to a folder that it lies in
                    pending.append((key, above_it | {own}))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_circle(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link that leads to itself."""
    if not entry.is_symlink():
        return False
    try:
        entry.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


class _LocalPuts:
    """Files that are synced together."""

    def __init__(self, objects: LocalObjects, root: Path) -> None:
        self._objects, self._root, self._files = objects, root, WholeFiles()

    def add(self, key: str, body: bytes) -> None:
        """Same as in `Puts`."""
        self._objects.refuse_link(key)
        self._files.add(self._root / key, body)

    def finish(self) -> None:
        """Same as in `Puts`."""
        self._files.finish()

    def discard(self) -> None:
        """Same as in `Puts`."""
        self._files.discard()


class FsspecObjects(_Untagged):
    """Objects of an fsspec filesystem.

    Parameters
    ----------
    url : str
    options : dict
        To fsspec.
    forbidden_is_absent : bool
        Whether an object that plain HTTP forbids to read counts as absent.
    """

    def __init__(self, url: str, options: dict[str, Any], forbidden_is_absent: bool = False) -> None:
        import fsspec

        self._fs, root = fsspec.core.url_to_fs(url, **options)
        self._root = str(root)
        self._forbidden_is_absent = forbidden_is_absent

    def get(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """As of `Objects`."""
        wanted = list(keys)
        found = requests().map(self._read, (f"{self._root}/{key}" for key in wanted))
        return dict(zip(wanted, found, strict=True))

    def puts(self) -> Puts:
        """Same as in `Objects`."""
        return _FsspecPuts(self)

    def create(self, key: str, body: bytes) -> bool:
        """As of `Objects`."""
        try:
            path = f"{self._root}/{key}"
            self._in_folders([path], self._fs.pipe_file, path, body, mode="create")
        except FileExistsError:
            return False
        return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """As of `Objects`."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(f"{self._root}/{prefix}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        return {path.removeprefix(self._root).lstrip("/"): int(info["size"]) for path, info in found.items()}

    def delete(self, keys: Iterable[str]) -> None:
        """As of `Objects`."""
        for key in keys:
            self._fs.rm_file(f"{self._root}/{key}")

    def modified(self, key: str) -> datetime | None:
        """As of `Objects`."""
        self._fs.invalidate_cache()
        try:
            found: datetime = self._fs.modified(f"{self._root}/{key}")
        except NotImplementedError:
            return None
        return found

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            return None
        except Exception as error:
            if self._forbidden_is_absent and getattr(error, "status", None) == 403:
                return None
            raise

    def put_batch(self, bodies: Mapping[str, bytes]) -> None:
        """Put objects at the same time where the file system can."""
        batch = {f"{self._root}/{key}": body for key, body in bodies.items()}
        self._in_folders(batch, self._fs.pipe, batch)

    def _in_folders(self, paths: Iterable[str], put: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Put objects; where the store has folders, those that are missing are made."""
        try:
            put(*arguments, **options)
        except FileNotFoundError:
            for folder in {path.rpartition("/")[0] for path in paths}:
                self._fs.makedirs(folder, exist_ok=True)
            put(*arguments, **options)


@lru_cache(maxsize=1)
def requests() -> ThreadPoolExecutor:
    """The threads that requests wait in."""
    return ThreadPoolExecutor(_CONCURRENCY, "atlaszarr-store")


class _FsspecPuts:
    """Batches of objects, each put at the same time where the file system can."""

    def __init__(self, objects: FsspecObjects) -> None:
        self._objects = objects
        self._batch: dict[str, bytes] = {}
        self._size = 0

    def add(self, key: str, body: bytes) -> None:
        """Same as in `Puts`."""
        self._batch[key] = body
        self._size += len(body)
        if self._size > BATCH:
            self.finish()

    def finish(self) -> None:
        """Same as in `Puts`."""
        batch, self._batch, self._size = self._batch, {}, 0
        if batch:
            self._objects.put_batch(batch)

    def discard(self) -> None:
        """Same as in `Puts`."""
