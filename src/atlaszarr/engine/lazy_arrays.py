"""Dask arrays that are computed region by region, each region in one task, from values that the task is given.

A task that computes a region of a dask array computes all that the region depends on. What many regions depend on, and
takes long, is computed by a task of its own, once, and given to the tasks of the regions. Whatever else serves several
regions (a chunk across their edges, a neighbouring chunk, the mean of the whole array) is kept in each process up to a
limit, and computed by one thread while the others wait for it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Region, intersection, within
from .blocks import as_declared
from .kept import KEPT, Kept

Key = Any
#: The most values that are kept on the way to one: of a mean in three dimensions dask combines 64 at a time.
_FEW = 64
#: Marks the key of a value of which tasks get a copy.
_MADE = "atlaszarr-made"
_tables = threading.Lock()


@dataclass(frozen=True, eq=False)
class LazyArrays:
    """Aligned dask arrays; a pickled copy lacks the tasks of the given values, and makes its tables anew.

    Attributes
    ----------
    arrays : mapping of str to dask array
        By path; their last three axes are the same ones.
    given : mapping of key to hashable
        Keys of their graphs whose values are passed to `compute`, with the name of each value.
    most : int
        Bytes of values that a process keeps for other regions.
    """

    arrays: Mapping[str, Any]
    given: Mapping[Key, Hashable]
    most: int = KEPT

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyArrays, (_without(self.arrays, self.given.keys()), self.given, self.most)

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
        if not self.given:
            return []
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
        if not self.arrays:  # without dask
            return {}
        self._make_tables()
        chunks = {path: list(self._chunks(path, region)) for path in self.arrays}
        whole = {path: self._box(path, region) for path in self.arrays}
        wanted = [key for parts in chunks.values() for key, _ in parts]
        across = {key for path, parts in chunks.items() for key, box in parts if intersection(box, whole[path]) != box}
        computed = self._computed(wanted, values, {*across, *self._repeated.intersection(wanted)})
        blocks = {}
        for path, parts in chunks.items():
            array, box = self.arrays[path], whole[path]
            block = np.empty([axis.stop - axis.start for axis in box], array.dtype) if len(parts) > 1 else None
            for key, chunk in parts:
                shape = tuple(axis.stop - axis.start for axis in chunk)
                shared = intersection(chunk, box)
                part = as_declared(path, array.dtype, np.asarray(computed[key]), shape)[within(shared, chunk)]
                if block is None:
                    blocks[path] = part
                else:
                    block[within(shared, box)] = part
            if block is not None:
                blocks[path] = block
        return blocks

    def _make_tables(self) -> None:
        """Make the tables once, not in each thread: from Python 3.12 on, a `cached_property` has no lock."""
        with _tables:
            _ = self.tasks, self.edges, self._repeated, self._kept

    def _computed(self, wanted: Sequence[Key], values: Mapping[Hashable, Any], shared: Set[Key]) -> dict[Key, Any]:
        """The values of some keys, of which other regions need those in `shared`, too.

        Of what they depend on, the values that other regions need, too, are kept.
        """
        from dask.local import get_sync

        met = self._met(wanted, shared)
        known = self._kept_values(met, values)
        # Values that were dropped are computed in one graph, each once; in a graph each, what they have in common would
        # be computed many times.
        dropped = dict.fromkeys(key for key in met if key not in known)
        left = [key for key in wanted if key not in known and key not in dropped]
        if not left and not dropped:
            return known
        graph = self._graph([*left, *dropped], values, known, dropped)
        made = get_sync(graph, [*left, *((_MADE, key) for key in dropped)])
        known |= zip([*left, *dropped], made, strict=True)
        self._kept.add({key: known[key] for key in dropped})
        return known

    def _met(self, wanted: Iterable[Key], shared: Set[Key]) -> dict[Key, None]:
        """Some shared keys, and the next keys that others of `wanted` depend on and other regions need, too."""
        met, seen = dict.fromkeys(shared), set(wanted)
        ahead = [key for key in wanted if key not in shared and key not in self.given]
        while ahead:
            further = self._dependencies(ahead.pop()) - seen
            seen |= further
            met |= dict.fromkeys(further & self._repeated)
            ahead += further - self._repeated - self.given.keys()
        return met

    def _kept_values(self, keys: Iterable[Key], values: Mapping[Hashable, Any]) -> dict[Key, Any]:
        """The values of some keys, except those that were dropped. Those that were never made are made and kept.

        What a value depends on is made first. Keys are followed by a loop, since a graph may be deeper than the stack.
        """
        wanted, found = dict.fromkeys(keys), dict[Key, Any]()
        ahead, opened = list(wanted), set[Key]()
        while ahead:
            key = ahead[-1]
            if key not in opened and not self._kept.was_made(key):
                opened.add(key)
                met = self._met([key], set())
                ahead += met if len(met) <= _FEW else ()
                continue
            ahead.pop()
            made = self._kept_value(key, values)
            if key in wanted:
                found |= made
        return found

    def _kept_value(self, key: Key, values: Mapping[Hashable, Any]) -> dict[Key, Any]:
        """A value by its key, unless it was dropped. One thread makes it while others wait."""
        from dask.local import get_sync

        with self._kept.making(key):
            if (kept := self._kept.get([key])) or self._kept.was_made(key):
                return kept
            known = self._kept.get(self._met([key], set()))
            (value,) = get_sync(self._graph([key], values, known), [key])
            self._kept.add({key: value})
            return {key: value}

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

    @cached_property
    def _kept(self) -> Kept:
        return Kept(self.most)

    @cached_property
    def _repeated(self) -> set[Key]:
        """The keys of computations that several chunks of an array depend on, by more than one other key."""
        chunk_of: dict[Key, Any] = {}
        dependents: Counter[Key] = Counter()
        for path, array in self.arrays.items():
            for index in product(*(range(len(axis) - 1) for axis in self.edges[path])):
                ahead = [(array.name, *index)]
                dependents.update(map(self._named, ahead))
                while ahead:
                    key = ahead.pop()
                    chunk = chunk_of.get(key, index[-3:])
                    if key in self.given or (key in chunk_of and chunk in (index[-3:], None)):
                        continue
                    dependencies = self._dependencies(key)
                    if key not in chunk_of and self._computes(key):
                        dependents.update(map(self._named, dependencies))
                    chunk_of[key] = index[-3:] if key not in chunk_of else None
                    ahead += dependencies
        several = (key for key, chunk in chunk_of.items() if chunk is None and dependents[key] > 1)
        return {key for key in several if self._computes(key)}

    def _computes(self, key: Key) -> bool:
        """Whether the task of a key calls a function: it is no value, and no other name of a key."""
        task = self.tasks[key]
        # As `dask.core.istask`, for which an alias is a task, too.
        return hasattr(task, "func") or (type(task) is tuple and len(task) > 0 and callable(task[0]))

    def _named(self, key: Key) -> Key:
        """The key that a key is another name of, or itself."""
        while key not in self.given and not self._computes(key) and len(of := self._dependencies(key)) == 1:
            (key,) = of
        return key

    def _dependencies(self, key: Key) -> Set[Key]:
        task = self.tasks[key]
        if hasattr(task, "substitute"):  # a task object of dask, which holds them
            held: Set[Key] = task.dependencies
            return held
        from dask.core import get_dependencies

        return set(get_dependencies(self.tasks, key))

    def _graph(
        self,
        wanted: Iterable[Key],
        values: Mapping[Hashable, Any],
        known: Mapping[Key, Any],
        kept: Iterable[Key] = (),
    ) -> dict[Key, Any]:
        """The tasks that some keys depend on, with given values, and copies of known ones, in place of their tasks.

        Tasks get a copy of the values of the keys in `kept`, too; the values are those of the keys ``(_MADE, key)``.
        """
        graph: dict[Key, Any] = {}
        ahead = list(wanted)
        while ahead:
            key = ahead.pop()
            if key in graph:
                continue
            if (name := self.given.get(key)) is not None:
                graph[key] = (partial(_same, values[name]),)
            elif key in known:
                graph[key] = (partial(_copied, known[key]),)
            else:
                graph[key] = self.tasks[key]
                ahead += self._dependencies(key)
        for key in kept:
            task = graph[key]
            graph[_MADE, key] = task.substitute({}, key=(_MADE, key)) if hasattr(task, "substitute") else task
            graph[key] = (_copied, (_MADE, key))
        return graph


def _copied(value: Any) -> Any:
    """A copy, which the function of a user may change."""
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    return value.copy() if isinstance(value, np.ndarray) else value


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
