"""Arrays whose blocks are read along the axes of an annotation, whatever their own order and direction of axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Region, Shape


@dataclass(frozen=True)
class PlacedArray:
    """An array, and which of its axes are those of the annotation.

    Attributes
    ----------
    array : StoredArray, dask or numpy array
    lead : int or None
        The axis of the channels; None without one.
    spatial : tuple of int
        The axes along (z, y, x) of the annotation; further axes have length 1.
    flipped : tuple of bool
        Whether the array runs the other way along (z, y, x).
    """

    array: Any
    lead: int | None
    spatial: tuple[int, int, int]
    flipped: tuple[bool, bool, bool] = (False, False, False)

    @property
    def shape(self) -> Shape:
        """Voxels along (z, y, x) of the annotation."""
        z, y, x = (int(self.array.shape[k]) for k in self.spatial)
        return z, y, x

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.lead is None else int(self.array.shape[self.lead])

    @property
    def unit(self) -> Shape:
        """Lengths of what is read at once along (z, y, x): a chunk or a shard; the first one if they differ."""
        layout, chunks = getattr(self.array, "layout", None), getattr(self.array, "chunks", None)
        lengths = layout.unit if layout is not None else [n[0] for n in chunks] if chunks else self.array.shape
        z, y, x = (int(lengths[k]) for k in self.spatial)
        return z, y, x

    def arranged(self, order: Sequence[int], flipped: Sequence[bool] = (False, False, False)) -> PlacedArray:
        """The array along other axes: those at the positions `order` of the present ones, each flipped or not."""
        z, y, x = (self.spatial[k] for k in order)
        a, b, c = (self.flipped[k] != flip for k, flip in zip(order, flipped, strict=True))
        return replace(self, spatial=(z, y, x), flipped=(a, b, c))

    def select(self, region: Region) -> Any:
        """What holds the voxels of a region that are inside the array: values, or a lazy part of a dask array."""
        index = [slice(None) if k == self.lead else slice(0, 1) for k in range(len(self.array.shape))]
        for k, axis, n, flip in zip(self.spatial, region, self.shape, self.flipped, strict=True):
            first, stop = min(axis.start, n), min(axis.stop, n)
            index[k] = slice(n - stop, n - first) if flip else slice(first, stop)
        return self.array[tuple(index)]

    def arrange(self, selected: NDArray[Any], region: Region) -> NDArray[Any]:
        """The result of `select`, once it is computed, along (z, y, x) or (c, z, y, x); 0 outside of the array."""
        lead = () if self.lead is None else (self.lead,)
        rest = [k for k in range(selected.ndim) if k not in (*lead, *self.spatial)]
        values: NDArray[Any] = selected.transpose([*rest, *lead, *self.spatial])[(0,) * len(rest)]
        values = values[(..., *(slice(None, None, -1 if flip else None) for flip in self.flipped))]
        missing = [axis.stop - axis.start - n for axis, n in zip(region, values.shape[-3:], strict=True)]
        if any(missing):
            values = np.pad(values, [(0, 0)] * len(lead) + [(0, n) for n in missing])
        return values

    def read(self, region: Region) -> NDArray[Any]:
        """The values of a region, along (z, y, x) or (c, z, y, x)."""
        (values,) = read_together([self], region)
        return values


@dataclass(frozen=True)
class SampledLabels:
    """The labels of an annotation at points: those of the voxels that hold them.

    Attributes
    ----------
    labels : PlacedArray
    indices : tuple of ndarray, int64
        The voxel of each point along (z, y, x); -1 for a point outside of the annotation, whose label is 0.
    """

    labels: PlacedArray
    indices: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

    @property
    def shape(self) -> Shape:
        """Points along (z, y, x)."""
        z, y, x = (len(axis) for axis in self.indices)
        return z, y, x

    def read(self, region: Region) -> NDArray[Any]:
        """The labels of a region of points."""
        wanted = [axis[part] for axis, part in zip(self.indices, region, strict=True)]
        inside = [np.flatnonzero(axis >= 0) for axis in wanted]
        found = np.zeros([len(axis) for axis in wanted], self.labels.array.dtype)
        if all(axis.size for axis in inside):
            held = [axis[kept] for axis, kept in zip(wanted, inside, strict=True)]
            z, y, x = (slice(int(axis.min()), int(axis.max()) + 1) for axis in held)
            values = self.labels.read((z, y, x))
            found[np.ix_(*inside)] = values[np.ix_(*(axis - axis.min() for axis in held))]
        return found


def read_together(arrays: Iterable[PlacedArray], region: Region) -> list[NDArray[Any]]:
    """Read a region of several arrays; what dask arrays share is computed once."""
    placed = list(arrays)
    parts = [array.select(region) for array in placed]
    if any(hasattr(part, "__dask_graph__") for part in parts):
        import dask
        from dask.local import get_sync

        parts = list(dask.compute(*parts, scheduler=get_sync))
    return [array.arrange(np.asarray(part), region) for array, part in zip(placed, parts, strict=True)]
