"""One array of an OME-Zarr, read unit by unit: a unit is what lies in one object, a chunk or a shard.

Chunks in codecs that are known are decoded directly, all others by zarr. What is read is the same.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index, Shape, everywhere, shape_of
from ..errors import InputError, TargetError
from ..stores.target import Target
from .absent_chunks import AbsentChunks
from .codecs import ArrayLayout
from .pyramid import Level
from .schedulers import usable_cores

_Result = TypeVar("_Result")
#: Threads that wait for a store that is not a local disk.
_WAITING = 8
#: Voxels of a shard that is read as a whole; of a larger one, chunk by chunk.
_LARGEST = 2**25


@dataclass(frozen=True)
class StoredArray:
    """An array of labels; axes before the last three have length 1. Small, picklable.

    Attributes
    ----------
    target : Target
        Of the image.
    path : str
        Within it.
    layout : ArrayLayout
    """

    target: Target
    path: str
    layout: ArrayLayout

    @classmethod
    def at(cls, target: Target, path: str) -> StoredArray:
        """The array at a path in a target.

        Raises
        ------
        InputError
            If there is none, or one that holds no labels.
        """
        for name in ("zarr.json", ".zarray"):
            if (body := target.read(f"{path}/{name}")) is None:
                continue
            try:
                layout = ArrayLayout.of(json.loads(body))
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise InputError(f"{target.url}/{path}/{name} cannot be read as an array ({error!r})") from None
            if layout.dtype.kind not in "iub":
                raise InputError(f"{target.url}/{path} holds {layout.dtype}, not labels; labels are integers")
            if any(n != 1 for n in layout.shape[:-3]) or len(layout.shape) < 3:
                raise InputError(f"{target.url}/{path} has shape {layout.shape}; labels have z, y, x")
            return cls(target, path, layout)
        raise InputError(f"{target.url}/{path} is named in the metadata and is no array; build or fetch it again")

    @cached_property
    def level(self) -> Level:
        """Its shape, and what is read at least and at once, along (z, y, x)."""
        unit = self.layout.unit
        if not self.is_decoded and math.prod(unit) > _LARGEST:
            unit = self.layout.chunk
        return Level(_last(self.layout.shape), _last(self.layout.chunk), _last(unit))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the labels."""
        return self.layout.dtype

    @property
    def is_decoded(self) -> bool:
        """Whether its objects are decoded here, and not by zarr."""
        return self.layout.codecs is not None

    @property
    def _lead(self) -> tuple[int, ...]:
        return (0,) * (len(self.layout.shape) - 3)

    @cached_property
    def absent(self) -> AbsentChunks:
        """The chunks that are absent, of those that were read."""
        return AbsentChunks(replace(self.target, url=f"{self.target.url}/{self.path}"), self.layout)

    @property
    def units(self) -> list[Index]:
        """All units, in C order."""
        return list(self.level.units(everywhere(self.level.shape)))

    def key(self, unit: Index) -> str:
        """The key of a unit's object in the target."""
        return f"{self.path}/{self.layout.key(self._lead + unit)}"

    def read(self, units: Sequence[Index]) -> Iterator[tuple[Index, NDArray[Any]]]:
        """Units with their voxels, cut at the array's end.

        Raises
        ------
        TargetError
            If one cannot be read, or is absent though the ledger of the image records it.
        """
        if not self.is_decoded:
            yield from ((unit, self._by_zarr(unit)) for unit in units)
            return
        keys = {self.key(unit): unit for unit in units}
        for key, body in self.target.read_each(keys).items():
            region, index = self.level.region(keys[key]), self._lead + keys[key]
            z, y, x = shape_of(region)
            if body is None:
                self.absent.note(index)
                yield keys[key], np.full((z, y, x), self.layout.fill, self.dtype)
                continue
            try:
                whole = self.layout.decode(body)
            except ValueError as error:
                raise TargetError(f"{self.target.url}/{key} is damaged ({error}); build or fetch it again") from None
            self.absent.note_within(index, body)
            yield keys[key], whole.reshape(self.level.unit)[:z, :y, :x]

    def each(self, units: Iterable[Index], function: Callable[[Index, NDArray[Any]], _Result]) -> Iterator[_Result]:
        """What a function makes of units, several at a time: on threads of this process."""
        local, absent = self.target.is_local, self.absent  # made before threads share it
        if not self.is_decoded:  # zarr does not say what is absent
            absent.list()
        batches = _batches(units, 4 if local else 16)
        threads = usable_cores() if local else max(_WAITING, usable_cores())

        def work(batch: list[Index]) -> list[_Result]:
            return [function(unit, values) for unit, values in self.read(batch)]

        with ThreadPoolExecutor(threads, "atlaszarr-read") as pool:
            for found in pool.map(work, batches):
                yield from found

    def _by_zarr(self, unit: Index) -> NDArray[Any]:
        with self.target.reporting("read"):
            try:
                found = self._zarr[self._lead + self.level.region(unit)]
            except (ValueError, RuntimeError) as error:
                raise TargetError(f"{self.target.url}/{self.path}, chunk {unit}, cannot be read: {error}") from None
        return np.asarray(found)

    @cached_property
    def _zarr(self) -> Any:
        import zarr

        options = json.loads(self.target.storage_options)
        if self.target.is_local:
            store: Any = zarr.storage.LocalStore(self.target.url, read_only=True)
        else:
            store = zarr.storage.FsspecStore.from_url(self.target.url, storage_options=options, read_only=True)
        return zarr.open_array(store, path=self.path, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_zarr", "level", "absent")}


def _batches(units: Iterable[Index], size: int) -> Iterator[list[Index]]:
    rest = iter(units)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _last(lengths: Sequence[int]) -> Shape:
    z, y, x = map(int, lengths[-3:])
    return z, y, x
