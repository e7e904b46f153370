"""Pyramid levels: their geometry, and how a voxel comes from the eight of the level below. Serves any image.

Every level halves the one before. A chunk of a level covers exactly 2 x 2 x 2 chunks of its parent, so that
whoever holds those can make it whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .errors import InputError
from .grid import Region

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Pyramid:
    """The levels of a three-dimensional image in cubic chunks.

    Attributes
    ----------
    shape : tuple of int
        Voxels of level 0 along (z, y, x).
    levels : int
        How many, level 0 included.
    chunk : int
        Side of a chunk in voxels, the same at every level.
    """

    shape: tuple[int, int, int]
    levels: int
    chunk: int

    @classmethod
    def over(cls, shape: tuple[int, int, int], chunk: int, levels: int | None = None) -> Pyramid:
        """A pyramid whose last level fits into one chunk, unless a number of levels is given.

        Raises
        ------
        InputError
            If the chunk is too small, or there are fewer voxels than levels.
        """
        if chunk < 8 or chunk > 1024:
            raise InputError(f"chunk {chunk} must be between 8 and 1024 voxels")
        longest, fitting = max(shape), 1
        while -(-longest // 2 ** (fitting - 1)) > chunk:
            fitting += 1
        most = longest.bit_length()
        if levels is not None and not 1 <= levels <= most:
            raise InputError(f"levels {levels} must be between 1 and {most} for {' x '.join(map(str, shape))} voxels")
        return cls(shape, levels or fitting, chunk)

    def level_shape(self, level: int) -> tuple[int, int, int]:
        """Voxels of a level along (z, y, x)."""
        z, y, x = (-(-n // 2**level) for n in self.shape)
        return z, y, x

    def chunks(self, level: int) -> tuple[int, int, int]:
        """Chunks of a level along (z, y, x)."""
        z, y, x = (-(-n // self.chunk) for n in self.level_shape(level))
        return z, y, x

    def region(self, level: int, index: Index, chunks: int = 1) -> Region:
        """Voxels of the `index`-th cube of ``chunks ** 3`` chunks of a level."""
        size = self.chunk * chunks
        shape = self.level_shape(level)
        z, y, x = (slice(i * size, min((i + 1) * size, n)) for i, n in zip(index, shape, strict=True))
        return z, y, x


@dataclass(frozen=True)
class Occupancy:
    """Which chunks of a pyramid hold anything: the others are empty by geometry and are not written.

    Attributes
    ----------
    pyramid : Pyramid
    base : frozenset of tuple of int
        Chunk indices of level 0 that hold something.
    """

    pyramid: Pyramid
    base: frozenset[Index]

    @cached_property
    def levels(self) -> tuple[frozenset[Index], ...]:
        """Chunk indices that hold something, for every level: a chunk does if one of its eight parents' does."""
        levels = [self.base]
        while len(levels) < self.pyramid.levels:
            levels.append(frozenset(parents(levels[-1])))
        return tuple(levels)

    @property
    def chunks(self) -> int:
        """How many chunks hold something, over all levels."""
        return sum(map(len, self.levels))


def parents(chunks: Iterable[Index]) -> set[Index]:
    """The cubes of 2 x 2 x 2 chunks, or the chunks of the next level, that given chunks lie in."""
    return {(z // 2, y // 2, x // 2) for z, y, x in chunks}


def children(index: Index) -> list[Index]:
    """The up to eight chunks of the level below that make a chunk."""
    z, y, x = (2 * i for i in index)
    return [(z + i, y + j, x + k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]


def coarsen(
    image: NDArray[np.uint8], label: NDArray[np.uint32], background: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Halve an image together with the label that says where it is covered.

    Parameters
    ----------
    image : ndarray, unsigned integers, shape (c, z, y, x)
    label : ndarray, uint32, shape (z, y, x)
        0 where the image is not covered.
    background : int
        Value of the image where no voxel of the eight is covered.

    Returns
    -------
    image : ndarray, shape (c, ceil(z/2), ceil(y/2), ceil(x/2))
        Mean over the covered voxels, exact, rounded half to even.
    label : ndarray, uint32, shape (ceil(z/2), ceil(y/2), ceil(x/2))
        The most frequent label other than 0, of several the smallest; 0 only where no voxel is covered, so that
        at every level it is 0 exactly where the image is background.

    Notes
    -----
    This is the rule for the provenance of an image. Anatomical labels vote on foreground first.
    """
    shape = tuple(-(-n // 2) for n in label.shape)
    coarse_image = np.empty((image.shape[0], *shape), image.dtype)
    coarse_label = np.empty(shape, label.dtype)
    _coarsen(image, label, background, coarse_image, coarse_label)
    return coarse_image, coarse_label


@njit(cache=True, nogil=True)
def _coarsen(
    image: NDArray[Any], label: NDArray[Any], background: int, coarse_image: NDArray[Any], coarse_label: NDArray[Any]
) -> None:
    nz, ny, nx = label.shape
    channels = image.shape[0]
    total = np.empty(channels, np.int64)
    found = np.empty(8, label.dtype)
    for z in range(coarse_label.shape[0]):
        for y in range(coarse_label.shape[1]):
            for x in range(coarse_label.shape[2]):
                n = 0
                total[:] = 0
                for i in range(2 * z, min(2 * z + 2, nz)):
                    for j in range(2 * y, min(2 * y + 2, ny)):
                        for k in range(2 * x, min(2 * x + 2, nx)):
                            if label[i, j, k] != 0:
                                found[n] = label[i, j, k]
                                n += 1
                                for c in range(channels):
                                    total[c] += image[c, i, j, k]
                if n == 0:
                    coarse_label[z, y, x] = 0
                    for c in range(channels):
                        coarse_image[c, z, y, x] = background
                    continue
                coarse_label[z, y, x] = _most_frequent(found, n)
                for c in range(channels):
                    quotient, rest = total[c] // n, total[c] % n
                    if 2 * rest > n or (2 * rest == n and quotient % 2 == 1):
                        quotient += 1
                    coarse_image[c, z, y, x] = quotient


@njit(cache=True, nogil=True)
def _most_frequent(values: NDArray[Any], n: int) -> Any:
    best, most = values[0], 0
    for i in range(n):
        count = 0
        for j in range(n):
            if values[j] == values[i]:
                count += 1
        if count > most or (count == most and values[i] < best):
            best, most = values[i], count
    return best
