"""The indices of structures in post-order for the labels of an annotation, and the box of each structure.

The kernels are compiled from structure_index.cpp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..native.library import INT, KernelByDtype, as_read, kernel, read, written
from .structure_order import MOST_STRUCTURES, PostOrder

#: The index for no structure; larger than all others.
NOTHING = MOST_STRUCTURES

_look_up = KernelByDtype(
    "structure_index_look_up",
    lambda dtype: (read(dtype, 3), INT, read("u8", 1), read("u2", 1), INT, written("u2", 3), written("?", 1)),
)
_extents = kernel("structure_index_extents", read("u2", 3), INT, INT, INT, INT, written("i8", 2))


def indices_of(labels: NDArray[Any], order: PostOrder) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Look up the index of the structure of every voxel, and which indices occur.

    Parameters
    ----------
    labels : ndarray, integers or bool, shape (z, y, x)
        0 for no structure, as is a label that `order` lacks.
    order : PostOrder

    Returns
    -------
    indices : ndarray, uint16, shape (z, y, x)
        `NOTHING` for no structure. Structure ``i`` and its descendants have the indices from ``order.firsts[i]`` to
        ``i``.
    present : ndarray, bool, shape (len(order),)
        Whether each index occurs.
    """
    native = as_read(labels)
    indices, present = np.empty(labels.shape, np.uint16), np.zeros(len(order), np.bool_)
    values = np.array(order.values, np.uint64)
    position = np.argsort(values)
    sorted_values, of_values = values[position], position.astype(np.uint16)
    _look_up[native.dtype](native, native.size, sorted_values, of_values, len(order), indices, present)
    return indices, present


def within(indices: NDArray[np.uint16], order: PostOrder, index: int, out: NDArray[np.bool_] | None = None) -> Any:
    """The mask of a structure with its descendants: bool, of the shape of `indices`."""
    first = order.firsts[index]
    # In unsigned integers, an index before the first wraps around to a large one.
    return np.less_equal(indices - np.uint16(first), np.uint16(index - first), out=out)


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
    _extents(indices, *indices.shape, count, found)
    return found
