"""Count the voxels of each label in a block of integers.

Labels come in long runs along x, so each run needs one look-up in a hash table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..native.library import BOOL, INT, KernelByDtype, as_read, read, written

_Array = NDArray[Any]
#: Binary logarithm of the initial size of the table: a chunk of the Allen annotation holds at most 79 labels.
_BITS = 8

_count = KernelByDtype(
    "label_counts",
    lambda dtype: (
        *(read(dtype, 2), INT, INT, INT, written("i8", 1)),
        *(written(dtype, 1), written("i8", 2), INT, written("i8", 1)),
    ),
    result=BOOL,
)


class LabelCounts(NamedTuple):
    """The labels of a block, including 0, and the number of their voxels.

    Attributes
    ----------
    ids : ndarray, dtype of the block, shape (n,)
        The labels, ascending.
    voxels : ndarray, int64, shape (n,)
        Voxels of each label.
    low : ndarray, int64, shape (n,)
        Voxels of each label before the midline along x.
    """

    ids: _Array
    voxels: NDArray[np.int64]
    low: NDArray[np.int64]


def count_labels(block: _Array, midline: int = 0) -> LabelCounts:
    """Count the voxels of every label in a block.

    Parameters
    ----------
    block : ndarray, integers or bool, shape (..., x)
        Copied unless C-contiguous.
    midline : int
        Number of columns along x before the midline; may be negative or larger than the block.

    Returns
    -------
    LabelCounts

    Raises
    ------
    InputError
        If the block is not an array of integers with at least one axis.
    """
    if block.dtype.kind not in "iub" or not block.ndim:
        raise InputError(
            f"a block of {block.dtype} and shape {block.shape} holds no labels; labels are integers", code="not-labels"
        )
    rows = as_read(block).reshape(math.prod(block.shape[:-1]), block.shape[-1])
    native = rows.dtype
    height, width = rows.shape
    ends, at = np.empty(width, np.int64), np.zeros(2, np.int64)
    parts, slots, done = [], 1 << _BITS, False
    while not done:  # a full table is put aside, and the next one is twice as large
        labels, counts = np.zeros(slots, native), np.zeros((slots, 2), np.int64)
        done = _count[native](rows, height, width, min(max(int(midline), 0), width), ends, labels, counts, slots, at)
        low, high = counts.T
        used = np.flatnonzero(low + high)
        used = used[np.argsort(labels[used])]
        ids = labels[used].astype(block.dtype.newbyteorder("="), copy=False)
        parts.append(LabelCounts(ids, low[used] + high[used], low[used]))
        slots *= 2
    return merged(parts) if len(parts) > 1 else parts[0]


def distinct(labels: NDArray[Any]) -> NDArray[Any]:
    """The labels that occur, sorted, without 0."""
    flat = labels.ravel(order="K")
    # Labels come in runs: sorting the first voxel of each is enough.
    begins = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    unique = np.unique(np.concatenate([flat[:1], flat[begins]]))
    without_zero: NDArray[Any] = unique[unique != 0]
    return without_zero


def merged(parts: Sequence[LabelCounts]) -> LabelCounts:
    """The sum of the counts of several blocks."""
    if not parts:
        return LabelCounts(*(np.empty(0, np.int64) for _ in range(3)))
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    starts = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))[: ids.size]
    voxels, low = (
        np.add.reduceat(np.concatenate([part[column] for part in parts])[order], starts) if ids.size else ids
        for column in (1, 2)
    )
    return LabelCounts(ids[starts], voxels.astype(np.int64, copy=False), low.astype(np.int64, copy=False))
