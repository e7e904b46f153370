"""Sum the values of an image by label in one block of voxels. Compiled kernels over NumPy arrays; no I/O.

Labels come in long runs along x, so each run needs one look-up in a hash table, and the loops over its voxels have no
branches.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..engine.label_counts import runs_of

_Array = NDArray[Any]
#: As in `atlaszarr.engine.label_counts`: spreads neighbouring labels over the table.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
#: Binary logarithm of the initial size of the table: a chunk of the Allen annotation holds at most 79 labels.
_BITS = 8
#: Columns of `BlockSums.counts`.
VOXELS, COVERED, EXPRESSION_COVERED, EXPRESSING, PAIRED, GREY = range(6)
COUNTS = 6


class BlockSums(NamedTuple):
    """Sums of a block by label, without label 0, for each side of the midline: side 0 is the low one.

    Attributes
    ----------
    ids : ndarray, dtype of the labels, shape (n,)
        The labels, in any order.
    counts : ndarray, int64, shape (n, 2, 6)
        By side, in the order of the constants: all voxels; the covered ones; those that the expression view covers;
        the expressing ones; the expressing ones whose section is the same in both views; the sum of the grey levels of
        these last.
    values : ndarray, int64, shape (n, 2, channels)
        By side and channel: the voxels with a value.
    moments : ndarray, shape (n, 2, channels, 2)
        Of integers: uint64, the sum of the values and of their squares. Of floating point: float64, their mean and the
        sum of the squared deviations from it; as in NumPy, an infinite value makes them infinite or NaN, and NaN.
    """

    ids: _Array
    counts: NDArray[np.int64]
    values: NDArray[np.int64]
    moments: _Array


def sum_block(
    labels: _Array,
    image: _Array,
    section: _Array,
    expression: _Array | None,
    expression_section: _Array | None,
    midline: int,
) -> BlockSums:
    """Sum the values of a block by label.

    Parameters
    ----------
    labels : ndarray, integers, shape (z, y, x)
        0 is background, which is not summed.
    image : ndarray, uint8, uint16, float32 or float64, shape (c, z, y, x)
        Without channels (c = 0) voxels are counted and no values are summed. NaN is not a value.
    section : ndarray, integers or bool, shape (z, y, x)
        Voxels where it is not 0 are covered; values of others are not summed.
    expression : ndarray, uint8, shape (c, z, y, x), optional
        The expression view: a voxel expresses unless all its channels are 0.
    expression_section : ndarray, integers or bool, shape (z, y, x), optional
        The section of each voxel of `expression`.
    midline : int
        Number of columns along x before the midline; may be negative or larger than the block.

    Returns
    -------
    BlockSums
    """
    shape = (math.prod(labels.shape[:-1]), labels.shape[-1])

    def rows(array: _Array) -> _Array:
        native = np.uint8 if array.dtype == bool else array.dtype.newbyteorder("=")
        flat = np.ascontiguousarray(array, native).reshape(*array.shape[:-3], *shape).view()
        flat.flags.writeable = False  # so that one kernel is compiled per dtype, not two
        return flat

    before = min(max(int(midline), 0), shape[1])
    pictures, sections = rows(image), rows(section)
    if expression is None or expression_section is None:
        expressed, expressed_sections = rows(np.empty((0, *labels.shape), np.uint8)), sections
    else:
        expressed, expressed_sections = rows(expression), rows(expression_section)
    ids, counts, runs = _counted(rows(labels), sections, expressed, expressed_sections, pictures, before)
    moments_of = _float_moments if image.dtype.kind == "f" else _integer_moments
    values, moments = moments_of(runs, len(ids), sections, pictures)
    return BlockSums(ids, counts, values, moments)


@njit(cache=True, nogil=True)
def _counted(
    labels: _Array, sections: _Array, expressed: _Array, expressed_sections: _Array, pictures: _Array, midline: int
) -> tuple[_Array, _Array, _Array]:
    """The labels other than 0, `BlockSums.counts`, and for each run its row, start, stop, and 2 * label index + side.

    `expressed` has no channels without an expression view.
    """
    rows, columns = labels.shape
    table, held = np.full(1 << _BITS, -1, np.int64), 0
    ids, counts = np.zeros(1 << _BITS, labels.dtype), np.zeros((2 << _BITS, COUNTS), np.int64)
    ends, runs, found = np.empty(columns, np.int64), np.empty((rows + 1, 4), np.int64), 0
    for side in range(2):
        first, stop = (midline, columns) if side else (0, midline)
        for y in range(rows if stop > first else 0):
            row, start = labels[y, first:stop], 0
            for run in range(runs_of(row, ends)):
                label, begin, end = row[start], first + start, first + ends[run]
                start = ends[run]
                if label == 0:
                    continue
                slot = _slot(table, ids, label)
                if table[slot] < 0:
                    if 2 * (held + 1) > len(table):
                        table, ids, counts = _doubled(table, ids, counts, held)
                        slot = _slot(table, ids, label)
                    table[slot], ids[held] = held, label
                    held += 1
                at = 2 * table[slot] + side
                counts[at, VOXELS] += end - begin
                counts[at, COVERED] += _covered(sections[y, begin:end])
                if len(expressed):
                    _count_expression(
                        expressed[:, y, begin:end],
                        expressed_sections[y, begin:end],
                        sections[y, begin:end],
                        pictures[:, y, begin:end],
                        counts[at],
                    )
                if found == len(runs):
                    more = np.empty((2 * found, 4), np.int64)
                    more[:found] = runs
                    runs = more
                runs[found, 0], runs[found, 1], runs[found, 2], runs[found, 3] = y, begin, end, at
                found += 1
    return ids[:held].copy(), counts[: 2 * held].copy().reshape(held, 2, COUNTS), runs[:found]


@njit(cache=True, nogil=True)
def _slot(table: _Array, ids: _Array, label: Any) -> Any:
    """The slot of a label in the table of indices, or the free slot (-1) for it."""
    last = len(table) - 1
    slot = np.int64((np.uint64(label) * _SPREAD) >> np.uint64(32)) & last
    while table[slot] >= 0 and ids[table[slot]] != label:
        slot = (slot + 1) & last
    return slot


@njit(cache=True, nogil=True)
def _doubled(table: _Array, ids: _Array, counts: _Array, held: int) -> tuple[_Array, _Array, _Array]:
    """Copy the table, the labels and the counts into arrays of twice the length."""
    slots, labels = np.full(2 * len(table), -1, np.int64), np.zeros(2 * len(ids), ids.dtype)
    sums = np.zeros((2 * len(counts), COUNTS), np.int64)
    labels[:held], sums[: 2 * held] = ids[:held], counts[: 2 * held]
    for index in range(held):
        slots[_slot(slots, labels, labels[index])] = index
    return slots, labels, sums


@njit(cache=True, nogil=True)
def _covered(sections: _Array) -> int:
    covered = 0
    for x in range(len(sections)):
        covered += sections[x] != 0
    return covered


@njit(cache=True, nogil=True)
def _count_expression(
    expressed: _Array, expressed_sections: _Array, sections: _Array, pictures: _Array, counts: _Array
) -> None:
    """Count a run in the expression view; the grey level is the rounded mean of the channels, as in `grey_of`."""
    covered = expressing = paired = total = 0
    channels = len(pictures)
    for x in range(len(sections)):
        any_channel = 0
        for c in range(len(expressed)):
            any_channel |= int(expressed[c, x])
        inside = expressed_sections[x] != 0
        expresses = inside & (any_channel != 0)
        both = expresses & (expressed_sections[x] == sections[x])
        level = 0
        for c in range(channels):
            level += int(pictures[c, x])
        if channels == 3:
            level = (level + 1) // 3
        covered += inside
        expressing += expresses
        paired += both
        total += level if both else 0
    counts[EXPRESSION_COVERED] += covered
    counts[EXPRESSING] += expressing
    counts[PAIRED] += paired
    counts[GREY] += total


@njit(cache=True, nogil=True)
def _integer_moments(runs: _Array, labels: int, sections: _Array, pictures: _Array) -> tuple[_Array, _Array]:
    """Sums and sums of squares: at most 2**24 voxels of 16 bits, whose squares add up to less than 2**56."""
    channels = len(pictures)
    values, moments = np.zeros((2 * labels, channels), np.int64), np.zeros((2 * labels, channels, 2), np.uint64)
    for run in range(len(runs)):
        y, begin, end, at = runs[run]
        inside = sections[y, begin:end]
        covered = _covered(inside)
        if covered == 0:
            continue
        for c in range(channels):
            row, total, squares = pictures[c, y, begin:end], np.uint64(0), np.uint64(0)
            for x in range(len(row)):
                value = np.uint64(row[x]) if inside[x] != 0 else np.uint64(0)
                total += value
                squares += value * value
            values[at, c] += covered
            moments[at, c, 0] += total
            moments[at, c, 1] += squares
    return values.reshape(labels, 2, channels), moments.reshape(labels, 2, channels, 2)


@njit(cache=True, nogil=True)
def _float_moments(runs: _Array, labels: int, sections: _Array, pictures: _Array) -> tuple[_Array, _Array]:
    """Means and sums of squared deviations, run by run, combined by the formula of Chan, Golub and LeVeque (1979)."""
    channels = len(pictures)
    values, moments = np.zeros((2 * labels, channels), np.int64), np.zeros((2 * labels, channels, 2))
    for run in range(len(runs)):
        y, begin, end, at = runs[run]
        inside = sections[y, begin:end]
        for c in range(channels):
            row, count, total = pictures[c, y, begin:end], 0, 0.0
            for x in range(len(row)):
                if inside[x] != 0 and row[x] == row[x]:
                    count += 1
                    total += row[x]
            if count == 0:
                continue
            mean, deviations = total / count, 0.0
            for x in range(len(row)):
                if inside[x] != 0 and row[x] == row[x]:
                    deviations += (row[x] - mean) ** 2
            before = values[at, c]
            both, step = before + count, mean - moments[at, c, 0]
            if math.isfinite(step):
                moments[at, c, 0] += step * count / both
                moments[at, c, 1] += deviations + step * step * before * count / both
            else:
                moments[at, c, 0] += mean
                moments[at, c, 1] = np.nan
            values[at, c] = both
    return values.reshape(labels, 2, channels), moments.reshape(labels, 2, channels, 2)
