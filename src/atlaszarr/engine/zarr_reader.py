"""Regions of a zarr array on a local disk or a web server, decoded where they are asked for. Serves any image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import split_index
from ..errors import AtlaszarrError, TargetError
from ..stores.target import Target
from .absent_chunks import AbsentChunks
from .codecs import ArrayLayout

#: Options that zarr gives a filesystem for itself.
_OF_ZARR = ("asynchronous", "loop")


@dataclass(frozen=True)
class ChunkedArray:
    """An array whose chunks are decoded here, each where it is asked for. Small and picklable.

    Indexing it reads: ``array[..., 0:64, 5]``, with any index that NumPy takes.

    Attributes
    ----------
    target : Target
        The folder of the array.
    layout : ArrayLayout
        In codecs that are known.
    absent : AbsentChunks
        Of those that were read.
    """

    target: Target
    layout: ArrayLayout
    absent: AbsentChunks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "absent", AbsentChunks(self.target, self.layout))

    @classmethod
    def of(cls, array: Any) -> ChunkedArray | None:
        """A ``zarr.Array`` as one; None if it lies elsewhere, or is stored in another way (in shards, say)."""
        target = target_of(array)
        if target is None or array.dtype.kind not in "biuf" or not array.ndim:
            return None
        if not target.is_local and not target.is_plain_http:  # zarr asks for many objects at once
            return None
        layout = ArrayLayout.of(array.metadata.to_dict())
        if layout.codecs is None or layout.unit != layout.chunk:
            return None
        return cls(target, layout)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.layout.shape

    @property
    def chunk(self) -> tuple[int, ...]:
        """Lengths of a chunk."""
        return self.layout.chunk

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what a region holds, in native byte order."""
        return self.layout.dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read what an index takes: the chunks of the smallest box that holds it.

        Raises
        ------
        TargetError
            If a chunk cannot be read, is not as it was written, or is absent though the ledger of the image records it.
        IndexError
            If the index does not fit the array.
        """
        box, rest = split_index(index, self.shape)
        found: NDArray[Any] = self._box(box)[rest]
        return found

    def _box(self, asked: tuple[slice, ...]) -> NDArray[Any]:
        lengths = [axis.stop - axis.start for axis in asked]
        whole: NDArray[Any] | None = None
        for index in self.layout.units(asked):
            there, values = self.layout.region(index), self._chunk(index)
            if there == asked and values is not None:
                return values[tuple(map(slice, lengths))]
            whole = np.full(lengths, self.layout.fill, self.dtype) if whole is None else whole
            if values is not None:
                shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(there, asked, strict=True)]
                whole[_within(shared, asked)] = values[_within(shared, there)]
        return np.full(lengths, self.layout.fill, self.dtype) if whole is None else whole

    def _chunk(self, index: Sequence[int]) -> NDArray[Any] | None:
        """A chunk with its padding; None where none was written."""
        key = self.layout.key(index)
        if (body := self.target.read(key)) is None:
            self.absent.note(tuple(index))
            return None
        try:
            return self.layout.decode(body)
        except ValueError as error:
            raise TargetError(f"{self.target.url}/{key} is damaged ({error}); restore it first") from None


def layout_at(target: Target) -> ArrayLayout | None:
    """The layout of the zarr array at a place; None where there is no array.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        If its metadata is not that of an array in regular chunks of numbers.
    """
    bodies = (target.read(name) for name in ("zarr.json", ".zarray"))
    return next((ArrayLayout.of(json.loads(body)) for body in bodies if body is not None), None)


def local_folder(array: Any) -> Path | None:
    """The folder of a ``zarr.Array`` on a local disk, however its store was opened; else None."""
    from fsspec.implementations.local import LocalFileSystem
    from zarr.storage import FsspecStore, LocalStore

    store, path = array.store, str(array.path)
    if isinstance(store, LocalStore):
        return Path(store.root, path)
    if isinstance(store, FsspecStore) and isinstance(getattr(store.fs, "sync_fs", None), LocalFileSystem):
        return Path(store.path, path)
    return None


def target_of(array: Any) -> Target | None:
    """The place of a ``zarr.Array``, on a local disk or where fsspec reaches; else None."""
    if (folder := local_folder(array)) is not None:
        return Target(str(folder))
    from zarr.storage import FsspecStore

    if not isinstance(array.store, FsspecStore):
        return None
    filesystem = getattr(array.store.fs, "sync_fs", array.store.fs)
    options = {name: value for name, value in filesystem.storage_options.items() if name not in _OF_ZARR}
    try:
        url = f"{filesystem.unstrip_protocol(array.store.path)}/{array.path}".rstrip("/")
        if "?" in url:  # parameters, which can be signatures and are not for messages
            return None
        found = Target.of(url, options)
    except AtlaszarrError:  # options that atlaszarr does not know
        return None
    return found.public()


def _within(inner: Sequence[slice], outer: Sequence[slice]) -> tuple[slice, ...]:
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
