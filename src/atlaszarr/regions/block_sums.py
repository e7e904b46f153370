"""Sum the values of an image by label in one block of voxels. Kernels over NumPy arrays; no I/O.

Labels come in long runs along x, so each run needs one look-up in a hash table, and the loops over its voxels have no
branches. The kernels are compiled from block_sums.cpp: one finds runs, the other adds their values.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..native.library import INT, KernelByDtype, as_read, read, written

_Array = NDArray[Any]
#: Labels that there is room for at first: a chunk of the Allen annotation holds at most 79.
_LABELS = 256
#: Runs that are found before their values are added: 400 kB, which a processor's cache holds.
_RUNS = 2**14
#: Columns of `BlockSums.counts`.
VOXELS, COVERED, EXPRESSION_COVERED, EXPRESSING, PAIRED, GREY = range(6)
COUNTS = 6

_find_runs = KernelByDtype(
    "block_sums_runs",
    lambda dtype: (
        *(read(dtype, 2), INT, INT, INT, written(dtype, 1), INT, written("i8", 1), INT),
        *(written("i8", 1), written("i8", 2), INT, written("i8", 1)),
    ),
)
_MASK = read("u1", 1)
_add_runs = KernelByDtype(
    "block_sums_add",
    lambda dtype: (
        *(read("i8", 2), INT, INT, read(dtype, 2), INT, _MASK, read("u1", 2), INT, _MASK, _MASK),
        *(written("i8", 3), written("i8", 3), written("f8" if dtype.kind == "f" else "u8", 4)),
    ),
)


class BlockSums(NamedTuple):
    """Sums of a block by label, without label 0, for each side of the midline: side 0 is the low one.

    Attributes
    ----------
    ids : ndarray, dtype of the labels, shape (n,)
        The labels, in any order.
    counts : ndarray, int64, shape (n, 2, 6)
        By side, in the order of the constants: all voxels; the covered ones; those that the expression view covers;
        the expressing ones; the expressing ones whose section is the same in both views, and whose channels are numbers
        below 2**63; the sum of the grey levels of these last: the sum of the channels, truncated to integers, or the
        rounded mean of three, as in `grey_of`.
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
    labels : ndarray, integers or bool, shape (z, y, x)
        0 is background, which is not summed.
    image : ndarray, uint8, uint16, float32 or float64, shape (c, z, y, x)
        Without channels (c = 0) voxels are counted and no values are summed. NaN is not a value.
    section : ndarray, integers or bool, shape (z, y, x)
        Voxels where it is not 0 are covered; values of others are not summed.
    expression : ndarray, numbers, shape (c, z, y, x), optional
        The expression view: a voxel expresses unless all its channels are 0.
    expression_section : ndarray, integers or bool, shape (z, y, x), optional
        The section of each voxel of `expression`.
    midline : int
        Number of columns along x before the midline; may be negative or larger than the block.

    Returns
    -------
    BlockSums
    """
    rows, columns = math.prod(labels.shape[:-1]), labels.shape[-1]
    size, before = rows * columns, min(max(int(midline), 0), columns)
    rows_of_labels, pictures = as_read(labels).reshape(rows, columns), as_read(image).reshape(len(image), size)
    covered = as_read(section != 0).reshape(size)
    if expression is None or expression_section is None:
        expressed, inside, same = np.empty((0, size), np.uint8), covered, covered
    else:
        shown = expression if expression.dtype == np.uint8 else expression != 0
        expressed = as_read(shown).reshape(len(expression), size)
        inside, same = (as_read(a).reshape(size) for a in (expression_section != 0, expression_section == section))
    moment = np.float64 if image.dtype.kind == "f" else np.uint64
    ids, counts = np.zeros(0, rows_of_labels.dtype), np.zeros((0, 2, COUNTS), np.int64)
    values, moments = np.zeros((0, 2, len(image)), np.int64), np.zeros((0, 2, len(image), 2), moment)
    ends, runs = np.empty(columns, np.int64), np.empty((max(_RUNS, columns), 3), np.int64)
    table = np.empty(0, np.int64)
    state = np.zeros(3, np.int64)  # the next row, the number of labels so far, and that of the runs of this turn
    while state[0] < rows:
        if state[1] + columns > len(ids):  # as many labels as a row may hold
            room = 2 * int(state[1]) + columns + _LABELS
            ids, counts, values, moments = (_grown(array, room) for array in (ids, counts, values, moments))
            table = np.empty(1 << (2 * room - 1).bit_length(), np.int64)
        _find_runs[ids.dtype](
            *(rows_of_labels, rows, columns, before, ids, len(ids), table, len(table), ends, runs, len(runs), state)
        )
        _add_runs[pictures.dtype](
            *(runs, state[2], size, pictures, len(pictures), covered, expressed, len(expressed), inside, same),
            *(counts, values, moments),
        )
    found = int(state[1])
    return BlockSums(ids[:found].copy(), counts[:found].copy(), values[:found].copy(), moments[:found].copy())


def _grown(array: _Array, length: int) -> _Array:
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)])
