"""Group blocks that need the same chunk of a dask array, so that the chunk is computed once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..boxes import Index, Shape
from .inputs import is_computed
from .pyramid import Pyramid

#: Largest group of blocks in bytes, which one task computes; larger only if a single chunk of the source is.
_LARGEST = 2**25


@dataclass(frozen=True)
class ChunkGroups:
    """Groups of the blocks of the first pass: boxes with edges that are edges of both blocks and chunks.

    Attributes
    ----------
    block : tuple of int
        Shape of a block along (z, y, x), in voxels.
    edges : tuple of tuple of int
        Starts of the groups along each axis, and the end of the last one.
    chunk : tuple of int
        Chunk shape of the dask array with the most repeated computation.
    times : float
        How often its chunks are computed at most, on average; 1 if they are kept from one group to the next.
    dimensions : int
        Number of spatial axes of the array, which are the last ones.
    """

    block: Shape
    edges: tuple[tuple[int, ...], ...]
    chunk: tuple[int, ...] = ()
    times: float = 1.0
    dimensions: int = 3

    @classmethod
    def of(cls, pyramid: Pyramid, arrays: Sequence[Any], dimensions: int, kept: int = 0) -> ChunkGroups:
        """Group the blocks of the first pass of a pyramid.

        Parameters
        ----------
        pyramid : Pyramid
        arrays : sequence of array
            Sources of level 0. Arrays that are only read, or are in memory, do not affect the groups.
        dimensions : int
            Number of spatial axes of the arrays, which are the last ones.
        kept : int
            Bytes of chunks that the process which computes all groups keeps from one group to the next.
        """
        block = pyramid.passes[0].block
        own = [(*range(0, n, b), n) for n, b in zip(pyramid.shape, block, strict=True)]
        lazy = [array for array in arrays if is_computed(array)]
        chunks = [_edges(array, dimensions) for array in lazy]
        shared = [tuple(sorted(set(axis).intersection(*(c[k] for c in chunks)))) for k, axis in enumerate(own)]
        voxel = sum(np.dtype(array.dtype).itemsize * math.prod(array.shape[:-dimensions]) for array in arrays)
        most = max([_LARGEST, *(voxel * math.prod(map(_longest, c)) for c in chunks)])
        edges = list(own)
        # Group along as many axes as fit into memory, starting with the axis whose groups are shortest.
        for axis in sorted(range(3), key=lambda k: _longest(shared[k]) / _longest(own[k])):
            longer = [*edges[:axis], shared[axis], *edges[axis + 1 :]]
            if voxel * math.prod(map(_longest, longer)) <= most:
                edges = longer
        times = [
            math.prod(_touched(groups, axis) / (len(axis) - 1) for groups, axis in zip(edges, c, strict=True))
            for c in chunks
        ]
        if kept >= sum(_bytes_between_uses(array, dimensions, edges, c) for array, c in zip(lazy, chunks, strict=True)):
            times = [1.0] * len(lazy)
        worst = max(range(len(lazy)), key=times.__getitem__, default=None)
        if worst is None:
            return cls(block, tuple(edges))
        return cls(block, tuple(edges), tuple(map(int, lazy[worst].chunksize)), times[worst], dimensions)

    @property
    def are_blocks(self) -> bool:
        """Whether every group is a single block."""
        return all(_longest(axis) <= b for axis, b in zip(self.edges, self.block, strict=True))

    def sort(self, blocks: Sequence[Index]) -> list[list[Index]]:
        """Sort blocks into their groups."""
        groups: dict[tuple[int, ...], list[Index]] = {}
        for block in blocks:
            starts = zip(self.edges, block, self.block, strict=True)
            groups.setdefault(tuple(bisect_right(axis, k * b) for axis, k, b in starts), []).append(block)
        return list(groups.values())

    def warning(self) -> str:
        """The warning that chunks are computed several times."""
        wanted = (*self.chunk[: -self.dimensions], *self.block[3 - self.dimensions :])
        return (
            f"each chunk of the image is computed up to {self.times:.1f} times: its chunks {self.chunk} do not match "
            f"the blocks {wanted} that are written; call image.rechunk({wanted}) before the computation, not after it, "
            "or compute the image once with image.to_zarr(path) and write zarr.open_array(path)"
        )


def _edges(array: Any, dimensions: int) -> list[tuple[int, ...]]:
    """Edges of the chunks of a dask array, along (z, y, x)."""
    spatial = [np.cumsum((0, *lengths)).tolist() for lengths in array.chunks[-dimensions:]]
    return [(0, 1)] * (3 - dimensions) + [tuple(dict.fromkeys(axis)) for axis in spatial]


def _bytes_between_uses(
    array: Any, dimensions: int, groups: Sequence[Sequence[int]], chunks: Sequence[Sequence[int]]
) -> int:
    """The most bytes of an array that are computed between two uses of a chunk by groups in their order."""
    voxel = int(np.dtype(array.dtype).itemsize * math.prod(array.shape[:-dimensions]))
    for axis, (ends, chunk_ends) in enumerate(zip(groups, chunks, strict=True)):
        if not set(ends) <= set(chunk_ends):  # a chunk crosses from one group into the next
            before = math.prod(map(_longest, groups[:axis]))
            after = math.prod(edges[-1] for edges in groups[axis + 1 :])
            return voxel * before * (_longest(ends) + _longest(chunk_ends)) * after
    return 0


def _longest(edges: Sequence[int]) -> int:
    return max(b - a for a, b in pairwise(edges))


def _touched(groups: Sequence[int], chunks: Sequence[int]) -> int:
    """Number of pairs of a group and a chunk that overlap along an axis."""
    return sum(bisect_right(chunks, stop - 1) - bisect_right(chunks, start) + 1 for start, stop in pairwise(groups))
