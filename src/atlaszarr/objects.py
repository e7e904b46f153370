"""Objects by their keys under one place: on a local disk, on S3, or anywhere else that fsspec reaches."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from .atomic import write_whole

#: Bytes that are put at once: several puts under way, little in memory.
BATCH = 16 * 2**20


class Objects(Protocol):
    """What a target needs of a store. What is put appears whole or not at all."""

    def get(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The content of objects; None where there is none."""
        ...

    def put(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Put objects, made as they are taken."""
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

    def put(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """As of `Objects`."""
        for key, body in bodies:
            write_whole(self._root / key, body)

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
        return {key: self._read(f"{self._root}/{key}") for key in keys}

    def put(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """As of `Objects`."""
        batch: dict[str, bytes] = {}
        size = 0
        for key, body in bodies:
            batch[f"{self._root}/{key}"] = body
            size += len(body)
            if size > BATCH:
                self._fs.pipe(batch)
                batch, size = {}, 0
        if batch:
            self._fs.pipe(batch)

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
        except Exception as error:
            if self._forbidden_is_absent and getattr(error, "status", None) == 403:
                return None
            raise
