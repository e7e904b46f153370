"""Displacement fields of what a user gives: an affine, its simple parts, or arrays; checked, and kept from changes."""

from __future__ import annotations

import math
import operator
import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .fields import AffineField, ArrayField, Shape, unmasked


def affine(shape: tuple[int, int], matrix: ArrayLike) -> AffineField:
    """The field of an affine, 2 x 3 or 3 x 3; see `atlaszarr.Displacement.from_affine`."""
    given = np.asarray(matrix)
    if given.shape not in ((2, 3), (3, 3)) or given.dtype.kind not in "iuf" or not np.isfinite(given).all():
        raise InputError(f"matrix {matrix!r} is no affine of the plane; give 2 x 3 or 3 x 3 finite numbers")
    if len(given) == 3 and given[2].tolist() != [0, 0, 1]:
        raise InputError(f"matrix {matrix!r} is not affine: its third row must be 0 0 1")
    return AffineField.of(checked_shape(shape), given[:2])


def simple_affine(
    shape: tuple[int, int],
    scale: tuple[float, float],
    rotation: float,
    shear: float,
    translation: tuple[float, float],
    centred: bool,
) -> AffineField:
    """The field of the parts of an affine; see `atlaszarr.Displacement.simple_affine`."""
    rows, columns = checked_shape(shape)
    if not all(map(math.isfinite, (*scale, rotation, shear, *translation))):
        parts = f"scale {scale}, rotation {rotation}, shear {shear}, translation {translation}"
        raise InputError(f"{parts} make no affine; give finite numbers")
    sheared = rotation + shear
    matrix = np.array(
        [
            [scale[0] * math.cos(rotation), -scale[1] * math.sin(sheared), translation[0]],
            [scale[0] * math.sin(rotation), scale[1] * math.cos(sheared), translation[1]],
        ]
    )
    if centred:
        centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
        matrix[:, 2] += centre - matrix[:, :2] @ centre
    return AffineField.of((rows, columns), matrix)


def checked_shape(shape: tuple[int, int]) -> Shape:
    """Rows and columns of a grid."""
    try:
        rows, columns = map(operator.index, shape)
    except (TypeError, ValueError):
        rows = columns = 0
    if min(rows, columns) < 1:
        raise InputError(f"shape {shape!r} must be two positive whole numbers, rows and columns")
    return rows, columns


def block_of(shape: Shape, rows: slice, columns: slice) -> tuple[slice, slice]:
    """The part of a grid that slices name, by its ends."""
    ends = []
    for name, along, n in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
        if not isinstance(along, slice) or along.step not in (None, 1):
            raise InputError(f"{name} {along!r} must be a slice in steps of 1")
        start, stop, _ = along.indices(n)
        ends.append(slice(start, max(start, stop)))
    return ends[0], ends[1]


def is_dask(array: Any) -> bool:
    """Whether it is lazy."""
    from dask.base import is_dask_collection

    return bool(is_dask_collection(array))


def arrays(first: Any, second: Any, relative: bool) -> ArrayField:
    """The field of arrays along x and y; see `atlaszarr.Displacement.from_coordinates`."""
    lazy = [is_dask(array) for array in (first, second)]
    pair = [array if is_lazy else unmasked(array) for array, is_lazy in zip((first, second), lazy, strict=True)]
    for array in pair:
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "iuf":
            raise InputError(
                f"an array of {array.dtype} of shape {array.shape} is no part of a field; give real (h, w)"
            )
        if not all(isinstance(n, int | np.integer) for n in array.shape):
            raise InputError(f"an array of shape {array.shape} is no part of a field; call compute_chunk_sizes() first")
    if pair[0].shape != pair[1].shape:
        raise InputError(f"arrays of shapes {pair[0].shape} and {pair[1].shape} are not along x and y of one field")
    if any(lazy):
        import dask.array as da

        if "distributed" in sys.modules:  # else nothing can be kept there
            from distributed import futures_of

            if futures_of([array for array, is_lazy in zip(pair, lazy, strict=True) if is_lazy]):
                raise InputError(
                    "an array that is kept on a cluster is no part of a field, which every worker computes for itself; "
                    "compute() it, or write it to a store and open it lazily from there"
                )

        one = da.asarray(pair[0])
        return ArrayField(one, da.asarray(pair[1]).rechunk(one.chunks), relative)
    for k, array in enumerate(pair):
        if array.flags.writeable:
            pair[k] = array.copy()
            pair[k].setflags(write=False)
    return ArrayField(pair[0], pair[1], relative)
