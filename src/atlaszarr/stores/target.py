"""A target anywhere fsspec reaches, as objects by their keys. Knows nothing of what they hold."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Event
from typing import Any
from uuid import uuid4

from ..errors import AtlaszarrError, InputError, TargetError
from .backends import FsspecObjects, LocalObjects, Objects
from .locations import is_url, normalize_folder

#: The HTTP status in an error of obstore, and the store's word for it.
_STATUS = re.compile(r"status code: (\d{3})")
_WORD = re.compile(r"<Code>(\w+)</Code>")
#: What to do about a status or a word; about others, whether the fault is the store's.
_ADVICE: dict[int | str, str] = {
    "NoSuchBucket": "create the bucket, or correct the URL",
    "SlowDown": "it is overloaded: run the same command later, or with fewer workers",
    301: "the bucket is in another region: give storage option region_name",
    307: "the bucket is in another region: give storage option region_name",
    401: "check the credentials and their rights",
    403: "check the credentials and their rights",
    429: "it is overloaded: run the same command later, or with fewer workers",
    501: "it does not support this request: choose another store",
}
_OTHERWISE = {False: "check the URL, the region and the credentials", True: "run the same command later"}


@dataclass(frozen=True)
class Target:
    """A folder or key prefix that one image lives in; small, picklable, silent about its credentials.

    Attributes
    ----------
    url : str
        An absolute local path, or a URL that fsspec opens.
    storage_options : str
        JSON of the options to fsspec; never shown.
    forbidden_is_absent : bool
        Whether an object that plain HTTP forbids to read (403) counts as absent, as of a public bucket that may not
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

    @property
    def is_plain_http(self) -> bool:
        """Whether it is on a web server, which lists nothing."""
        return self.url.startswith(("http://", "https://"))

    def above(self) -> Iterator[Target]:
        """The places that it lies in, nearest first: folders, or prefixes of its bucket; by what links lead to, too."""
        for url in dict.fromkeys((self.url, os.path.realpath(self.url) if self.is_local else self.url)):
            protocol, separator, path = url.rpartition("://")
            parts = path.split("/")
            for count in range(len(parts) - 1, 1, -1):
                yield replace(self, url=protocol + separator + "/".join(parts[:count]))

    def public(self) -> Target:
        """The same, once its metadata was read: what plain HTTP forbids to read counts as absent."""
        return replace(self, forbidden_is_absent=True) if self.is_plain_http else self

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
        wanted = list(keys)
        with self.reporting("read"):
            return self._objects.get(wanted)

    def read_all(self, prefix: str) -> dict[str, bytes]:
        """The content of every object under a prefix, by its key."""
        found = self.read_each(self.list_keys(prefix))
        return {key: body for key, body in found.items() if body is not None}

    def write(self, key: str, body: bytes) -> None:
        """Put an object: it appears whole or not at all."""
        self.write_all([(key, body)])

    def write_all(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Put objects, each whole or not at all; remote ones several at a time.

        An error that is raised while a body is made is no error of the target, and is raised as it is.
        """
        with self.reporting("write to"):
            puts = self._objects.puts()
        try:
            for key, body in bodies:
                with self.reporting("write to"):
                    puts.add(key, body)
            with self.reporting("write to"):
                puts.finish()
        finally:
            puts.discard()

    def create(self, key: str, body: bytes) -> bool:
        """Put an object unless there is one: whether it was put. Of two at once one succeeds."""
        with self.reporting("write to"):
            return self._objects.create(key, body)

    def read_tagged(self, key: str) -> tuple[bytes, str | None] | None:
        """An object's content and its tag for `replace`, or None where there is none."""
        with self.reporting("read"):
            return self._objects.read_tagged(key)

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Put an object if it still has the tag that was read, and return whether it was put.

        A store without conditional puts replaces it in any case.
        """
        with self.reporting("write to"):
            return self._objects.replace(key, body, tag)

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
        unwanted = list(keys)
        with self.reporting("remove"):
            self._objects.delete(unwanted)

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
        return FsspecObjects(self.url, options, self.forbidden_is_absent)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("url", "storage_options", "forbidden_is_absent")}

    @cached_property
    def _answered(self) -> Event:
        """Set once the store has done anything."""
        return Event()

    @contextmanager
    def reporting(self, verb: str) -> Iterator[None]:
        """Turn what the store raises, of any class, into a TargetError that names the target and no credential."""
        try:
            yield
        except AtlaszarrError:
            raise
        except Exception as error:
            if self.is_local and not isinstance(error, OSError):
                raise
            if isinstance(error, TypeError | ValueError) and not self._answered.is_set():
                # What a store's own library makes of options it does not know, when it first connects.
                raise InputError(
                    f"cannot {verb} {self.url}: {type(error).__name__}; check the URL and the storage options"
                ) from None
            raise TargetError(f"cannot {verb} {self.url}: {reason(error)}") from None
        self._answered.set()


def from_client_library(error: Exception) -> bool:
    """Whether an error is of the libraries that speak to stores, which have hierarchies of their own."""
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "obstore")


def reason(error: Exception) -> str:
    """Why a store refused and what to do, in our words: its own may hold a key."""
    said, name = str(error).partition("Debug source:")[0], type(error).__name__
    word = _WORD.search(said)
    if (status := _status(error, said)) is not None:
        advice = (word and _ADVICE.get(word[1])) or _ADVICE.get(status) or _OTHERWISE[status >= 500]
        return f"the store answers HTTP {status}{f' {word[1]}' if word else ''}; {advice}"
    if name in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError"):
        return "the store does not allow it; check the credentials and their rights"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "error sending request" in said or "imeout" in said or "timed out" in said:
        return "the store does not answer"
    return name


def _status(error: Exception, said: str) -> int | None:
    """The HTTP status that a store answered with, where its error has one."""
    if "redirect without LOCATION" in said:
        return 301
    if found := _STATUS.search(said):
        return int(found[1])
    stated = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((code for code in stated if isinstance(code, int) and 300 <= code < 600), None)
