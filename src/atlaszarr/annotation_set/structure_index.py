"""The indices of structures in post-order for the labels of an annotation, and the box of each structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .structure_order import MOST_STRUCTURES, PostOrder

#: The index for no structure; larger than all others.
NOTHING = MOST_STRUCTURES


def indices_of(
    labels: NDArray[Any], order: PostOrder, shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Look up the index of the structure of every voxel, and which indices occur.

    Parameters
    ----------
    labels : ndarray, integers, shape (z, y, x)
        0 for no structure, as is a label that `order` lacks.
    order : PostOrder
    shape : tuple of int
        Shape of the result, at least that of `labels`; the rest has no structure.

    Returns
    -------
    indices : ndarray, uint16, of that shape
        `NOTHING` for no structure. Structure ``i`` and its descendants have the indices from ``order.firsts[i]`` to
        ``i``.
    present : ndarray, bool, shape (len(order),)
        Whether each index occurs.
    """
    indices, present = np.full(shape, NOTHING, np.uint16), np.zeros(len(order), np.bool_)
    values = np.array(order.values, np.uint64)
    position = np.argsort(values)
    _look_up(np.ascontiguousarray(labels), values[position], position, indices, present)
    return indices, present


def within(indices: NDArray[np.uint16], order: PostOrder, index: int, out: NDArray[np.bool_] | None = None) -> Any:
    """The mask of a structure with its descendants: bool, of the shape of `indices`."""
    first = order.firsts[index]
    # In unsigned integers, an index before the first wraps around to a large one.
    return np.less_equal(indices - np.uint16(first), np.uint16(index - first), out=out)


@njit(cache=True, nogil=True)
def extents(indices: NDArray[Any], count: int) -> NDArray[Any]:
    """The number of voxels of each index, and the box that holds them.

    Parameters
    ----------
    indices : ndarray, uint16, shape (z, y, x)
    count : int
        Number of structures.

    Returns
    -------
    ndarray, int64, shape (count, 7)
        Number of voxels, the first position along z, y and x, and the last along z, y and x.
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
) -> None:
    """Write the indices of known labels, and mark them as present."""
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            last, index = labels.dtype.type(0), NOTHING
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
                    last, index = label, NOTHING
                    if low < known.size and known[low] == label:
                        index = position[low]
                        present[index] = True
                indices[z, y, x] = index
