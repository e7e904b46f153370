"""Dask arrays that are computed region by region, each region in one task, from values that the task is given.

A task that computes a region of a dask array computes all that the region depends on. What many regions depend on, and
takes long, is computed by a task of its own, once, and given to the tasks of the regions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Region, intersection, within
from .blocks import as_declared

Key = Any


@dataclass(frozen=True, eq=False)
class LazyArrays:
    """Aligned dask arrays; a pickled copy lacks the tasks of the given values, and makes its tables anew.

    Attributes
    ----------
    arrays : mapping of str to dask array
        By path; their last three axes are the same ones.
    given : mapping of key to hashable
        Keys of their graphs whose values are passed to `compute`, with the name of each value.
    """

    arrays: Mapping[str, Any]
    given: Mapping[Key, Hashable]

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyArrays, (_without(self.arrays, self.given.keys()), self.given)

    @cached_property
    def tasks(self) -> dict[Key, Any]:
        """The tasks of all arrays by key."""
        from dask.highlevelgraph import HighLevelGraph

        return dict(HighLevelGraph.merge(*(array.__dask_graph__() for array in self.arrays.values())).to_dict())

    @cached_property
    def edges(self) -> dict[str, list[list[int]]]:
        """Starts of the chunks of each array along each of its axes, and the end of the last one."""
        return {
            path: [np.cumsum((0, *lengths)).tolist() for lengths in array.chunks] for path, array in self.arrays.items()
        }

    def needs(self, region: Region) -> list[Any]:
        """The names of the given values that a region of the arrays depends on, always in the same order."""
        masks = [self._mask(key) for path in self.arrays for key, _ in self._chunks(path, region)]
        needed = 0
        for mask in masks:
            needed |= mask
        return [name for position, name in enumerate(self._names) if needed >> position & 1]

    def compute(self, region: Region, values: Mapping[Hashable, Any]) -> dict[str, NDArray[Any]]:
        """Compute a region of all arrays, in this thread.

        Parameters
        ----------
        region : tuple of slice
            Along the last three axes; the others are computed whole.
        values : mapping of hashable to Any
            At least the given values that the region `needs`, by name.

        Raises
        ------
        InputError
            If a chunk has another dtype or shape than its array declares.
        """
        from dask.local import get_sync

        chunks = {path: list(self._chunks(path, region)) for path in self.arrays}
        wanted = [key for parts in chunks.values() for key, _ in parts]
        computed = dict(zip(wanted, get_sync(self._graph(wanted, values), wanted), strict=True))
        blocks = {}
        for path, parts in chunks.items():
            array = self.arrays[path]
            box = self._box(path, region)
            block = np.empty([axis.stop - axis.start for axis in box], array.dtype)
            for key, chunk in parts:
                shape = tuple(axis.stop - axis.start for axis in chunk)
                part = as_declared(path, array.dtype, np.asarray(computed[key]), shape)
                shared = intersection(chunk, box)
                block[within(shared, box)] = part[within(shared, chunk)]
            blocks[path] = block
        return blocks

    def _box(self, path: str, region: Region) -> tuple[slice, ...]:
        return (*(slice(0, n) for n in self.arrays[path].shape[:-3]), *region)

    def _chunks(self, path: str, region: Region) -> Iterator[tuple[Key, tuple[slice, ...]]]:
        """The keys and boxes of the chunks that overlap a region."""
        edges, name = self.edges[path], self.arrays[path].name
        overlapped = [
            range(bisect_right(axis, at.start) - 1, bisect_right(axis, at.stop - 1))
            for axis, at in zip(edges, self._box(path, region), strict=True)
        ]
        for index in product(*overlapped):
            yield (name, *index), tuple(slice(axis[i], axis[i + 1]) for axis, i in zip(edges, index, strict=True))

    @cached_property
    def _names(self) -> list[Hashable]:
        return list(dict.fromkeys(self.given.values()))

    @cached_property
    def _masks(self) -> dict[Key, int]:
        """For each key, the positions in `_names` of the values that it depends on, as bits."""
        position = {name: 1 << k for k, name in enumerate(self._names)}
        return {key: position[name] for key, name in self.given.items()}

    def _mask(self, key: Key) -> int:
        masks, ahead = self._masks, [key]
        while ahead:
            key = ahead[-1]
            if key in masks:
                ahead.pop()
                continue
            dependencies = self._dependencies(key)
            if further := [other for other in dependencies if other not in masks]:
                ahead += further
                continue
            mask = 0
            for other in dependencies:
                mask |= masks[other]
            masks[key] = mask
        return masks[key]

    def _dependencies(self, key: Key) -> set[Key]:
        from dask.core import get_dependencies

        return set(get_dependencies(self.tasks, key))

    def _graph(self, wanted: list[Key], values: Mapping[Hashable, Any]) -> dict[Key, Any]:
        """The tasks that some keys depend on, with the given values in place of their tasks."""
        graph: dict[Key, Any] = {}
        ahead = list(wanted)
        while ahead:
            key = ahead.pop()
            if key in graph:
                continue
            if (name := self.given.get(key)) is not None:
                graph[key] = (partial(_same, values[name]),)
            else:
                graph[key] = self.tasks[key]
                ahead += self._dependencies(key)
        return graph


def _same(value: Any) -> Any:
    return value


def _without(arrays: Mapping[str, Any], keys: Set[Key]) -> dict[str, Any]:
    """The arrays without the tasks of some keys; their graphs share layers as before."""
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    known: dict[int, Any] = {}

    def without(layer: Any) -> Any:
        if not isinstance(layer, MaterializedLayer) or keys.isdisjoint(layer):
            return layer
        if (tasks := id(layer.mapping)) not in known:
            known[tasks] = MaterializedLayer({key: None if key in keys else task for key, task in layer.items()})
        return known[tasks]

    def stripped(array: Any) -> Any:
        layers = {name: without(layer) for name, layer in array.dask.layers.items()}
        return da.Array(HighLevelGraph(layers, array.dask.dependencies), array.name, array.chunks, array.dtype)

    return {path: stripped(array) for path, array in arrays.items()}
