"""Objects by their keys under one place: on a local disk, on S3, or anywhere else that fsspec reaches."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from .atomic import WholeFiles

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

    def sizes(self, prefix: str) -> dict[str, int]:
        """Size of every object at or under a prefix."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects."""
        ...

    def modified(self, key: str) -> datetime | None:
        """When an object was put, by the store's own clock; None where it does not say."""
        ...


class LocalObjects:
    """Files under a folder.

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
        return _LocalPuts(self._root)

    def create(self, key: str, body: bytes) -> bool:
        """As of `Objects`."""
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(body)
        except FileExistsError:
            return False
        return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """As of `Objects`."""
        base = self._root / prefix
        if base.is_file():
            return {prefix: base.stat().st_size}
        found = {}
        for folder, _, names in os.walk(base, onerror=_raise):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    found[path.relative_to(self._root).as_posix()] = path.stat().st_size
        return found

    def delete(self, keys: Iterable[str]) -> None:
        """As of `Objects`; folders that are empty then go too."""
        folders: set[Path] = set()
        for key in keys:
            path = self._root / key
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


class _LocalPuts:
    """Files that are synced together."""

    def __init__(self, root: Path) -> None:
        self._root, self._files = root, WholeFiles()

    def add(self, key: str, body: bytes) -> None:
        """Same as in `Puts`."""
        self._files.add(self._root / key, body)

    def finish(self) -> None:
        """Same as in `Puts`."""
        self._files.finish()

    def discard(self) -> None:
        """Same as in `Puts`."""
        self._files.discard()


def _raise(error: OSError) -> None:
    """For a folder that cannot be listed; one that is not there holds nothing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


class FsspecObjects:
    """Objects of an fsspec filesystem.

    Parameters
    ----------
    url : str
    options : dict
        To fsspec.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        import fsspec

        self._fs, root = fsspec.core.url_to_fs(url, **options)
        self._root = str(root)

    def get(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """As of `Objects`."""
        return {key: self._read(f"{self._root}/{key}") for key in keys}

    def puts(self) -> Puts:
        """Same as in `Objects`."""
        return _FsspecPuts(self._fs, self._root)

    def create(self, key: str, body: bytes) -> bool:
        """As of `Objects`."""
        try:
            self._fs.pipe_file(f"{self._root}/{key}", body, mode="create")
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


class _FsspecPuts:
    """Batches of objects, each put at the same time where the file system can."""

    def __init__(self, fs: Any, root: str) -> None:
        self._fs, self._root = fs, root
        self._batch: dict[str, bytes] = {}
        self._size = 0

    def add(self, key: str, body: bytes) -> None:
        """Same as in `Puts`."""
        self._batch[f"{self._root}/{key}"] = body
        self._size += len(body)
        if self._size > BATCH:
            self.finish()

    def finish(self) -> None:
        """Same as in `Puts`."""
        batch, self._batch, self._size = self._batch, {}, 0
        if batch:
            self._fs.pipe(batch)

    def discard(self) -> None:
        """Same as in `Puts`."""
