"""A target: objects by their keys on a disk, on S3 or in any store that fsspec opens; and which backend opens a URL."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from threading import Event
from typing import Any
from uuid import uuid4

from ..errors import AtlaszarrError, InputError, TargetError
from .backend import LARGEST_OBJECT, LARGEST_SIDECAR, Backend, Part, TooLargeError
from .failures import as_error, is_forbidden
from .local import LocalBackend
from .locations import is_url, normalize_folder, shown
from .temporary import temporary_folder

#: Bytes that are read at once of an object that is not read whole.
_PART = 2**20


def open_backend(url: str, options: Mapping[str, Any], forbidden_is_absent: bool = False) -> Backend:
    """Open the backend of a local path or a URL, as `normalize` returns them.

    Raises
    ------
    InputError
        If an option is not valid, or if options are given for a path.
    """
    if not is_url(url):
        if options:
            message = f"storage option {next(iter(options))!r} is not supported for the path {url}"
            raise InputError(message, code="not-supported")
        return LocalBackend(url)
    if url.startswith("s3://"):
        from .s3 import S3Backend

        return S3Backend(url, options, forbidden_is_absent)
    from .fsspec_backend import FsspecBackend

    return FsspecBackend(url, options, forbidden_is_absent)


@dataclass(frozen=True)
class Target:
    """A folder or key prefix that holds one image; picklable, and without credentials in its repr.

    Attributes
    ----------
    url : str
        An absolute local path, or a URL that fsspec opens.
    storage_options : str
        The options of the store as JSON; never shown.
    forbidden_is_absent : bool
        Whether an object for which an HTTP server or S3 answers 403 counts as absent, as in a public bucket that cannot
        be listed.
    """

    url: str
    storage_options: str = field(default="{}", repr=False)
    forbidden_is_absent: bool = field(default=False, compare=False, repr=False)

    @classmethod
    def of(cls, location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Target:
        """The target at a path or URL.

        Raises
        ------
        InputError
            For the reasons of `normalize_folder`, or if an option is not valid.
        """
        text = normalize_folder(location)
        try:
            target = cls(text, json.dumps(dict(storage_options or {}), sort_keys=True))
        except TypeError as error:
            message = f"storage options of {text!r} must be plain values: {error}"
            raise InputError(message, code="invalid-storage-options") from None
        try:
            target._backend  # noqa: B018 - opens it
        except AtlaszarrError:
            raise
        except Exception as error:
            raise as_error(error, f"cannot open {text}", TargetError, connecting=True) from None
        return target

    @property
    def is_local(self) -> bool:
        """Whether it is on a local disk."""
        return "://" not in self.url

    @property
    def is_plain_http(self) -> bool:
        """Whether it is on an HTTP server, which does not list objects."""
        return self.url.startswith(("http://", "https://"))

    def above(self, count: int | None = None) -> Iterator[Target]:
        """The folders or prefixes above it, nearest first; then those above the destination of a link.

        Parameters
        ----------
        count : int, optional
            The most folders above each of the two; default all.
        """
        for url in dict.fromkeys((self.url, os.path.realpath(self.url) if self.is_local else self.url)):
            protocol, separator, path = url.rpartition("://")
            parts = path.split("/")
            for end in islice(range(len(parts) - 1, 1, -1), count):
                yield replace(self, url=protocol + separator + "/".join(parts[:end]))

    def absolute(self) -> Target:
        """The target with an absolute path: a relative one means another folder in another process."""
        return replace(self, url=str(Path(self.url).absolute())) if self.is_local else self

    def public(self) -> Target:
        """The target with `forbidden_is_absent`, if on an HTTP server or S3; to call once its metadata is read."""
        return replace(self, forbidden_is_absent=True) if self.is_plain_http or self.url.startswith("s3://") else self

    def of_view(self, view: str) -> Target:
        """The target of a further view in the same folder: ``x.<view>.ome.zarr`` for ``x.ome.zarr``."""
        for suffix in (".ome.zarr", ".zarr", ""):
            if self.url.endswith(suffix):
                stem = self.url[: len(self.url) - len(suffix)]
                return Target(f"{stem}.{view}{suffix}", self.storage_options)
        raise AssertionError

    def first_view(self, view: str) -> Target | None:
        """The target ``x.ome.zarr`` of which this, ``x.<view>.ome.zarr``, is a further view; None if it is not one."""
        for suffix in (".ome.zarr", ".zarr", ""):
            if self.url.endswith(f".{view}{suffix}"):
                stem = self.url[: len(self.url) - len(f".{view}{suffix}")]
                return Target(f"{stem}{suffix}", self.storage_options)
        return None

    def read(self, key: str, most: int = LARGEST_SIDECAR) -> bytes | None:
        """Content of an object; None if it is missing.

        Raises
        ------
        InputError
            If it has more than `most` bytes.
        """
        return self.read_each([key], most)[key]

    def read_each(self, keys: Iterable[str], most: int = LARGEST_OBJECT) -> dict[str, bytes | None]:
        """Content of each object by its key, None for a missing object; remote objects are read concurrently.

        Raises
        ------
        InputError
            If an object has more than `most` bytes.
        """
        wanted = list(keys)
        with self.reporting("read"):
            try:
                return self._backend.read_each(wanted, most)
            except TooLargeError as error:
                raise self._too_large(error.key, error.most) from None

    def read_range(self, key: str, start: int, stop: int, most: int) -> Part | None:
        """The bytes [start, stop) of an object, fewer at its end; None if it is missing.

        A server that sends no parts of files sends the whole file.

        Raises
        ------
        InputError
            If such a server sends more than `most` bytes.
        """
        with self.reporting("read"):
            try:
                return self._backend.read_range(key, start, stop, most)
            except TooLargeError as error:
                raise self._too_large(error.key, error.most) from None

    def digest(self, key: str, new: Callable[[], Any]) -> str | None:
        """Digest (hexadecimal) of an object, which is read in parts; None if it is missing.

        Parameters
        ----------
        key : str
        new : callable
            Makes a hash object of `hashlib`.
        """
        with self.reporting("read"):
            try:
                file = self._backend.open(key)
            except FileNotFoundError:
                return None
            with closing(file):
                found = new()
                while part := file.read(_PART):
                    found.update(part)
        return str(found.hexdigest())

    def read_all(self, prefix: str, most: int = LARGEST_OBJECT) -> dict[str, bytes]:
        """Content of every object under a prefix, by its key.

        Raises
        ------
        InputError
            If they have more than `most` bytes together.
        """
        sizes = self.sizes(prefix)
        if sum(sizes.values()) > most:
            raise self._too_large(prefix, most)
        found = self.read_each(sorted(sizes), most)
        return {key: body for key, body in found.items() if body is not None}

    def _too_large(self, key: str, most: int) -> InputError:
        name = f"{shown(self.url)}/{key}".rstrip("/")
        return InputError(f"{name} is larger than the {most} bytes allowed for it", code="file-too-large")

    def write(self, key: str, body: bytes) -> None:
        """Put an object; a reader sees it whole or not at all."""
        self.write_all([(key, body)])

    def write_all(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Put objects, each whole or not at all; remote objects are put concurrently.

        An exception of the iterator `bodies` is raised unchanged, not as an error of the target.
        """
        with self.reporting("write to"):
            uploads = self._backend.uploads()
        try:
            for key, body in bodies:
                with self.reporting("write to"):
                    uploads.add(key, body)
            with self.reporting("write to"):
                uploads.finish()
        finally:
            uploads.discard()

    def write_parts(self, key: str, parts: Iterable[bytes], spool: str | os.PathLike[str] | None = None) -> None:
        """Put an object of any size from its parts, which are not kept; a reader sees it whole or not at all.

        An exception of the iterator `parts` is raised unchanged, not as an error of the target.

        Parameters
        ----------
        key : str
        parts : iterable of bytes
            In order.
        spool : str or path-like, optional
            An existing local folder with room for the object, which is collected there unless the target is on a local
            disk; default that of the system for temporary files.
        """
        backend = self._backend
        place = self if isinstance(backend, LocalBackend) else Target(os.fspath(spool or gettempdir()))
        with ExitStack() as stack:
            with place.reporting("write to"):
                # On a local disk next to the object, so that the file is moved and not copied.
                parent = backend.folder_of(key) if isinstance(backend, LocalBackend) else spool
                path = stack.enter_context(temporary_folder(parent)) / "object"
                file = stack.enter_context(path.open("wb"))
            for part in parts:
                with place.reporting("write to"):
                    file.write(part)
            with place.reporting("write to"):
                file.close()
            with self.reporting("write to"):
                backend.put_file(key, path)

    def create(self, key: str, body: bytes) -> bool:
        """Put an object unless it exists, and return whether it was put. Of two concurrent calls one succeeds."""
        with self.reporting("write to"):
            return self._backend.create(key, body)

    def read_tagged(self, key: str, most: int = LARGEST_OBJECT) -> tuple[bytes, str | None] | None:
        """Content of an object and its tag for `replace`; None if the object is missing.

        Raises
        ------
        InputError
            If it has more than `most` bytes.
        """
        with self.reporting("read"):
            try:
                return self._backend.read_tagged(key, most)
            except TooLargeError as error:
                raise self._too_large(error.key, error.most) from None

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Put an object if it still has the tag that was read, and return whether it was put.

        A store without conditional puts always replaces the object.
        """
        with self.reporting("write to"):
            return self._backend.replace(key, body, tag)

    def age(self, key: str) -> float | None:
        """Seconds since an object was put, by the clock of the store; None if it is missing or not recorded."""
        probe = f"{key}.{uuid4().hex}"
        self.write(probe, b"")
        try:
            with self.reporting("read"):
                now = self._backend.modified(probe)
                try:
                    then = self._backend.modified(key)
                except FileNotFoundError:
                    return None
            return None if now is None or then is None else (now - then).total_seconds()
        finally:
            self.remove(probe)

    def list_keys(self, prefix: str = "") -> list[str]:
        """Keys of all objects at or under a prefix."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Size of every object at or under a prefix, by its key."""
        with self.reporting("list"):
            return self._backend.sizes(prefix)

    def entries(self, folder: str = "") -> dict[str, bool]:
        """Name of every object and folder directly in a folder, and whether it is a folder; sorted by name."""
        with self.reporting("list"):
            return dict(sorted(self._backend.entries(folder).items()))

    def folders(self, folder: str = "") -> list[str] | None:
        """Names of the folders directly in a folder, sorted; None if the store does not list them."""
        if self.is_plain_http:
            return None
        with self.reporting("list"):
            try:
                return sorted(name for name, is_folder in self._backend.entries(folder).items() if is_folder)
            except Exception as error:
                if self.forbidden_is_absent and is_forbidden(error):
                    return None
                raise

    def remove(self, prefix: str = "") -> None:
        """Remove everything at or under a prefix; a link is removed, and its destination is kept."""
        self.remove_each([*self.links(prefix), *self.list_keys(prefix)])

    def remove_each(self, keys: Iterable[str]) -> None:
        """Remove objects."""
        unwanted = list(keys)
        with self.reporting("remove"):
            self._backend.delete(unwanted)

    def tidy(self, folders: Iterable[str]) -> None:
        """Remove the temporary files directly in folders that killed processes left; only a local disk has any."""
        if isinstance(self._backend, LocalBackend):
            with self.reporting("list"):
                found = [key for folder in folders for key in self._backend.abandoned(folder)]
            self.remove_each(found)

    def links(self, prefix: str = "") -> list[str]:
        """Keys at or under a prefix of links to folders and of broken links; only a local disk has links."""
        if not isinstance(self._backend, LocalBackend):
            return []
        with self.reporting("list"):
            return self._backend.links(prefix)

    def make_way(self, keys: Iterable[str], overwrite: bool = False) -> None:
        """Validate that no folder above a key is a link; with `overwrite`, remove such links, not their destinations.

        A key ``folder/`` stands for the objects in a folder.

        Raises
        ------
        InputError
            If a folder above a key is a link.
        """
        if not isinstance(self._backend, LocalBackend):
            return
        for key in keys:
            while overwrite and (link := self._backend.link_above(key)) is not None:
                self.remove_each([link])
            self._backend.writable(key)

    @cached_property
    def _backend(self) -> Backend:
        return open_backend(self.url, json.loads(self.storage_options), self.forbidden_is_absent)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("url", "storage_options", "forbidden_is_absent")}

    @cached_property
    def _answered(self) -> Event:
        """Set once the store has answered."""
        return Event()

    @contextmanager
    def reporting(self, verb: str) -> Iterator[None]:
        """Turn an exception of the store, of any class, into a TargetError that names the target and no credential."""
        try:
            yield
        except AtlaszarrError:
            raise
        except Exception as error:
            if self.is_local and not isinstance(error, OSError):
                raise
            connecting = not self._answered.is_set()
            raise as_error(error, f"cannot {verb} {self.url}", TargetError, connecting) from None
        if not self._answered.is_set():  # 2 us less than to set it again
            self._answered.set()
