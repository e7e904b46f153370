"""Downsample: compute a level of a pyramid from its parent. For any image.

Along an axis a level is coarser than its parent by a factor p/q: its voxel k, the footprint, covers
[k p/q, (k + 1) p/q) of the parent, cut at the end of the parent. In units of 1/q all edges and overlaps are integers.
The product of the overlaps along the three axes is the weight of a voxel of the parent in all rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Rational
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..native.library import BOOL, INT, KernelByDtype, as_read, kernel, read, written
from .pyramid import Factor

#: Methods of downsampling: see `reduce`.
Rule = Literal["mean", "mean_of_numbers", "mode", "mode_of_nonzero", "nearest"]

_Array = NDArray[Any]
_Steps = tuple[tuple[int, int], ...]  # numerator and denominator of the factor along each axis

_write_overlaps = kernel("downsampling_overlaps", *[INT] * 5, written("i8", 2))


def _kernels(name: str, *arguments: Any) -> KernelByDtype:
    """Kernels that take the sizes and the parent, further arguments, and the level."""

    def types(dtype: np.dtype[Any]) -> tuple[Any, ...]:
        further = (written(dtype, 1) if argument is _LABELS else argument for argument in arguments)
        return read("i8", 1), read(dtype, 4), *further, written(dtype, 4)

    return KernelByDtype(f"downsampling_{name}", types)


_LABELS = "labels"  # an array of the dtype
_OVERLAPS, _COVERED, _LACKING = [read("i8", 2)] * 3, [read("u1", 3), BOOL], written("u1", 3)
_VOTE = BOOL, *[read("u1", 1)] * 3
_mean_in_single = _kernels("mean_in_single", *_OVERLAPS, *_COVERED, written("f8", 2), _LACKING)
_mean_in_double = _kernels("mean_in_double", *_OVERLAPS, *_COVERED, written("f8", 2), _LACKING)
_mean_of_wide = _kernels("mean_of_wide", *_OVERLAPS, *_COVERED, _LACKING)
_mean_of_eight = _kernels("mean_of_eight", INT, INT, *_COVERED)
_mode = _kernels("mode", *_OVERLAPS, *_VOTE, *[_LABELS] * 3, written("i8", 1))
_mode_of_eight = _kernels("mode_of_eight", INT, INT, *_VOTE)


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
          NaN, in each channel; NaN if all are. With a mask, where no number counts, it is ``mean``.
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
    covered = None if mask is None else _not_zero(mask)
    if rule == "mean_of_numbers":
        numbers = ~np.isnan(values) if covered is None else ~np.isnan(values) & covered
        if values.ndim == 3:
            return reduce(values, factor, "mean", mask=numbers)
        means = np.empty((len(values), *reduced_shape(values.shape[-3:], factor)), values.dtype.newbyteorder("="))
        for mean, channel, counted in zip(means, values, numbers, strict=True):
            mean[...] = reduce(channel, factor, "mean", mask=counted)
        return means
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
    level: _Array = np.empty((len(parent), *shape), computed)
    if level.size and rule == "mean":
        _reduce_by_mean(parent, steps, covered, level)
    elif level.size:
        _reduce_by_mode(parent, steps, rule == "mode", _odd(origin, shape, level_shape), level)
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


def _not_zero(mask: _Array) -> _Array:
    """Where a mask is not 0: bool, C-contiguous. NumPy compares bytes several times as fast as bool."""
    return np.asarray(as_read(mask) != 0)


def _of_eight(steps: _Steps) -> bool:
    """Whether a footprint is 2 x 2 x 2 voxels, or one voxel along z or y."""
    return steps[2] == (2, 1) and {*steps} <= {(1, 1), (2, 1)}


def _reduce_by_mean(parent: _Array, steps: _Steps, covered: _Array | None, level: _Array) -> None:
    """The mean of the covered voxels of each footprint, and of all voxels where none is covered."""
    if covered is None or covered.all() or not covered.any():
        counted = np.empty((0, 0, 0), np.uint8), False
    else:
        counted = covered.view(np.uint8), True
    integers = level.dtype.kind != "f"
    if _of_eight(steps) and not (integers and counted[1] and level.itemsize == 8):
        _mean_of_eight[level.dtype](_sizes(parent, level), parent, steps[0][0], steps[1][0], *counted, level)
        return
    overlaps = _overlaps(parent, steps, level)
    sizes = _sizes(parent, level, overlaps)
    lacking = np.zeros(level.shape[1:], np.uint8)  # 1 without a covered voxel
    # Division rounds exactly if the sum leaves one bit of the significand free: never onto or across a half.
    bits = 8 * level.itemsize + math.prod(p for p, _ in steps).bit_length()
    if integers and bits > 52:
        _mean_of_wide[level.dtype](sizes, parent, *overlaps, *counted, lacking, level)
    else:
        mean = _mean_in_single if integers and bits <= 23 else _mean_in_double
        scratch = np.empty((len(parent) + 4, parent.shape[-1]))  # a row of sums for each channel, and see `mean`
        mean[level.dtype](sizes, parent, *overlaps, *counted, scratch, lacking, level)
    if lacking.any():
        whole = np.empty_like(level)
        _reduce_by_mean(parent, steps, None, whole)
        np.copyto(level, whole, where=lacking != 0)


def _reduce_by_mode(parent: _Array, steps: _Steps, vote: bool, odd: tuple[_Array, ...], level: _Array) -> None:
    """The label of each footprint; with a vote of foreground and background before."""
    if _of_eight(steps):
        _mode_of_eight[level.dtype](_sizes(parent, level), parent, steps[0][0], steps[1][0], vote, *odd, level)
        return
    overlaps = _overlaps(parent, steps, level)
    smallest, largest = np.empty((2, parent.shape[-1]), level.dtype)
    most = math.prod(axis.shape[1] - 3 for axis in overlaps)
    scratch = smallest, largest, np.empty(most, level.dtype), np.empty(most, np.int64)
    _mode[level.dtype](_sizes(parent, level, overlaps), parent, *overlaps, vote, *odd, *scratch, level)


def _sizes(parent: _Array, level: _Array, overlaps: Sequence[_Array] = ()) -> _Array:
    """The struct `Sizes` of the kernels: channels, shapes of the parent and the level, and widths of the overlaps."""
    widths = [axis.shape[1] for axis in overlaps] or [0, 0, 0]
    return np.array([*parent.shape, *level.shape[1:], *widths], np.int64)


def _overlaps(parent: _Array, steps: _Steps, level: _Array) -> list[_Array]:
    """By axis, the overlaps of each voxel of the level with the parent, a row each: start, stop, total, overlaps."""
    found = []
    for n, m, (p, q) in zip(parent.shape[1:], level.shape[1:], steps, strict=True):
        overlaps = np.zeros((m, 3 + min((p - 2) // q + 2, n)), np.int64)
        _write_overlaps(n, m, p, q, overlaps.shape[1], overlaps)
        found.append(overlaps)
    return found


def _odd(origin: tuple[int, ...], shape: tuple[int, ...], level_shape: tuple[int, ...] | None) -> tuple[_Array, ...]:
    """Along each axis, 1 for each voxel whose index from the nearer end of the level is odd, else 0."""
    ends = [start + n for start, n in zip(origin, shape, strict=True)] if level_shape is None else level_shape
    indices = (np.arange(start, start + n) for start, n in zip(origin, shape, strict=True))
    return tuple(
        (np.minimum(index, end - 1 - index) & 1).astype(np.uint8) for index, end in zip(indices, ends, strict=True)
    )
