"""Count the voxels of each label in a block of integers.

Labels come in long runs along x, so each run needs one look-up in a hash table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..errors import InputError

_Array = NDArray[Any]
#: 2**64 divided by the golden ratio, odd: spreads neighbouring labels over the table (Knuth, TAOCP 3, 6.4).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
#: Binary logarithm of the initial size of the table: a chunk of the Allen annotation holds at most 79 labels.
_BITS = 8


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
    native = np.dtype("u1") if block.dtype == bool else block.dtype.newbyteorder("=")
    rows = np.ascontiguousarray(block, native).reshape(math.prod(block.shape[:-1]), block.shape[-1]).view()
    rows.flags.writeable = False  # so that one kernel is compiled per dtype, not two
    ids, counts = _counted(rows, min(max(int(midline), 0), rows.shape[1]))
    order = np.argsort(ids)
    low = counts[order, 0]
    return LabelCounts(ids[order].astype(block.dtype.newbyteorder("="), copy=False), low + counts[order, 1], low)


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


@njit(cache=True, nogil=True)
def _counted(rows: _Array, midline: int) -> tuple[_Array, _Array]:
    """Labels in any order, and their counts before and after the midline, shape (n, 2)."""
    labels, counts = np.zeros(1 << _BITS, rows.dtype), np.zeros((1 << _BITS, 2), np.int64)
    ends, held = np.empty(rows.shape[1], np.int64), 0
    for side in range(2):
        columns = rows.shape[1] - midline if side else midline
        for y in range(rows.shape[0] if columns else 0):
            row, before = rows[y, midline:] if side else rows[y, :midline], 0
            # First find the runs, then look them up: a single loop takes three times as long.
            for run in range(runs_of(row, ends)):
                label = row[before]
                slot = _slot(labels, counts, label)
                if counts[slot, 0] + counts[slot, 1] == 0:
                    held += 1
                    if 2 * held > len(labels):
                        labels, counts = _doubled(labels, counts)
                        slot = _slot(labels, counts, label)
                    labels[slot] = label
                counts[slot, side] += ends[run] - before
                before = ends[run]
    used = counts[:, 0] + counts[:, 1] > 0
    return labels[used], counts[used]


@njit(cache=True, nogil=True)
def runs_of(row: _Array, ends: _Array) -> int:
    """Write the end of each run of one label in a row that is not empty; return the number of runs."""
    runs = 0
    for x in range(1, len(row)):
        ends[runs] = x  # without a branch, which would be mispredicted at most ends
        runs += row[x] != row[x - 1]
    ends[runs] = len(row)
    return runs + 1


@njit(cache=True, nogil=True)
def _slot(labels: _Array, counts: _Array, label: Any) -> Any:
    """The slot of a label in the table, or the free slot for it."""
    last = len(labels) - 1
    slot = np.int64((np.uint64(label) * _SPREAD) >> np.uint64(32)) & last
    while labels[slot] != label and counts[slot, 0] + counts[slot, 1] > 0:
        slot = (slot + 1) & last
    return slot


@njit(cache=True, nogil=True)
def _doubled(labels: _Array, counts: _Array) -> tuple[_Array, _Array]:
    """Copy the table into one with twice the slots."""
    more, sums = np.zeros(2 * len(labels), labels.dtype), np.zeros((2 * len(labels), 2), np.int64)
    for old in range(len(labels)):
        if counts[old, 0] + counts[old, 1] > 0:
            slot = _slot(more, sums, labels[old])
            more[slot], sums[slot] = labels[old], counts[old]
    return more, sums
