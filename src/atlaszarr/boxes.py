"""Boxes: of the pixels of an image, and of the voxels of an array along (z, y, x). NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from numbers import Integral
from typing import Any, overload

import numpy as np

#: Half-open: left, top, right, bottom.
Box = tuple[int, int, int, int]
#: Half-open ranges of voxel indices along (z, y, x).
Region = tuple[slice, slice, slice]
#: The position of a block or an object along (z, y, x).
Index = tuple[int, int, int]
#: Lengths along (z, y, x).
Shape = tuple[int, int, int]


def area(box: Box) -> int:
    """How many pixels a box has."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def shape_of(region: Region) -> tuple[int, int, int]:
    """How many voxels a region has along each axis."""
    z, y, x = (axis.stop - axis.start for axis in region)
    return z, y, x


@overload
def within(inner: Region, outer: Sequence[slice]) -> Region: ...
@overload
def within(inner: Sequence[slice], outer: Sequence[slice]) -> tuple[slice, ...]: ...
def within(inner: Sequence[slice], outer: Sequence[slice]) -> tuple[slice, ...]:
    """A region in voxels of one that it lies in, of any number of axes."""
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))


def intersection(one: Sequence[slice], other: Sequence[slice]) -> tuple[slice, ...]:
    """The voxels that are in two regions of any number of axes, which have some in common."""
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))


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


@overload
def cells(region: Region, size: Shape) -> Iterator[Index]: ...
@overload
def cells(region: Sequence[slice], size: Sequence[int]) -> Iterator[tuple[int, ...]]: ...
def cells(region: Sequence[slice], size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The cells of a regular grid that a region touches, of any number of axes."""
    return product(*(range(axis.start // n, -(-axis.stop // n)) for axis, n in zip(region, size, strict=True)))


def everywhere(shape: Shape) -> Region:
    """The region of all voxels."""
    z, y, x = (slice(0, n) for n in shape)
    return z, y, x
