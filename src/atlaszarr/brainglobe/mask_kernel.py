"""The inner loop of masks: labels to the indices of their structures."""

from __future__ import annotations

from typing import Any

from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def look_up(
    labels: NDArray[Any], known: NDArray[Any], position: NDArray[Any], indices: NDArray[Any], present: NDArray[Any]
) -> int:
    """Put the index of every voxel's structure into `indices`, where it is not 0, and mark it as present.

    Parameters
    ----------
    labels : ndarray, integers, shape (z, y, x)
    known : ndarray, uint64, ascending
        Identifiers.
    position : ndarray, integers
        The index of each.
    indices : ndarray, uint16, at least of the shape of `labels`
    present : ndarray, bool
        By index.

    Returns
    -------
    int
        A label that is not known, or 0.
    """
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
