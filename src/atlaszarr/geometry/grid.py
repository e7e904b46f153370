"""Grid: a reference space at a resolution. Voxel centres, blocks, physical coordinates; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
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


def split_index(index: Any, shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[Any, ...]]:
    """Split an index into the box of voxels that it takes from, and an index into that box.

    Parameters
    ----------
    index : int, slice, ellipsis, None, array_like of int or bool, or a tuple of them
        As NumPy takes it.
    shape : sequence of int
        Shape of the array that is indexed.

    Returns
    -------
    box : tuple of slice
        One for each axis, in steps of 1, with its ends.
    rest : tuple
        ``array[index]`` equals ``array[box][rest]``.

    Raises
    ------
    IndexError
        If the array has fewer axes, or is too short.
    """
    given = list(index) if isinstance(index, tuple) else [index]
    taken = [_axes_taken(one) for one in given]
    if sum(taken) > len(shape):
        raise IndexError(f"an index of {sum(taken)} axes is too long for an array of {len(shape)} axes")
    if sum(taken) < len(shape) and not any(one is Ellipsis for one in given):
        given, taken = [*given, Ellipsis], [*taken, 0]
    box: list[slice] = []
    rest: list[Any] = []
    for one, count in zip(given, taken, strict=True):
        lengths = shape[len(box) : len(box) + count]
        if one is Ellipsis:
            lengths = shape[len(box) : len(box) + len(shape) - sum(taken)]
        if one is None or one is Ellipsis or count > 1 or _is_bool(one):
            box += [slice(0, n) for n in lengths]
            rest.append(one)
        elif isinstance(one, slice):
            at = range(lengths[0])[one]
            first, last = (min(at), max(at) + 1) if at else (0, 0)
            box.append(slice(first, last))
            rest.append(slice(None, None, at.step))
        elif isinstance(one, Integral):
            at = range(lengths[0])[int(one) : int(one) + 1 or None]
            if not at:
                raise IndexError(f"index {one} is out of bounds for an axis of {lengths[0]} voxels")
            box.append(slice(at[0], at[0] + 1))
            rest.append(0)
        else:
            wanted = np.asarray(one, np.intp) if np.size(one) == 0 else np.asarray(one)
            wanted = np.where(wanted < 0, wanted + lengths[0], wanted)
            if wanted.size and not 0 <= wanted.min() <= wanted.max() < lengths[0]:
                raise IndexError(f"index {one} is out of bounds for an axis of {lengths[0]} voxels")
            first, last = (int(wanted.min()), int(wanted.max()) + 1) if wanted.size else (0, 0)
            box.append(slice(first, last))
            rest.append(wanted - first)
    return tuple(box), tuple(rest)


def _axes_taken(one: Any) -> int:
    if one is None or one is Ellipsis or isinstance(one, bool | np.bool_):
        return 0
    return np.ndim(one) if _is_bool(one) else 1


def _is_bool(one: Any) -> bool:
    return not isinstance(one, slice) and np.asarray(one).dtype == bool
