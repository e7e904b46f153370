"""Boxes of pixels in an image, and regions of voxels in an array along (z, y, x). NumPy only."""

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
#: Position of a block or an object in its grid along (z, y, x).
Index = tuple[int, int, int]
#: Lengths along (z, y, x).
Shape = tuple[int, int, int]


def area(box: Box) -> int:
    """The number of pixels in a box."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def shape_of(region: Region) -> tuple[int, int, int]:
    """The number of voxels in a region along each axis."""
    z, y, x = (axis.stop - axis.start for axis in region)
    return z, y, x


@overload
def within(inner: Region, outer: Sequence[slice]) -> Region: ...
@overload
def within(inner: Sequence[slice], outer: Sequence[slice]) -> tuple[slice, ...]: ...
def within(inner: Sequence[slice], outer: Sequence[slice]) -> tuple[slice, ...]:
    """The region `inner` relative to the start of the region `outer`, which contains it; any number of axes."""
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))


def intersection(first: Sequence[slice], second: Sequence[slice]) -> tuple[slice, ...]:
    """The voxels that two overlapping regions have in common; any number of axes."""
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def blocks(shape: tuple[int, int, int], size: int) -> Iterator[tuple[tuple[int, int, int], Region]]:
    """The cubic blocks of an array in C order, as index and region; the last ones along an axis may be smaller."""
    z, y, x = ([slice(start, min(start + size, n)) for start in range(0, n, size)] for n in shape)
    for (i, a), (j, b), (k, c) in product(enumerate(z), enumerate(y), enumerate(x)):
        yield (i, j, k), (a, b, c)


def split_index(index: Any, shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[Any, ...]]:
    """Split an index into the box of voxels that it selects from, and an index into that box.

    Parameters
    ----------
    index : int, slice, ellipsis, None, array_like of int or bool, or a tuple of them
        An index of a NumPy array.
    shape : sequence of int
        Shape of the indexed array.

    Returns
    -------
    box : tuple of slice
        One for each axis, with start and stop and a step of 1.
    rest : tuple
        ``array[index]`` equals ``array[box][rest]``.

    Raises
    ------
    IndexError
        If the array has fewer axes, or an index is out of bounds.
    """
    given = list(index) if isinstance(index, tuple) else [index]
    taken = [_axes_taken(item) for item in given]
    if sum(taken) > len(shape):
        raise IndexError(f"an index of {sum(taken)} axes is too long for an array of {len(shape)} axes")
    if sum(taken) < len(shape) and not any(item is Ellipsis for item in given):
        given, taken = [*given, Ellipsis], [*taken, 0]
    box: list[slice] = []
    rest: list[Any] = []
    for item, count in zip(given, taken, strict=True):
        lengths = shape[len(box) : len(box) + count]
        if item is Ellipsis:
            lengths = shape[len(box) : len(box) + len(shape) - sum(taken)]
        if item is None or item is Ellipsis or count > 1 or _is_bool(item):
            box += [slice(0, n) for n in lengths]
            rest.append(item)
        elif isinstance(item, slice):
            at = range(lengths[0])[item]
            first, last = (min(at), max(at) + 1) if at else (0, 0)
            box.append(slice(first, last))
            rest.append(slice(None, None, at.step))
        elif isinstance(item, Integral):
            at = range(lengths[0])[int(item) : int(item) + 1 or None]
            if not at:
                raise IndexError(f"index {item} is out of bounds for an axis of {lengths[0]} voxels")
            box.append(slice(at[0], at[0] + 1))
            rest.append(0)
        else:
            wanted = np.asarray(item, np.intp) if np.size(item) == 0 else np.asarray(item)
            wanted = np.where(wanted < 0, wanted + lengths[0], wanted)
            if wanted.size and not 0 <= wanted.min() <= wanted.max() < lengths[0]:
                raise IndexError(f"index {item} is out of bounds for an axis of {lengths[0]} voxels")
            first, last = (int(wanted.min()), int(wanted.max()) + 1) if wanted.size else (0, 0)
            box.append(slice(first, last))
            rest.append(wanted - first)
    return tuple(box), tuple(rest)


def _axes_taken(item: Any) -> int:
    if item is None or item is Ellipsis or isinstance(item, bool | np.bool_):
        return 0
    return np.ndim(item) if _is_bool(item) else 1


def _is_bool(item: Any) -> bool:
    return not isinstance(item, slice) and np.asarray(item).dtype == bool


@overload
def cells(region: Region, size: Shape) -> Iterator[Index]: ...
@overload
def cells(region: Sequence[slice], size: Sequence[int]) -> Iterator[tuple[int, ...]]: ...
def cells(region: Sequence[slice], size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The cells of a regular grid that overlap a region; any number of axes."""
    return product(*(range(axis.start // n, -(-axis.stop // n)) for axis, n in zip(region, size, strict=True)))


def everywhere(shape: Shape) -> Region:
    """The region of all voxels of an array."""
    z, y, x = (slice(0, n) for n in shape)
    return z, y, x
