"""Read a zarr array lazily from any store: by an index, or object by object. An object is a chunk or a shard."""

from __future__ import annotations

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
from ..errors import AtlaszarrError, InputError, TargetError, reason_of
from ..stores.documents import LARGEST, parse_object
from ..stores.target import Target
from .absent_chunks import AbsentChunks
from .array_layout import ArrayLayout
from .schedulers import usable_cores

_Result = TypeVar("_Result")
#: Options of a filesystem that zarr adds.
_ZARR_OPTIONS = ("asynchronous", "loop")
#: Minimum number of threads that read from a store other than a local disk.
_REMOTE_THREADS = 8
#: Number of objects in one request, by whether the store is a local disk.
_BATCH = {True: 4, False: 16}
#: Most objects of an array: the CCF at 5 um in chunks of 32 has 0.3 million.
_MOST_OBJECTS = 2**20
#: Largest shard that is decoded as a whole, in voxels; a larger one is decoded chunk by chunk.
LARGEST_WHOLE = 2**25


@dataclass(frozen=True)
class StoredArray:
    """A zarr array that is read by indexing, as a NumPy array: ``array[..., 0:64, 5]``. Small and picklable.

    Attributes
    ----------
    target : Target
        The folder of the array.
    layout : ArrayLayout
    given : str
        The relative path of a ``zarr.Array`` that it was converted from, which identifies it; else empty.
    absent : AbsentChunks
        The absent chunks that were found so far.
    """

    target: Target
    layout: ArrayLayout
    given: str = field(default="", compare=False, repr=False)
    absent: AbsentChunks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "absent", AbsentChunks(self.target, self.layout))

    @classmethod
    def at(cls, target: Target, path: str = "") -> StoredArray:
        """The array at a path in a target.

        Raises
        ------
        InputError
            If there is no array, or it is not a numeric array with regular chunks.
        TargetError
            If its metadata cannot be read.
        """
        folder = replace(target, url=f"{target.url}/{path}".rstrip("/"))
        for name in ("zarr.json", ".zarray"):
            if (document := read_document(folder, name)) is None:
                continue
            try:
                layout = ArrayLayout.of(document)
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
                raise InputError(
                    f"{folder.url}/{name} is damaged or not supported ({reason_of(error)})", code="damaged-metadata"
                ) from None
            if (objects := math.prod(layout.grid)) > _MOST_OBJECTS:
                raise InputError(
                    f"{folder.url}/{name} claims {objects} objects for the shape {layout.shape}; at most "
                    f"{_MOST_OBJECTS} are read; write it with larger chunks, or give a coarser level",
                    code="array-too-large",
                )
            return cls(folder, layout)
        raise InputError(f"{folder.url} is not a zarr array; build or fetch the image again", code="array-not-found")

    @classmethod
    def of(cls, array: Any) -> StoredArray | None:
        """Convert a ``zarr.Array``; None if it has another store, shards, or codecs that only zarr-python decodes."""
        target = target_of(array)
        if target is None or array.dtype.kind not in "biuf" or not array.ndim:
            return None
        if not target.is_local and not target.is_plain_http:  # opened with settings of the user
            return None
        try:
            layout = ArrayLayout.of(array.metadata.to_dict())
        except (ValueError, LookupError, TypeError):  # zarr-python may read it
            return None
        stored = cls(target.absolute(), layout, target.url if target.absolute() != target else "")
        return stored if stored.is_read_by_chunk else None

    @property
    def is_read_by_chunk(self) -> bool:
        """Whether a chunk is read alone, without zarr-python: it has no shards, and codecs that are decoded here."""
        return self.layout.codecs is not None and self.layout.unit == self.layout.chunk

    def labels(self) -> StoredArray:
        """The array along its last three axes (z, y, x), if it holds labels.

        Raises
        ------
        InputError
            If it does not hold integers, or has an axis before z, y, x that is longer than 1.
        """
        if self.dtype.kind not in "iub":
            raise InputError(
                f"{self.target.url} holds {self.dtype}, not labels; labels are integers", code="not-labels"
            )
        if any(n != 1 for n in self.shape[:-3]) or self.ndim < 3:
            raise InputError(
                f"{self.target.url} has shape {self.shape}; labels have the axes z, y, x", code="wrong-dimensions"
            )
        return StoredArray(self.target, self.layout.last_axes(3))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.layout.shape

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return self.layout.chunk

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values read, in native byte order."""
        return self.layout.dtype

    @property
    def units(self) -> Iterator[tuple[int, ...]]:
        """Indices of all objects, in C order."""
        return iter(np.ndindex(*self.layout.grid))

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read the values at an index.

        Raises
        ------
        TargetError
            For the reasons of `read`.
        IndexError
            If the index is out of bounds.
        """
        box, rest = split_index(index, self.shape)
        values: NDArray[Any] = self.box(box)[rest]
        return values

    def box(self, box: Sequence[slice], units: Iterable[Sequence[int]] | None = None) -> NDArray[Any]:
        """Read a box of voxels.

        Parameters
        ----------
        box : sequence of slice
            With start and stop, and a step of 1.
        units : iterable of tuple of int, optional
            Indices of the objects to read; the rest of the box has the fill value. Default: all that it touches.

        Raises
        ------
        TargetError
            For the reasons of `read`.
        """
        whole: NDArray[Any] | None = None
        shape = tuple(axis.stop - axis.start for axis in box)
        for region, values in self.read(self.layout.units(box) if units is None else units, box):
            if values.shape == shape:
                return values
            if whole is None:  # without `units`, the objects cover the box
                whole = np.empty(shape, self.dtype) if units is None else self._filled(shape)
            whole[within(region, box)] = values
        return self._filled(shape) if whole is None else whole

    def read(
        self, units: Iterable[Sequence[int]], box: Sequence[slice] | None = None
    ) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Read objects, several in one request; a large shard is yielded in parts.

        Parameters
        ----------
        units : iterable of tuple of int
            Indices of the objects.
        box : sequence of slice, optional
            Voxels to return, relative to the array; every object overlaps it. Default: all.

        Yields
        ------
        region : tuple of slice
            Position of the values in the array.
        values : ndarray

        Raises
        ------
        TargetError
            If an object cannot be read or decoded, or the ledger of the image records it and it is absent.
        """
        rest = iter(units)
        while batch := {self.layout.key(unit): unit for unit in islice(rest, _BATCH[self.target.is_local])}:
            for key, body in self.target.read_each(batch, self.layout.largest).items():
                unit = tuple(batch[key])
                whole = self.layout.region(unit)
                region = whole if box is None else intersection(whole, box)
                if body is None:
                    self.absent.count(unit)
                else:
                    self.absent.count_within(unit, body)
                for part in self._parts(region):
                    yield part, self._values(key, body, within(part, whole))

    def each(
        self, units: Iterable[Sequence[int]], function: Callable[[tuple[slice, ...], NDArray[Any]], _Result]
    ) -> Iterator[_Result]:
        """Apply a function to the regions and values of `read`, on several threads of this process."""
        local = self.target.is_local
        threads = usable_cores() if local else max(_REMOTE_THREADS, usable_cores())
        rest = iter(units)

        def work(batch: list[Sequence[int]]) -> list[_Result]:
            return [function(region, values) for region, values in self.read(batch)]

        with ThreadPoolExecutor(threads, "atlaszarr-read") as pool:
            for results in pool.map(work, iter(lambda: list(islice(rest, _BATCH[local])), [])):
                yield from results

    def _values(self, key: str, body: bytes | None, box: tuple[slice, ...]) -> NDArray[Any]:
        """Decode a box, relative to the object; without a body it has the fill value."""
        if body is None:
            return self._filled([axis.stop - axis.start for axis in box])
        try:
            return self.layout.decode(body, box)
        except ValueError as error:
            raise TargetError(
                f"{self.target.url}/{key} is damaged ({reason_of(error)}); build or fetch it again",
                code="damaged-chunk",
            ) from None

    def _filled(self, shape: Sequence[int]) -> NDArray[Any]:
        return np.full(shape, self.layout.fill, self.dtype)

    def _parts(self, region: tuple[slice, ...]) -> Iterator[tuple[slice, ...]]:
        """A region of an object, split into chunks if it is too large to be decoded at once."""
        if math.prod(axis.stop - axis.start for axis in region) <= LARGEST_WHOLE or self.layout.unit == self.chunk:
            yield region
            return
        for cell in cells(region, self.chunk):
            yield intersection([slice(i * n, (i + 1) * n) for i, n in zip(cell, self.chunk, strict=True)], region)


def read_document(target: Target, key: str) -> dict[str, Any] | None:
    """A metadata document; None if it is missing.

    Raises
    ------
    InputError
        If it is not a JSON object, or too large to be metadata.
    TargetError
        If it cannot be read.
    """
    return None if (body := target.read(key, LARGEST)) is None else parse_document(body, f"{target.url}/{key}")


def parse_document(body: bytes, url: str) -> dict[str, Any]:
    """The metadata in the document of a path or URL; InputError if it is not a JSON object."""
    try:
        return parse_object(body)
    except ValueError as error:
        raise InputError(
            f"{url} is not the metadata of an image: {reason_of(error)}; get the image again, or repeat the command "
            "that wrote it",
            code="damaged-metadata",
        ) from None


def target_of(array: Any) -> Target | None:
    """The folder of a ``zarr.Array`` in a `LocalStore`, `FsspecStore` or `TargetStore`; None for other stores."""
    from fsspec.implementations.local import LocalFileSystem
    from zarr.storage import FsspecStore, LocalStore

    from .zarr_store import TargetStore

    store, path = array.store, str(array.path)
    if isinstance(store, LocalStore):
        return Target(str(Path(store.root, path)))
    if not isinstance(store, FsspecStore):
        return store.target if isinstance(store, TargetStore) else None
    filesystem = getattr(store.fs, "sync_fs", store.fs)
    if isinstance(filesystem, LocalFileSystem):
        return Target(str(Path(store.path, path)))
    options = {name: value for name, value in filesystem.storage_options.items() if name not in _ZARR_OPTIONS}
    try:
        url = f"{filesystem.unstrip_protocol(store.path)}/{path}".rstrip("/")
        if "?" in url:  # its parameters may be a signature, which a message must not show
            return None
        return Target.of(url, options).public()
    except AtlaszarrError:  # an option that atlaszarr does not know
        return None
