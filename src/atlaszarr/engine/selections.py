"""What a dask array selects from the array that it reads: its graph followed back through slices and whole numbers."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import intersection, split_index, within
from .absent_chunks import AbsentChunks
from .kept import KEPT, Kept
from .zarr_reader import StoredArray

#: The indices that are selected along an axis of the array that is read; one index drops the axis.
Selected = range | int


@dataclass(frozen=True)
class Selection:
    """A part of an array: at every axis a range of indices, or one index.

    Attributes
    ----------
    source : array
        The array that is read.
    at : tuple of range or int
        One for each axis of `source`.
    """

    source: Any
    at: tuple[Selected, ...]

    @classmethod
    def of(cls, array: Any) -> Selection | None:
        """What a dask array selects from an array; None if it does anything but read and select."""
        layers = array.dask.layers
        name, seen = array.name, []
        while (source := source_of(layers, name)) is None:
            # A layer that selects holds its tasks; that of a function makes them, which can take long.
            if name not in layers or not hasattr(layers[name], "mapping") or len(array.dask.dependencies[name]) != 1:
                return None
            seen.append(name)
            (name,) = array.dask.dependencies[name]
        if type(array._meta) is not np.ndarray:  # dask converts what is read, as with a matrix
            return None
        if not seen:
            return cls(source, tuple(map(range, source.shape)))
        tasks = {key: task for layer in (*seen, name) for key, task in layers[layer].items()}
        parts = {}
        for index in product(*(range(len(lengths)) for lengths in array.chunks)):
            if (at := _followed(tasks, (array.name, *index), source.shape)) is None:
                return None
            parts[index] = at
        return _joined(source, parts, array.chunks)


@dataclass(frozen=True)
class StoredPart:
    """A part of a zarr array that is read by indexing, as a NumPy array. Small and picklable.

    A chunk on a local disk that reaches beyond what is read is kept for whoever reads the rest of it. A part belongs to
    one computation: a chunk that changes on the disk meanwhile may be read before and after.

    Attributes
    ----------
    stored : StoredArray
    at : tuple of range or int
        One for each axis of `stored`; an axis with one index is dropped.
    kept : Kept
        The chunks that are kept, up to 256 MB; several parts may have one.
    """

    stored: StoredArray
    at: tuple[Selected, ...]
    kept: Kept = field(default_factory=partial(Kept, KEPT, 0), repr=False, compare=False)

    @cached_property
    def _extent(self) -> tuple[slice, ...]:
        """The smallest box of the zarr array that holds the part."""
        ranges = (axis if isinstance(axis, range) else range(axis, axis + 1) for axis in self.at)
        return tuple(slice(min(axis, default=0), max(axis, default=-1) + 1) for axis in ranges)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the part."""
        return tuple(len(axis) for axis in self.at if isinstance(axis, range))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values read, in native byte order."""
        return self.stored.dtype

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of the part of a chunk that is read."""
        axes = zip(self.stored.chunk, self.at, strict=True)
        return tuple(-(-length // abs(axis.step)) for length, axis in axes if isinstance(axis, range))

    @property
    def absent(self) -> AbsentChunks:
        """The absent chunks of the zarr array that were found so far."""
        return self.stored.absent

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read the values at an index; raises what indexing a `StoredArray` does."""
        inside, rest = split_index(index, self.shape)
        left = iter(inside)
        at = tuple(index_of(axis[next(left)] if isinstance(axis, range) else axis) for axis in self.at)
        box, within_box = split_index(at, self.stored.shape)
        values: NDArray[Any] = self._box(box)[within_box][rest]
        return values

    def _box(self, box: Sequence[slice]) -> NDArray[Any]:
        """Read a box of the zarr array."""
        layout = self.stored.layout
        if not self.stored.target.is_local or layout.unit != layout.chunk or 0 in map(_length, box):
            return self.stored.box(box)
        shared, own = {}, []
        for unit in layout.units(box):
            used = intersection(layout.region(unit), self._extent)
            part = intersection(used, box)
            if used == part:
                own.append(unit)
            else:
                shared[unit] = part
        if not shared:
            return self.stored.box(box, own)
        values = self.stored.box(box, own) if own else np.empty(tuple(map(_length, box)), self.dtype)
        for unit, part in shared.items():
            values[within(part, box)] = self._chunk(unit)[within(part, layout.region(unit))]
        return values

    def _chunk(self, unit: tuple[int, ...]) -> NDArray[Any]:
        """A chunk that other regions need too; one thread reads it while others wait."""
        key = (self.stored.target.url, unit)
        with self.kept.making(key):
            values: NDArray[Any] | None = self.kept.get([key]).get(key)
            if values is None:
                values = self.stored.box(self.stored.layout.region(unit), [unit])
                self.kept.add({key: values})
            return values


def _length(axis: slice) -> int:
    return int(axis.stop - axis.start)


def index_of(selected: Selected) -> slice | int:
    """The index that selects a range of indices, or one index."""
    if isinstance(selected, int):
        return selected
    # A range down to index 0 stops at -1, which a slice takes for the last index.
    return slice(selected.start, None if selected.stop < 0 else selected.stop, selected.step)


def source_of(layers: Mapping[str, Any], name: str) -> Any:
    """The array that a layer of ``from_array`` or ``from_zarr`` slices; None for any other layer."""
    from dask.array.core import getter, getter_nofancy

    task = getattr(layers.get(name), "task", None)
    # With a custom getitem, or a lock, dask must compute it.
    if task is None or task.func not in (getter, getter_nofancy) or task.kwargs:
        return None
    original = layers.get(f"original-{name}")
    held = layers[name].indices[0][0] if original is None else next(iter(original.values()))
    return getattr(held, "value", held)


def _followed(tasks: Mapping[Any, Any], key: Any, shape: Sequence[int]) -> tuple[Selected, ...] | None:
    """What a chunk selects from an array of some shape; None if its tasks do anything else."""
    from dask.array import chunk
    from dask.array.core import getter, getter_nofancy

    task = tasks[key]
    if hasattr(task, "target"):  # another name of a chunk
        return _followed(tasks, task.target, shape)
    function: Any = getattr(task, "func", None)
    args: Sequence[Any] = getattr(task, "args", ())
    at: tuple[Selected, ...] | None = None
    if function in (getter, getter_nofancy):
        at = tuple(map(range, shape))
    elif function in (operator.getitem, chunk.getitem) and hasattr(args[0], "key"):
        at = _followed(tasks, args[0].key, shape)
    return None if at is None else _indexed(at, getattr(args[1], "value", args[1]))


def _indexed(at: tuple[Selected, ...], index: Any) -> tuple[Selected, ...] | None:
    """What an index selects from a selection; None if it holds anything but slices and whole numbers."""
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(isinstance(item, slice | int | np.integer) for item in items):
        return None
    found: list[Selected] = []
    for axis in at:
        found.append(axis[items.pop(0)] if isinstance(axis, range) and items else axis)
    return None if items else tuple(found)


def _joined(
    source: Any, parts: Mapping[tuple[int, ...], tuple[Selected, ...]], chunks: Sequence[Sequence[int]]
) -> Selection | None:
    """The selection of an array from those of its chunks; None if they do not continue one another.

    It reaches from the first chunk to the last one, if every chunk is its part of that.
    """
    starts = [(0, *accumulate(lengths)) for lengths in chunks]
    first, last = parts[(0,) * len(chunks)], parts[tuple(len(lengths) - 1 for lengths in chunks)]
    ends = zip(first, last, strict=True)
    at = tuple(range(a.start, b.stop, a.step) if isinstance(a, range) and isinstance(b, range) else a for a, b in ends)
    for index, part in parts.items():
        box = iter([slice(edges[k], edges[k + 1]) for k, edges in zip(index, starts, strict=True)])
        if part != tuple(axis[next(box)] if isinstance(axis, range) else axis for axis in at):
            return None
    return Selection(source, at)
