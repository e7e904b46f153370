"""A zarr array, read lazily: any index of it, or object by object, on a local disk or wherever `stores` reaches."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..boxes import cells, intersection, split_index, within
from ..errors import AtlaszarrError, InputError, TargetError
from ..stores.target import Target
from .absent_chunks import AbsentChunks
from .codecs import ArrayLayout
from .schedulers import usable_cores

_Result = TypeVar("_Result")
#: Options that zarr gives a filesystem for itself.
_OF_ZARR = ("asynchronous", "loop")
#: Threads that wait for a store that is not a local disk.
_WAITING = 8
#: Objects that are requested at once, of a local disk and of other stores.
_AT_ONCE = {True: 4, False: 16}
#: Voxels of a shard that is decoded as a whole; a larger one is decoded chunk by chunk.
_LARGEST = 2**25


@dataclass(frozen=True)
class StoredArray:
    """A zarr array whose objects are decoded where they are asked for. Small and picklable.

    Indexing it reads: ``array[..., 0:64, 5]``, with any index that NumPy takes.

    Attributes
    ----------
    target : Target
        The folder of the array.
    layout : ArrayLayout
    absent : AbsentChunks
        The chunks that were found to be absent.
    """

    target: Target
    layout: ArrayLayout
    absent: AbsentChunks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "absent", AbsentChunks(self.target, self.layout))

    @classmethod
    def at(cls, target: Target, path: str = "") -> StoredArray:
        """The array at a path in a target.

        Raises
        ------
        InputError
            If there is no array, or not one of numbers in regular chunks.
        TargetError
            If its metadata cannot be read.
        """
        folder = replace(target, url=f"{target.url}/{path}".rstrip("/"))
        for name in ("zarr.json", ".zarray"):
            if (body := folder.read(name)) is not None:
                try:
                    return cls(folder, ArrayLayout.of(json.loads(body)))
                except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                    raise InputError(f"{folder.url}/{name} cannot be read as an array ({error!r})") from None
        raise InputError(f"{folder.url} is named in the metadata and is not an array; build or fetch it again")

    @classmethod
    def of(cls, array: Any) -> StoredArray | None:
        """A ``zarr.Array`` as one; None if zarr reads it better: from another store, in shards, in other codecs."""
        target = target_of(array)
        if target is None or array.dtype.kind not in "biuf" or not array.ndim:
            return None
        if not target.is_local and not target.is_plain_http:  # opened with the user's own settings
            return None
        layout = ArrayLayout.of(array.metadata.to_dict())
        if layout.codecs is None or layout.unit != layout.chunk:
            return None
        return cls(target, layout)

    def labels(self) -> StoredArray:
        """The array along its last three axes (z, y, x), if it holds labels.

        Raises
        ------
        InputError
            If it does not hold integers, or has an axis before z, y, x that is longer than 1.
        """
        if self.dtype.kind not in "iub":
            raise InputError(f"{self.target.url} holds {self.dtype}, not labels; labels are integers")
        if any(n != 1 for n in self.shape[:-3]) or self.ndim < 3:
            raise InputError(f"{self.target.url} has shape {self.shape}; labels have z, y, x")
        return StoredArray(self.target, self.layout.last_axes(3))

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
        """Of the values that are read, in native byte order."""
        return self.layout.dtype

    @property
    def units(self) -> list[tuple[int, ...]]:
        """All objects, in C order."""
        return list(np.ndindex(*self.layout.grid))

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read the objects that an index takes from.

        Raises
        ------
        TargetError
            For the reasons of `read`.
        IndexError
            If the index does not fit the array.
        """
        box, rest = split_index(index, self.shape)
        found: NDArray[Any] = self.box(box)[rest]
        return found

    def box(self, box: Sequence[slice], units: Iterable[Sequence[int]] | None = None) -> NDArray[Any]:
        """Read a box of voxels.

        Parameters
        ----------
        box : sequence of slice
            With their ends, in steps of 1.
        units : iterable of tuple of int, optional
            The objects to read; elsewhere the box has the fill value. Default: all that it touches.

        Raises
        ------
        TargetError
            For the reasons of `read`.
        """
        whole: NDArray[Any] | None = None
        lengths = [axis.stop - axis.start for axis in box]
        for there, values in self.read(self.layout.units(box) if units is None else units, box):
            if values.shape == tuple(lengths):
                return values
            whole = np.full(lengths, self.layout.fill, self.dtype) if whole is None else whole
            whole[within(there, box)] = values
        return np.full(lengths, self.layout.fill, self.dtype) if whole is None else whole

    def read(
        self, units: Iterable[Sequence[int]], box: Sequence[slice] | None = None
    ) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Read objects, several at a time; large shards are given in parts.

        Parameters
        ----------
        units : iterable of tuple of int
            The objects.
        box : sequence of slice, optional
            Voxels to give of them; every object has some. Default: all.

        Yields
        ------
        region : tuple of slice
            Within the array.
        values : ndarray
            The voxels of the region.

        Raises
        ------
        TargetError
            If an object cannot be read or decoded, or is absent though the ledger of the image records it.
        """
        rest = iter(units)
        while batch := {self.layout.key(unit): unit for unit in islice(rest, _AT_ONCE[self.target.is_local])}:
            for key, body in self.target.read_each(batch).items():
                unit = tuple(batch[key])
                there = self.layout.region(unit)
                region = there if box is None else intersection(there, box)
                if body is None:
                    self.absent.note(unit)
                else:
                    self.absent.note_within(unit, body)
                for part in self._parts(region):
                    yield part, self._values(key, body, within(part, there))

    def each(
        self, units: Iterable[Sequence[int]], function: Callable[[tuple[slice, ...], NDArray[Any]], _Result]
    ) -> Iterator[_Result]:
        """Apply a function to the regions and values of `read`, on several threads of this process."""
        local = self.target.is_local
        threads = usable_cores() if local else max(_WAITING, usable_cores())

        def work(batch: list[Sequence[int]]) -> list[_Result]:
            return [function(region, values) for region, values in self.read(batch)]

        with ThreadPoolExecutor(threads, "atlaszarr-read") as pool:
            for found in pool.map(work, _batches(units, _AT_ONCE[local])):
                yield from found

    def _values(self, key: str, body: bytes | None, box: tuple[slice, ...]) -> NDArray[Any]:
        """A box of an object, in its own voxels; without a body, all of the fill value."""
        if body is None:
            return np.full([axis.stop - axis.start for axis in box], self.layout.fill, self.dtype)
        try:
            return self.layout.decode(body, box)
        except ValueError as error:
            raise TargetError(f"{self.target.url}/{key} is damaged ({error}); build or fetch it again") from None

    def _parts(self, region: tuple[slice, ...]) -> Iterator[tuple[slice, ...]]:
        """A region of an object, or the chunks of it where it is too large to be decoded at once."""
        if math.prod(axis.stop - axis.start for axis in region) <= _LARGEST or self.layout.unit == self.chunk:
            yield region
            return
        for cell in cells(region, self.chunk):
            yield intersection([slice(i * n, (i + 1) * n) for i, n in zip(cell, self.chunk, strict=True)], region)


def target_of(array: Any) -> Target | None:
    """The folder of a ``zarr.Array`` on a local disk or in a filesystem of fsspec; None for other stores."""
    from fsspec.implementations.local import LocalFileSystem
    from zarr.storage import FsspecStore, LocalStore

    store, path = array.store, str(array.path)
    if isinstance(store, LocalStore):
        return Target(str(Path(store.root, path)))
    if not isinstance(store, FsspecStore):
        return None
    filesystem = getattr(store.fs, "sync_fs", store.fs)
    if isinstance(filesystem, LocalFileSystem):
        return Target(str(Path(store.path, path)))
    options = {name: value for name, value in filesystem.storage_options.items() if name not in _OF_ZARR}
    try:
        url = f"{filesystem.unstrip_protocol(store.path)}/{path}".rstrip("/")
        if "?" in url:  # parameters, which can be signatures and are not for messages
            return None
        return Target.of(url, options).public()
    except AtlaszarrError:  # options that atlaszarr does not know
        return None


def _batches(units: Iterable[Sequence[int]], size: int) -> Iterator[list[Sequence[int]]]:
    rest = iter(units)
    while batch := list(islice(rest, size)):
        yield batch
