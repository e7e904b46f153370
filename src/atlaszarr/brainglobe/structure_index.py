"""Labels to the indices of their structures in post-order, and where each structure lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..errors import InputError
from .structure_order import PostOrder

#: The index of no structure; larger than that of any.
NOTHING = 2**16 - 1


def indices_of(
    labels: NDArray[Any], order: PostOrder, shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """The index of every voxel's structure, and which of the indices occur.

    Parameters
    ----------
    labels : ndarray, integers, shape (z, y, x)
        0 where no structure is.
    order : PostOrder
    shape : tuple of int
        Of the result, at least that of `labels`; nothing is beyond them.

    Returns
    -------
    indices : ndarray, uint16, of that shape
        `NOTHING` where no structure is. A structure with its descendants is where the index is from
        ``order.firsts[i]`` to ``i``.
    present : ndarray, bool, by index

    Raises
    ------
    InputError
        If a label is of no structure, or there are more structures than indices.
    """
    if len(order) >= NOTHING:
        raise InputError(f"{len(order)} structures are too many; the most is {NOTHING - 1}")
    indices, present = np.full(shape, NOTHING, np.uint16), np.zeros(len(order), np.bool_)
    identifiers = np.array(order.identifiers, np.uint64)
    position = np.argsort(identifiers)
    unknown = _look_up(np.ascontiguousarray(labels), identifiers[position], position, indices, present)
    if unknown:
        raise InputError(f"the annotation has the label {unknown}, which no structure of the terminology has")
    return indices, present


def within(indices: NDArray[np.uint16], order: PostOrder, index: int, out: NDArray[np.bool_] | None = None) -> Any:
    """Where a structure or one below it is: bool, of the shape of `indices`."""
    first = order.firsts[index]
    # Unsigned, so that what lies before the first wraps around and is far too large.
    return np.less_equal(indices - np.uint16(first), np.uint16(index - first), out=out)


@njit(cache=True, nogil=True)
def extents(indices: NDArray[Any], count: int) -> NDArray[Any]:
    """Where each index lies.

    Parameters
    ----------
    indices : ndarray, uint16, shape (z, y, x)
    count : int
        Of structures.

    Returns
    -------
    ndarray, int64, shape (count, 7)
        Voxels, the first along z, y and x, and the last along them.
    """
    found = np.zeros((count, 7), np.int64)
    found[:, 1:4] = 2**62
    found[:, 4:] = -1
    for z in range(indices.shape[0]):
        for y in range(indices.shape[1]):
            for x in range(indices.shape[2]):
                index = indices[z, y, x]
                if index == NOTHING:
                    continue
                row = found[index]
                row[0] += 1
                row[1], row[4] = min(row[1], z), max(row[4], z)
                row[2], row[5] = min(row[2], y), max(row[5], y)
                row[3], row[6] = min(row[3], x), max(row[6], x)
    return found


@njit(cache=True, nogil=True)
def _look_up(
    labels: NDArray[Any], known: NDArray[Any], position: NDArray[Any], indices: NDArray[Any], present: NDArray[Any]
) -> int:
    """Puts indices where labels are not 0, and marks them as present; gives a label that is not known, or 0."""
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            last, index = labels.dtype.type(0), 0
            for x in range(nx):
                label = labels[z, y, x]
                if label == 0:
                    continue
                if label != last:
                    low, high = 0, known.size
                    while low < high:
                        middle = (low + high) // 2
                        if known[middle] < label:
                            low = middle + 1
                        else:
                            high = middle
                    if low == known.size or known[low] != label:
                        return int(label)
                    last, index = label, position[low]
                    present[index] = True
                indices[z, y, x] = index
    return 0
