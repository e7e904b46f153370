"""Grid: a reference space at a resolution. Voxel centres, blocks, physical coordinates; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .spaces import ReferenceSpace

#: Half-open ranges of voxel indices along (z, y, x).
Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Grid:
    """Cubic voxels over a reference space, in arrays ordered (z, y, x) = (p, i, r).

    Voxel k covers [k s, (k + 1) s) um and is sampled at its centre, (k + 1/2) s.

    Attributes
    ----------
    space : ReferenceSpace
    resolution : float
        Voxel size s, in um.
    """

    space: ReferenceSpace
    resolution: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.resolution) and 0 < self.resolution <= min(self.space.extent)):
            raise InputError(
                f"resolution {self.resolution:g} um must be positive and at most {min(self.space.extent):g}, "
                f"the shortest side of reference space {self.space.id}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x): as many as cover the space."""
        z, y, x = (math.ceil(round(extent / self.resolution, 9)) for extent in self.space.extent)
        return z, y, x

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Reference-space coordinates of the voxel centres along an axis (0 p, 1 i, 2 r), in um."""
        return (np.arange(self.shape[axis], dtype=np.float64) + 0.5) * self.resolution

    def physical(self, axis: int) -> NDArray[np.float64]:
        """OME-Zarr coordinates of the voxel centres along an axis, in mm: (um - anchor/2) / 1000."""
        return (self.centres(axis) - self.space.anchor / 2) / 1000

    @property
    def to_reference(self) -> NDArray[np.float64]:
        """Affine from voxel indices (z, y, x) to (p, i, r) um of the voxel centres: float64, shape (3, 4)."""
        affine = np.zeros((3, 4))
        np.fill_diagonal(affine, self.resolution)
        affine[:, 3] = self.resolution / 2
        return affine


def shape_of(region: Region) -> tuple[int, int, int]:
    """How many voxels a region has along each axis."""
    z, y, x = (axis.stop - axis.start for axis in region)
    return z, y, x


def within(inner: Region, outer: Region) -> Region:
    """A region in voxels of one that it lies in."""
    z, y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return z, y, x


def blocks(shape: tuple[int, int, int], size: int) -> Iterator[tuple[tuple[int, int, int], Region]]:
    """The cubic blocks of an array, in C order: block index and region; those at the far ends may be smaller."""
    z, y, x = ([slice(start, min(start + size, n)) for start in range(0, n, size)] for n in shape)
    for (i, a), (j, b), (k, c) in product(enumerate(z), enumerate(y), enumerate(x)):
        yield (i, j, k), (a, b, c)
