"""Downsample: compute a level of a pyramid from its parent. For any image.

Along an axis a level is coarser than its parent by a factor p/q: its voxel k, the footprint, covers
[k p/q, (k + 1) p/q) of the parent, cut at the end of the parent. In units of 1/q all edges and overlaps are integers.
The product of the overlaps along the three axes is the weight of a voxel of the parent in all rules.
"""

from __future__ import annotations

import math
from numbers import Rational
from typing import Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..errors import InputError
from .pyramid import Factor

#: Methods of downsampling: see `reduce`.
Rule = Literal["mean", "mean_of_numbers", "mode", "mode_of_nonzero", "nearest"]

_Array = NDArray[Any]
_Steps = tuple[tuple[int, int], ...]  # numerator and denominator of the factor along each axis


def reduced_shape(shape: tuple[int, ...], factor: Factor) -> tuple[int, int, int]:
    """Shape (z, y, x) of the level made from a parent of the given shape: as many voxels as cover it."""
    z, y, x = (-(-n * f.denominator // f.numerator) for n, f in zip(shape, factor, strict=True))
    return z, y, x


def reduce(
    values: NDArray[Any],
    factor: Factor,
    rule: Rule,
    *,
    origin: tuple[int, int, int] = (0, 0, 0),
    level_shape: tuple[int, int, int] | None = None,
    mask: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Make a level of a pyramid from its parent, or a block of the level from a block of the parent.

    Parameters
    ----------
    values : ndarray, integers, bool or floating point of up to 64 bits, shape (z, y, x) or (c, z, y, x)
        The parent. Along each axis, a block must start at a multiple of the numerator of the factor, and end at
        another or at the end of the parent: the result is then the same as for the whole. Copied unless C-contiguous.
    factor : tuple of Fraction
        Factor along (z, y, x), each at least 1; the product of the numerators is at most 2**30.
    rule : {"mean", "mean_of_numbers", "mode", "mode_of_nonzero", "nearest"}
        - ``mean``: the weighted mean. For integers it is exact, rounded half to even. Floating point is summed in
          float64, first over z and y, then over x, and the result is rounded to the dtype; NaN gives NaN.
        - ``mean_of_numbers``: for floating point in which NaN is no data. Same as ``mean`` over the values that are not
          NaN, in each channel; NaN if all are.
        - ``mode``: for anatomical labels. The foreground (not 0) wins if its weight is larger than that of the
          background; see Notes for a tie. Then same as ``mode_of_nonzero``.
        - ``mode_of_nonzero``: for provenance. The label other than 0 with the largest weight, the smallest of equals;
          0 only if all are 0.
        - ``nearest``: the voxel of the parent at the centre (k + 1/2) p/q; the lower one if the centre is on a
          border, the last one if the centre is beyond the end of the parent.
    origin : tuple of int
        Index (z, y, x) in the level of the first voxel of the result; ``mode`` breaks ties by it.
    level_shape : tuple of int, optional
        Shape (z, y, x) of the whole level; ``mode`` breaks ties by it. Default: the level ends with `values`.
    mask : ndarray, integers or bool, shape (z, y, x), optional
        For means: only voxels where it is not 0 count, in all channels. Where no voxel of a footprint counts, the level
        is the mean of all.

    Returns
    -------
    ndarray, of the dtype of `values` in native byte order, C-contiguous
        The level: `reduced_shape`, after the channels if there are any.

    Raises
    ------
    InputError
        If the rule does not support the values, the factor or the mask.

    Notes
    -----
    If foreground and background have the same weight, ``mode`` compares, along each of z, y and x, the foreground in
    the low half of the footprint with that in the high half. The axis with the largest difference decides, the first
    of equals: the voxel is foreground if its index along that axis, counted from the nearer end of the level, is even.
    Without any difference, it is foreground if the sum of the three indices is even. Flat faces are thus kept or
    removed as a whole, symmetric brains stay symmetric, and the foreground neither grows nor shrinks.

    If the end of the parent cuts the footprint, its rest is halved. A voxel of the parent across the middle counts for
    each half in proportion, so that an axis along which the footprint has one voxel never decides.
    """
    _validate(values, factor, rule, mask)
    if rule == "mean_of_numbers":
        numbers = ~np.isnan(values) if mask is None else ~np.isnan(values) & (mask != 0)
        if values.ndim == 3:
            return reduce(values, factor, "mean", mask=numbers)
        return np.stack([reduce(c, factor, "mean", mask=counted) for c, counted in zip(values, numbers, strict=True)])
    dtype: np.dtype[Any] = values.dtype.newbyteorder("=")
    shape = reduced_shape(values.shape[-3:], factor)
    steps = tuple((int(f.numerator), int(f.denominator)) for f in factor)
    if rule == "nearest":
        for axis, m, (p, q) in zip((-3, -2, -1), shape, steps, strict=True):
            holder = ((2 * np.arange(m) + 1) * p - 1) // (2 * q)
            values = values.take(np.minimum(holder, values.shape[axis] - 1), axis)
        return np.ascontiguousarray(values, dtype)

    computed = np.dtype({"?": "u1", "e": "f8"}.get(dtype.char, dtype))
    parent = np.ascontiguousarray(values, computed).reshape(math.prod(values.shape[:-3]), *values.shape[-3:])
    parent.flags.writeable = False  # so that one kernel is compiled per dtype, not two
    level: _Array = np.empty((len(parent), *shape), computed)
    odd = tuple(axis.astype(computed) for axis in _odd(origin, shape, level_shape))
    if rule != "mean" and steps[2] == (2, 1) and {*steps} <= {(1, 1), (2, 1)}:
        _mode_of_eight(parent, steps[0][0], steps[1][0], rule == "mode", odd, level)
    else:
        overlaps = tuple(_overlaps(n, m, p, q) for n, m, (p, q) in zip(parent.shape[1:], shape, steps, strict=True))
        if rule == "mean":
            covered = None if mask is None else np.ascontiguousarray(mask != 0)
            _reduce_by_mean(parent, steps, overlaps, covered, level)
        else:
            _mode(parent, overlaps, rule == "mode", odd, level)
    return level.astype(dtype, copy=False).reshape(*values.shape[:-3], *shape)


def _validate(values: _Array, factor: Factor, rule: Rule, mask: _Array | None) -> None:
    if rule not in get_args(Rule):
        raise InputError(f"rule {rule!r} must be one of {', '.join(get_args(Rule))}", code="unknown-value")
    kinds = "biu" if "mode" in rule else "f" if rule == "mean_of_numbers" else "biuf"
    if values.dtype.kind not in kinds or values.dtype.itemsize > 8:
        raise InputError(
            f"dtype {values.dtype} does not support {rule}: labels are integers, images numbers of up to 64 bits, "
            "and NaN is floating point",
            code="unsupported-dtype",
        )
    if values.ndim not in (3, 4):
        raise InputError(f"shape {values.shape} must be (z, y, x) or (c, z, y, x)", code="wrong-dimensions")
    fractions = len(factor) == 3 and all(isinstance(f, Rational) and f >= 1 for f in factor)
    if not fractions or math.prod(f.numerator for f in factor) > 2**30:  # or `_mean_of_wide` could overflow
        raise InputError(
            f"factor ({', '.join(map(str, factor))}) must be 3 fractions >= 1 with small numerators",
            code="invalid-factor",
        )
    if mask is not None and (not rule.startswith("mean") or mask.shape != values.shape[-3:]):
        raise InputError(
            f"mask {mask.shape} with rule {rule}: only means take one, of shape {values.shape[-3:]}",
            code="invalid-mask",
        )


def _reduce_by_mean(parent: _Array, steps: _Steps, overlaps: Any, covered: _Array | None, level: _Array) -> None:
    """The mean of the covered voxels of each footprint, and of all voxels where none is covered."""
    if covered is not None and not covered.any():
        covered = None
    lacking = np.zeros(level.shape[1:], np.bool_)  # without a covered voxel
    integers = level.dtype.kind != "f"
    # Division rounds exactly if the sum leaves one bit of the significand free: never onto or across a half.
    bits = 8 * level.itemsize + math.prod(p for p, _ in steps).bit_length()
    if integers and bits > 52:
        _mean_of_wide(parent, overlaps, covered, level, lacking)
    else:
        columns = np.empty((len(parent) + 1, parent.shape[-1]), np.float32 if integers and bits <= 23 else np.float64)
        _mean(parent, overlaps, steps[2] == (2, 1), covered, columns, level, lacking)
    if lacking.any():
        whole = np.empty_like(level)
        _reduce_by_mean(parent, steps, overlaps, None, whole)
        np.copyto(level, whole, where=lacking)


def _odd(origin: tuple[int, ...], shape: tuple[int, ...], level_shape: tuple[int, ...] | None) -> tuple[_Array, ...]:
    """Along each axis, 1 for each voxel whose index from the nearer end of the level is odd, else 0."""
    ends = [start + n for start, n in zip(origin, shape, strict=True)] if level_shape is None else level_shape
    indices = (np.arange(start, start + n) for start, n in zip(origin, shape, strict=True))
    return tuple(np.minimum(index, end - 1 - index) & 1 for index, end in zip(indices, ends, strict=True))


@njit(cache=True, nogil=True)
def _overlaps(n: int, m: int, p: int, q: int) -> _Array:
    """Overlaps of m voxels with n of the parent along an axis, a row each: start, stop, total, and each overlap."""
    overlaps = np.zeros((m, 3 + min((p - 2) // q + 2, n)), np.int64)
    for k in range(m):
        first, end = k * p // q, min(-(-(k + 1) * p // q), n)
        overlaps[k, 0], overlaps[k, 1], overlaps[k, 2] = first, end, min((k + 1) * p, n * q) - k * p
        for j in range(first, end):
            overlaps[k, 3 + j - first] = min((j + 1) * q, (k + 1) * p) - max(j * q, k * p)
    return overlaps


@njit(cache=True, nogil=True, error_model="numpy")
def _mean(
    parent: _Array,
    overlaps: tuple[_Array, ...],
    halved: bool,
    covered: Any,
    columns: _Array,
    level: _Array,
    lacking: _Array,
) -> None:
    """Sum over z and y into columns, which is most of the work and runs along rows, and then over x."""
    channels, mz, my, mx = level.shape
    integers = level.dtype.type(0.5) == 0  # a constant for the compiler
    zs, ys, xs = overlaps
    sums, weights = np.empty((2, mx), columns.dtype)
    for z, y in np.ndindex(mz, my):
        columns[:] = 0
        for i in range(zs[z, 0], zs[z, 1]):
            for j in range(ys[y, 0], ys[y, 1]):
                weight = columns.dtype.type(zs[z, 3 + i - zs[z, 0]] * ys[y, 3 + j - ys[y, 0]])
                counted = None if covered is None else covered[i, j]
                for c in range(channels):
                    _add(parent[c, i, j], counted, weight, columns[c])
                if covered is not None:
                    _add(covered[i, j], counted, weight, columns[channels])
        if covered is None:
            for x in range(mx):
                weights[x] = zs[z, 2] * ys[y, 2] * xs[x, 2]
        else:
            _fold(columns[channels], xs, halved, weights)
            for x in range(mx):
                lacking[z, y, x] = weights[x] == 0
        for c in range(channels):
            _fold(columns[c], xs, halved, sums)
            for x in range(mx):
                mean = sums[x] / weights[x]
                level[c, z, y, x] = 0 if weights[x] == 0 else np.rint(mean) if integers else mean


@njit(inline="always")  # a call, which unpacks the arrays, takes twice as long
def _add(row: _Array, counted: Any, weight: Any, columns: _Array) -> None:
    number = columns.dtype.type
    for x in range(row.size):
        term = number(row[x]) * weight
        columns[x] += term if counted is None or counted[x] else number(0)


@njit(inline="always")
def _fold(columns: _Array, xs: _Array, halved: bool, sums: _Array) -> None:
    if halved:
        for x in range(columns.size // 2):
            sums[x] = columns[2 * x] + columns[2 * x + 1]
        if columns.size % 2:
            sums[-1] = columns[-1]
    else:
        sums[:] = 0
        for x in range(sums.size):
            for k in range(xs[x, 0], xs[x, 1]):
                sums[x] += columns[k] * columns.dtype.type(xs[x, 3 + k - xs[x, 0]])


@njit(cache=True, nogil=True, error_model="numpy")
def _mean_of_wide(parent: _Array, overlaps: tuple[_Array, ...], covered: Any, level: _Array, lacking: _Array) -> None:
    """The mean of integers whose sum may exceed floating point: the sum is high * 2**32 + low."""
    zs, ys, xs = overlaps
    for c, z, y, x in np.ndindex(level.shape):
        high = low = total = 0
        for i in range(zs[z, 0], zs[z, 1]):
            for j in range(ys[y, 0], ys[y, 1]):
                for k in range(xs[x, 0], xs[x, 1]):
                    weight = zs[z, 3 + i - zs[z, 0]] * ys[y, 3 + j - ys[y, 0]] * xs[x, 3 + k - xs[x, 0]]
                    if covered is not None:
                        weight *= covered[i, j, k]
                    total += weight
                    high += np.int64(parent[c, i, j, k] >> 32) * weight
                    low += (np.int64(parent[c, i, j, k]) & 0xFFFFFFFF) * weight
        if total == 0:
            lacking[z, y, x] = True
        else:
            low += high % total << 32
            mean, rest = (high // total << 32) + low // total, low % total
            level[c, z, y, x] = mean + (2 * rest + (mean & 1) > total)


@njit(cache=True, nogil=True)
def _mode_of_eight(parent: _Array, pz: int, py: int, vote: bool, odd: tuple[_Array, ...], level: _Array) -> None:
    """Take the mode of 2 x 2 x 2 voxels without branches. A voxel alone along an axis counts twice: same majority.

    Ties are few, and broken after each row.
    """
    channels, nz, ny, nx = parent.shape
    _, mz, my, mx = level.shape
    number = parent.dtype.type  # counts have the dtype of the labels, so that vectors have equal lengths
    none, one, two, half = number(0), number(1), number(2), number(4)
    cells = np.empty((8, mx), parent.dtype)
    for c, z, y in np.ndindex(channels, mz, my):
        for i in range(4):
            row = parent[c, min(pz * z + i // 2 * (pz - 1), nz - 1), min(py * y + i % 2 * (py - 1), ny - 1)]
            for x in range(nx // 2):
                cells[i, x], cells[i + 4, x] = row[2 * x], row[2 * x + 1]
            if nx % 2:
                cells[i, -1] = cells[i + 4, -1] = row[-1]
        ties = none
        for x in range(mx):
            best, most, foreground = none, none, none
            for i in range(8):
                label, count = cells[i, x], none
                for j in range(8):
                    count = number(count + (one if cells[j, x] == label else none))
                count = count if label != none else none
                foreground = number(foreground + (one if label != none else none))
                better = (count > most) | ((count == most) & (label < best))
                best, most = label if better else best, count if better else most
            ties |= one if foreground == half else none
            level[c, z, y, x] = none if vote and foreground < half else best
        if vote and ties:
            odd_z, odd_y = odd[0][z], odd[1][y]
            for x in range(mx):
                foreground = low_z = low_y = low_x = none
                for i in range(8):
                    voxel = one if cells[i, x] != none else none
                    foreground = number(foreground + voxel)
                    low_z = number(low_z + voxel) if i & 2 == 0 else low_z
                    low_y = number(low_y + voxel) if i & 1 == 0 else low_y
                    low_x = number(low_x + voxel) if i & 4 == 0 else low_x
                # `low` of 4 are in the low half: each difference is twice the size below.
                size_z = number(low_z - two if low_z > two else two - low_z)
                size_y = number(low_y - two if low_y > two else two - low_y)
                size_x = number(low_x - two if low_x > two else two - low_x)
                odd_sum = number(odd_z ^ odd_y ^ odd[2][x])
                lost = _decider(size_z, size_y, size_x, odd_z, odd_y, odd[2][x], odd_sum) != none
                level[c, z, y, x] = none if (foreground == half) & lost else level[c, z, y, x]


@njit(inline="always")
def _decider(size_z: Any, size_y: Any, size_x: Any, odd_z: Any, odd_y: Any, odd_x: Any, odd_sum: Any) -> Any:
    """Break a tie by the size of the difference between the halves along each axis; not 0 for background."""
    across = odd_y if size_y >= size_x else odd_x
    across = odd_z if (size_z >= size_y) & (size_z >= size_x) else across
    return across if (size_z != 0) | (size_y != 0) | (size_x != 0) else odd_sum


@njit(cache=True, nogil=True)
def _mode(parent: _Array, overlaps: tuple[_Array, ...], vote: bool, odd: tuple[_Array, ...], level: _Array) -> None:
    """Take the mode row by row; only footprints with several labels are counted."""
    channels, mz, my, mx = level.shape
    zs, ys, xs = overlaps
    most = (zs.shape[1] - 3) * (ys.shape[1] - 3) * (xs.shape[1] - 3)
    tally = np.empty(most, parent.dtype), np.empty(most, np.int64)
    differs = np.empty(parent.shape[3], np.bool_)
    for c, z, y in np.ndindex(channels, mz, my):
        first = parent[c, zs[z, 0], ys[y, 0]]
        differs[:] = False
        for i in range(zs[z, 0], zs[z, 1]):
            for j in range(ys[y, 0], ys[y, 1]):
                for x in range(first.size):
                    differs[x] |= parent[c, i, j, x] != first[x]
        for x in range(mx):
            start, end = xs[x, 0], xs[x, 1]
            mixed = differs[start]
            for k in range(start + 1, end):
                mixed |= differs[k] | (first[k] != first[start])
            level[c, z, y, x] = first[start]
            if mixed:
                level[c, z, y, x] = _elect(
                    parent[c], zs[z], ys[y], xs[x], vote, (odd[0][z], odd[1][y], odd[2][x]), tally
                )


@njit(inline="always")
def _elect(
    parent: _Array, z: _Array, y: _Array, x: _Array, vote: bool, odd: tuple[Any, Any, Any], tally: tuple[_Array, _Array]
) -> Any:
    labels, weights = tally
    n = count = foreground = background = 0
    for i in range(z[0], z[1]):
        for j in range(y[0], y[1]):
            for k in range(x[0], x[1]):
                label, weight = parent[i, j, k], z[3 + i - z[0]] * y[3 + j - y[0]] * x[3 + k - x[0]]
                if label == 0:
                    background += weight
                    continue
                foreground += weight
                if n >= count or labels[n] != label:  # not the same as the previous label
                    n = 0
                    while n < count and labels[n] != label:
                        n += 1
                    if n == count:
                        labels[n], weights[n], count = label, 0, count + 1
                weights[n] += weight
    if vote and foreground < background:
        return parent.dtype.type(0)
    if vote and foreground == background and _loses_tie_of_any(parent, z, y, x, odd):
        return parent.dtype.type(0)
    best = 0
    for n in range(1, count):
        if weights[n] > weights[best] or (weights[n] == weights[best] and labels[n] < labels[best]):
            best = n
    return labels[best]


@njit(cache=True, nogil=True)
def _loses_tie_of_any(parent: _Array, z: _Array, y: _Array, x: _Array, odd: tuple[Any, Any, Any]) -> Any:
    along_z = along_y = along_x = before_z = 0
    for i in range(z[0], z[1]):
        weight_z, before_y = z[3 + i - z[0]], 0
        tilt_z = _low_less_high(before_z, weight_z, z[2])
        for j in range(y[0], y[1]):
            weight_y, before_x = y[3 + j - y[0]], 0
            tilt_y = _low_less_high(before_y, weight_y, y[2])
            for k in range(x[0], x[1]):
                weight_x = x[3 + k - x[0]]
                if parent[i, j, k] != 0:
                    along_z += tilt_z * weight_y * weight_x
                    along_y += weight_z * tilt_y * weight_x
                    along_x += weight_z * weight_y * _low_less_high(before_x, weight_x, x[2])
                before_x += weight_x
            before_y += weight_y
        before_z += weight_z
    return _decider(abs(along_z), abs(along_y), abs(along_x), odd[0], odd[1], odd[2], odd[0] ^ odd[1] ^ odd[2]) != 0


@njit(inline="always")
def _low_less_high(before: int, weight: int, total: int) -> int:
    """The part of a parent voxel in the low half of a footprint, less the part in the high half."""
    after = total - before - weight
    return max(-weight, min(after - before, weight))
