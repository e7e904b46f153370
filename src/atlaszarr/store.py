"""A target anywhere fsspec reaches: its objects, and the arrays of a multiscale image in it. Serves any image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic import write_whole
from .errors import InputError, TargetError
from .grid import Region
from .pyramid import Occupancy, Pyramid


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
            If the path climbs with ``..``, is empty, or needs a protocol that is not installed.
        """
        text = os.fspath(location)
        if not text or ".." in text.replace("\\", "/").split("/"):
            raise InputError(f"target {text!r} must name a place without '..'; give the whole path")
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if "://" not in text:
            return cls(str(Path(text).absolute()))
        if not text.partition("://")[2].strip("/"):
            raise InputError(f"target {text!r} names no place; give a URL with a bucket or a path")
        if "@" in text.partition("://")[2].partition("/")[0]:
            scheme = text.partition("://")[0]
            raise InputError(f"target {scheme}://... holds a user name or password; give them as storage options")
        try:
            target = cls(text.rstrip("/"), json.dumps(dict(storage_options or {}), sort_keys=True))
        except TypeError as error:
            raise InputError(f"storage options of {text!r} must be plain values: {error}") from None
        try:
            target._filesystem  # noqa: B018 - opens it
        except OSError as error:
            raise TargetError(f"cannot open {text}: {error.strerror or type(error).__name__}") from None
        except (ValueError, ImportError, TypeError) as error:
            raise InputError(
                f"target {text!r} cannot be opened: {type(error).__name__}; check the URL and options"
            ) from None
        return target

    @property
    def is_local(self) -> bool:
        """Whether it lies on a local disk."""
        return "://" not in self.url

    def beside(self, word: str) -> Target:
        """The sibling target of a further view: ``x.ome.zarr`` and ``x.<word>.ome.zarr``."""
        for suffix in (".ome.zarr", ".zarr", ""):
            if self.url.endswith(suffix):
                stem = self.url[: len(self.url) - len(suffix)]
                return Target(f"{stem}.{word}{suffix}", self.storage_options)
        raise AssertionError

    def read(self, key: str) -> bytes | None:
        """An object's content, or None where there is none."""
        with self.reporting("read"):
            try:
                return bytes(self._filesystem.cat_file(f"{self._root}/{key}"))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_all(self, prefix: str) -> dict[str, bytes]:
        """The content of every object under a prefix, by its key."""
        paths = [f"{self._root}/{key}" for key in self.list_keys(prefix)]
        with self.reporting("read"):
            found = self._filesystem.cat(paths) if paths else {}
        return {path.removeprefix(self._root).lstrip("/"): bytes(body) for path, body in found.items()}

    def write(self, key: str, body: bytes) -> None:
        """Put an object: it appears whole or not at all."""
        with self.reporting("write to"):
            if self.is_local:
                write_whole(Path(self._root, key), body)
            else:
                self._filesystem.pipe_file(f"{self._root}/{key}", body)

    def list_keys(self, prefix: str = "") -> list[str]:
        """Keys of all objects under a prefix."""
        base = f"{self._root}/{prefix}".rstrip("/")
        with self.reporting("list"):
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.find(base)
            except FileNotFoundError:
                return []
        return sorted(path.removeprefix(self._root).lstrip("/") for path in found)

    def remove(self, prefix: str = "") -> None:
        """Remove everything under a prefix."""
        base = f"{self._root}/{prefix}".rstrip("/")
        with self.reporting("remove"):
            self._filesystem.invalidate_cache()
            if self._filesystem.exists(base):
                self._filesystem.rm(base, recursive=True)

    def zarr_store(self) -> Any:
        """A zarr store over the target."""
        import zarr

        if self.is_local:
            return zarr.storage.LocalStore(self.url)
        return zarr.storage.FsspecStore.from_url(self.url, storage_options=json.loads(self.storage_options))

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec

        fs, root = fsspec.core.url_to_fs(self.url, **json.loads(self.storage_options))
        return fs, str(root)

    @property
    def _filesystem(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

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
            if isinstance(error, TargetError) or not (isinstance(error, OSError) or _from_client_library(error)):
                raise
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise TargetError(f"cannot {verb} {self.url}: {reason}") from None


def _from_client_library(error: Exception) -> bool:
    """Whether an error is of the libraries that speak S3, which have a hierarchy of their own."""
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp")


@dataclass(frozen=True)
class Multiscale:
    """The arrays of an image and its provenance label in a target, level by level.

    Level ``k`` of the image is the array ``k`` (c, z, y, x), that of the label ``labels/section/k`` (z, y, x).
    Zarr v3; zstd, with a crc32c behind it that shows a flipped bit on reading.

    Attributes
    ----------
    target : Target
    pyramid : Pyramid
    channels : int
    background : int
        Fill value of the image.
    """

    target: Target
    pyramid: Pyramid
    channels: int
    background: int

    def create(self) -> None:
        """Write the metadata of every array that is not there yet."""
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        store = self.target.zarr_store()
        chunk = (self.pyramid.chunk,) * 3
        with self.target.reporting("write to"):
            for level in range(self.pyramid.levels):
                shape = self.pyramid.level_shape(level)
                for path, lead, dtype, fill, names in (
                    (str(level), (self.channels,), "uint8", self.background, ("c", "z", "y", "x")),
                    (f"labels/section/{level}", (), "uint32", 0, ("z", "y", "x")),
                ):
                    if self.target.read(f"{path}/zarr.json") is not None:
                        continue
                    zarr.create_array(
                        store,
                        name=path,
                        shape=(*lead, *shape),
                        chunks=(*lead, *chunk),
                        dtype=dtype,
                        fill_value=fill,
                        dimension_names=names,
                        compressors=[ZstdCodec(level=1), Crc32cCodec()],
                    )

    def write(
        self, level: int, region: Region, image: NDArray[np.uint8], label: NDArray[np.uint32], occupancy: Occupancy
    ) -> None:
        """Write the chunks of a region that hold anything; the region is made of whole chunks."""
        arrays = _open(self, level)
        size = self.pyramid.chunk
        start = [axis.start // size for axis in region]
        stop = [-(-axis.stop // size) for axis in region]
        for index in np.ndindex(*(b - a for a, b in zip(start, stop, strict=True))):
            z, y, x = (a + i for a, i in zip(start, index, strict=True))
            if (z, y, x) not in occupancy.levels[level]:
                continue
            there = self.pyramid.region(level, (z, y, x))
            here = tuple(slice(t.start - r.start, t.stop - r.start) for t, r in zip(there, region, strict=True))
            with self.target.reporting("write to"):
                arrays[0][(slice(None), *there)] = image[(slice(None), *here)]
                arrays[1][there] = label[here]

    def read(self, level: int, region: Region) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """Read a region of a level."""
        arrays = _open(self, level)
        with self.target.reporting("read"):
            return np.asarray(arrays[0][(slice(None), *region)]), np.asarray(arrays[1][region])


@lru_cache(maxsize=64)
def _open(multiscale: Multiscale, level: int) -> tuple[Any, Any]:
    """The arrays of a level, opened once a process."""
    import zarr

    store = multiscale.target.zarr_store()

    def opened(path: str) -> Any:
        return zarr.open_array(store, path=path, mode="r+").with_config({"write_empty_chunks": True})

    return opened(str(level)), opened(f"labels/section/{level}")
