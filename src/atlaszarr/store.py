"""A target anywhere fsspec reaches, as objects by their keys. Knows nothing of what they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

from .errors import InputError, TargetError
from .locations import is_url, normalize_folder
from .objects import FsspecObjects, LocalObjects, Objects


@dataclass(frozen=True)
class Target:
    """A folder or key prefix that one image lives in; small, picklable, silent about its credentials.

    Attributes
    ----------
    url : str
        An absolute local path, or a URL that fsspec opens.
    storage_options : str
        JSON of the options to fsspec; never shown.
    """

    url: str
    storage_options: str = field(default="{}", repr=False)

    @classmethod
    def of(cls, location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Target:
        """The target at a path or URL.

        Raises
        ------
        InputError
            For the reasons of `normalize_folder`, or if it cannot be opened with the options.
        """
        text = normalize_folder(location)
        if not is_url(text):
            if storage_options:
                raise InputError(f"storage option {next(iter(storage_options))!r} is not supported for the path {text}")
            return cls(text)
        try:
            target = cls(text, json.dumps(dict(storage_options or {}), sort_keys=True))
        except TypeError as error:
            raise InputError(f"storage options of {text!r} must be plain values: {error}") from None
        try:
            target._objects  # noqa: B018 - opens it
        except InputError:
            raise
        except OSError as error:
            raise TargetError(f"cannot open {text}: {error.strerror or type(error).__name__}") from None
        except Exception as error:
            raise InputError(
                f"target {text!r} cannot be opened: {type(error).__name__}; check the URL and the storage options"
            ) from None
        return target

    @property
    def is_local(self) -> bool:
        """Whether it lies on a local disk."""
        return "://" not in self.url

    def above(self) -> Iterator[Target]:
        """The places that it lies in, nearest first: folders, or prefixes of its bucket; by what links lead to, too."""
        for url in dict.fromkeys((self.url, os.path.realpath(self.url) if self.is_local else self.url)):
            protocol, separator, path = url.rpartition("://")
            parts = path.split("/")
            for count in range(len(parts) - 1, 1, -1):
                yield Target(protocol + separator + "/".join(parts[:count]), self.storage_options)

    def beside(self, word: str) -> Target:
        """The sibling target of a further view: ``x.ome.zarr`` and ``x.<word>.ome.zarr``."""
        for suffix in (".ome.zarr", ".zarr", ""):
            if self.url.endswith(suffix):
                stem = self.url[: len(self.url) - len(suffix)]
                return Target(f"{stem}.{word}{suffix}", self.storage_options)
        raise AssertionError

    def read(self, key: str) -> bytes | None:
        """An object's content, or None where there is none."""
        return self.read_each([key])[key]

    def read_each(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The content of objects by key, None where there is none; remote ones several at a time."""
        with self.reporting("read"):
            return self._objects.get(keys)

    def read_all(self, prefix: str) -> dict[str, bytes]:
        """The content of every object under a prefix, by its key."""
        found = self.read_each(self.list_keys(prefix))
        return {key: body for key, body in found.items() if body is not None}

    def write(self, key: str, body: bytes) -> None:
        """Put an object: it appears whole or not at all."""
        self.write_all([(key, body)])

    def write_all(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Put objects, each whole or not at all; remote ones several at a time."""
        with self.reporting("write to"):
            self._objects.put(bodies)

    def create(self, key: str, body: bytes) -> bool:
        """Put an object unless there is one: whether it was put. Of two at once one succeeds."""
        with self.reporting("write to"):
            return self._objects.create(key, body)

    def age(self, key: str) -> float | None:
        """Seconds since an object was put, by the store's own clock; None where it does not say."""
        probe = f"{key}.{uuid4().hex}"
        self.write(probe, b"")
        try:
            with self.reporting("read"):
                now, then = (self._objects.modified(name) for name in (probe, key))
            return None if now is None or then is None else (now - then).total_seconds()
        finally:
            self.remove(probe)

    def list_keys(self, prefix: str = "") -> list[str]:
        """Keys of all objects at or under a prefix."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Size of every object at or under a prefix, by its key."""
        with self.reporting("list"):
            return self._objects.sizes(prefix)

    def remove(self, prefix: str = "") -> None:
        """Remove everything at or under a prefix; of a link the link itself, and nothing of what it leads to."""
        self.remove_each([*self.links(prefix), *self.list_keys(prefix)])

    def remove_each(self, keys: Iterable[str]) -> None:
        """Remove objects."""
        with self.reporting("remove"):
            self._objects.delete(keys)

    def links(self, prefix: str = "") -> list[str]:
        """Keys at or under a prefix that are links to folders, or lead nowhere; none but on a local disk."""
        if not isinstance(self._objects, LocalObjects):
            return []
        with self.reporting("list"):
            return self._objects.links(prefix)

    def make_way(self, keys: Iterable[str], overwrite: bool = False) -> None:
        """Refuse to write objects whose keys lead through links; with `overwrite`, remove these links first.

        What a link leads to is left as it is. A folder, ``key/``, is one that objects are to be written in.

        Raises
        ------
        InputError
            If a key leads through a link, which is left.
        """
        if not isinstance(self._objects, LocalObjects):
            return
        for key in keys:
            while overwrite and (link := self._objects.link_above(key)) is not None:
                self.remove_each([link])
            self._objects.refuse_link(key)

    @cached_property
    def _objects(self) -> Objects:
        options = json.loads(self.storage_options)
        if self.is_local:
            return LocalObjects(self.url)
        if self.url.startswith("s3://"):
            from .s3 import S3Objects

            return S3Objects(self.url, options)
        return FsspecObjects(self.url, options)

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url, "storage_options": self.storage_options}

    @contextmanager
    def reporting(self, verb: str) -> Iterator[None]:
        """Turn what the store raises into a TargetError that names the target and no credential."""
        try:
            yield
        except (TypeError, ValueError) as error:
            if self.is_local:
                raise
            # What a store's own library makes of options it does not know, when it first connects.
            raise InputError(
                f"cannot {verb} {self.url}: {type(error).__name__}; check the URL and the storage options"
            ) from None
        except Exception as error:
            if isinstance(error, TargetError) or not (isinstance(error, OSError) or from_client_library(error)):
                raise
            raise TargetError(f"cannot {verb} {self.url}: {reason(error)}") from None


def from_client_library(error: Exception) -> bool:
    """Whether an error is of the libraries that speak to stores, which have hierarchies of their own."""
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "obstore")


def reason(error: Exception) -> str:
    """Why a store refused, in our words: its own may hold a key."""
    said, name = str(error), type(error).__name__
    if "NoSuchBucket" in said:
        return "there is no such bucket"
    if name in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError"):
        return "the store does not allow it; check the credentials and their rights"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "error sending request" in said or "imeout" in said or "timed out" in said:
        return "the store does not answer"
    return name
