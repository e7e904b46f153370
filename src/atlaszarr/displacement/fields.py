"""The kinds of displacement fields: an affine, two arrays, or a field computed from other fields. Arithmetic only.

A field maps each pixel (x = column, y = row) of a grid to a point (X, Y) in pixels of an image. A block depends only on
its absolute position in the grid, so that blocks of any size have the same bytes.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import transforms
from ..errors import InputError
from .kernels import interpolate

Coordinates = NDArray[np.float64]
Shape = tuple[int, int]
#: Lengths of the blocks along rows and along columns.
Chunks = tuple[tuple[int, ...], tuple[int, ...]]

#: Side of a block of fields that are not made from dask arrays.
BLOCK = 512


class Field(Protocol):
    """A displacement field; blocks are float64, (2, rows, columns), x first."""

    @property
    def shape(self) -> Shape:
        """Rows and columns of the grid."""
        ...

    @property
    def chunks(self) -> Chunks:
        """The blocks in which the field is computed."""
        ...

    def coordinates(self, rows: slice, columns: slice) -> Coordinates:
        """The points (X, Y) of the pixels of a block."""
        ...

    def displacements(self, rows: slice, columns: slice) -> Coordinates:
        """The displacements (X - x, Y - y) of the pixels of a block."""
        ...

    def at(self, points: Coordinates) -> Coordinates:
        """The points (X, Y) of any points (x, y) between or beyond the pixels of the grid."""
        ...


def blocks(chunks: Chunks) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Iterate over the blocks of a grid in C order: index, and slices of rows and columns."""
    ends = [np.cumsum((0, *lengths)).tolist() for lengths in chunks]
    rows, columns = ([slice(a, b) for a, b in pairwise(axis)] for axis in ends)
    for (i, down), (j, across) in product(enumerate(rows), enumerate(columns)):
        yield (i, j), (down, across)


def regular(shape: Shape, side: int) -> Chunks:
    """Divide a grid into square blocks; the last ones may be smaller."""
    rows, columns = ((*(n // side * (side,)), *((n % side,) if n % side else ())) for n in shape)
    return rows, columns


def grid_points(rows: slice, columns: slice) -> Coordinates:
    """The positions (x, y) of the pixels of a block in the grid."""
    points = np.empty((2, rows.stop - rows.start, columns.stop - columns.start))
    points[0] = np.arange(columns.start, columns.stop)
    points[1] = np.arange(rows.start, rows.stop)[:, np.newaxis]
    return points


@dataclass(frozen=True)
class AffineField:
    """An affine of positions in the grid.

    Attributes
    ----------
    shape : tuple of int
    matrix : tuple of tuple of float
        2 x 3, (column, row) of the grid to (X, Y) in pixels of the image.
    """

    shape: Shape
    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]

    @classmethod
    def of(cls, shape: tuple[int, int], matrix: ArrayLike) -> Self:
        """Make the field of a matrix; see `atlaszarr.Displacement.from_affine`."""
        given = np.asarray(matrix)
        if given.shape not in ((2, 3), (3, 3)) or given.dtype.kind not in "iuf" or not np.isfinite(given).all():
            raise InputError(f"matrix {matrix!r} must be 2 x 3 or 3 x 3 finite numbers", code="invalid-affine")
        if len(given) == 3 and given[2].tolist() != [0, 0, 1]:
            raise InputError(f"matrix {matrix!r} is not affine; its third row must be 0 0 1", code="invalid-affine")
        (a, b, c), (d, e, f) = given[:2].astype(np.float64).tolist()
        return cls(validate_shape(shape), ((a, b, c), (d, e, f)))

    @property
    def chunks(self) -> Chunks:
        """See `Field`."""
        return regular(self.shape, BLOCK)

    def coordinates(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        return _affine_block(self.matrix, rows, columns)

    def displacements(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        (a, b, c), (d, e, f) = self.matrix
        return _affine_block(((a - 1, b, c), (d, e - 1, f)), rows, columns)

    def at(self, points: Coordinates) -> Coordinates:
        """See `Field`; exact."""
        (a, b, c), (d, e, f) = self.matrix
        return np.stack([a * points[0] + (b * points[1] + c), d * points[0] + (e * points[1] + f)])


def _affine_block(matrix: tuple[tuple[float, float, float], ...], rows: slice, columns: slice) -> Coordinates:
    points = np.empty((2, rows.stop - rows.start, columns.stop - columns.start))
    for part, (across, down, offset) in zip(points, matrix, strict=True):
        # Each step is monotonic in x and in y, also after rounding, so that the corners bound a rectangle.
        lines = down * np.arange(rows.start, rows.stop) + offset
        np.add(lines[:, np.newaxis], across * np.arange(columns.start, columns.stop), out=part)
    return points


@dataclass(frozen=True, eq=False)
class ArrayField:
    """Two arrays over the grid. Dask arrays stay lazy.

    Attributes
    ----------
    first, second : ndarray or dask array, shape (rows, columns), real
        Components along x and along y.
    relative : bool
        Whether they are displacements instead of points.
    """

    first: Any
    second: Any
    relative: bool

    @classmethod
    def of(cls, first: Any, second: Any, relative: bool) -> ArrayField:
        """Make the field of arrays along x and y; see `atlaszarr.Displacement.from_coordinates`."""
        lazy = [is_dask(array) for array in (first, second)]
        pair = [array if is_lazy else unmasked(array) for array, is_lazy in zip((first, second), lazy, strict=True)]
        for array in pair:
            if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "iuf":
                raise InputError(
                    f"component of a field has dtype {array.dtype} and shape {array.shape}; give real numbers of shape "
                    "(rows, columns)",
                    code="invalid-array",
                )
            if not all(isinstance(n, int | np.integer) for n in array.shape):
                raise InputError(
                    f"component of a field has unknown chunk sizes, shape {array.shape}; call its "
                    "compute_chunk_sizes() first",
                    code="unknown-shape",
                )
        if pair[0].shape != pair[1].shape:
            raise InputError(
                f"components of a field have shapes {pair[0].shape} and {pair[1].shape}; give two arrays of one shape",
                code="shape-mismatch",
            )
        if any(lazy):
            import dask.array as da

            if "distributed" in sys.modules:  # otherwise there is no cluster
                from distributed import futures_of

                if futures_of([array for array, is_lazy in zip(pair, lazy, strict=True) if is_lazy]):
                    raise InputError(
                        "component of a field is persisted on a cluster, and workers that compute the field cannot use "
                        "it; compute() it, or write it to a store and open it lazily",
                        code="persisted-array",
                    )

            x, y = map(da.asarray, pair)
            return cls(x, y.rechunk(x.chunks), relative)
        for k, array in enumerate(pair):
            if array.flags.writeable:
                pair[k] = array.copy()
                pair[k].setflags(write=False)
        return cls(pair[0], pair[1], relative)

    @property
    def shape(self) -> Shape:
        """See `Field`."""
        rows, columns = self.first.shape
        return rows, columns

    @property
    def chunks(self) -> Chunks:
        """See `Field`; the chunks of a dask array, so that each is computed for one block only."""
        return regular(self.shape, BLOCK) if isinstance(self.first, np.ndarray) else self.first.chunks

    def coordinates(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        values = self._read(rows, columns)
        return values + grid_points(rows, columns) if self.relative else values

    def displacements(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        values = self._read(rows, columns)
        return values if self.relative else values - grid_points(rows, columns)

    def at(self, points: Coordinates) -> Coordinates:
        """See `Field`; bilinear between pixels, extrapolated linearly from the outermost two pixels beyond the grid."""
        return between(self, points)

    def _read(self, rows: slice, columns: slice) -> Coordinates:
        parts = [self.first[rows, columns], self.second[rows, columns]]
        if not isinstance(self.first, np.ndarray):
            import dask

            # Within the current task, not on the scheduler that runs it.
            parts = dask.compute(*parts, scheduler="synchronous")
        read = np.empty((2, *parts[0].shape))  # C-contiguous, as kernels need it, whatever the order of the parts
        for axis, part in enumerate(parts):
            read[axis] = unmasked(part)
        return read


def between(field: Field, points: Coordinates) -> Coordinates:
    """Map points between the pixels of a field bilinearly, and those beyond its grid by the outermost two pixels."""
    height, width = field.shape
    columns, rows = _cells(points[0], width), _cells(points[1], height)
    if columns is None or rows is None:
        return np.full_like(points, np.nan)
    mapped = np.empty_like(points)
    interpolate(field.displacements(rows, columns), rows.start, columns.start, height, width, points, mapped)
    return mapped


def unmasked(values: Any) -> NDArray[Any]:
    """An array with NaN for masked numbers."""
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind in "iuf":
        return np.ma.filled(values.astype(np.float64), np.nan)
    return np.asarray(values)


def _cells(positions: NDArray[np.float64], n: int) -> slice | None:
    """The pixels of an axis that positions are interpolated or extrapolated from; None if no position is finite."""
    finite = positions[np.isfinite(positions)]
    if not finite.size:
        return None
    first, last = (int(min(max(np.floor(end), 0), max(n - 2, 0))) for end in (finite.min(), finite.max()))
    return slice(first, min(last + 2, n))


@dataclass(frozen=True)
class ScaledField:
    """A field with the displacements of another field times a number.

    Attributes
    ----------
    inner : Field
    factor : float
    """

    inner: Field
    factor: float

    @property
    def shape(self) -> Shape:
        """See `Field`."""
        return self.inner.shape

    @property
    def chunks(self) -> Chunks:
        """See `Field`; those of `inner`."""
        return self.inner.chunks

    def coordinates(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        return self.displacements(rows, columns) + grid_points(rows, columns)

    def displacements(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        return self.inner.displacements(rows, columns) * self.factor

    def at(self, points: Coordinates) -> Coordinates:
        """See `Field`."""
        return points + (self.inner.at(points) - points) * self.factor


@dataclass(frozen=True)
class ComposedField:
    """The field that applies `inner`, which maps to the grid of `outer`, then `outer`.

    Attributes
    ----------
    inner, outer : Field
    """

    inner: Field
    outer: Field

    @property
    def shape(self) -> Shape:
        """See `Field`."""
        return self.inner.shape

    @property
    def chunks(self) -> Chunks:
        """See `Field`; those of `inner`."""
        return self.inner.chunks

    def coordinates(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        return self.outer.at(self.inner.coordinates(rows, columns))

    def displacements(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        return self.coordinates(rows, columns) - grid_points(rows, columns)

    def at(self, points: Coordinates) -> Coordinates:
        """See `Field`."""
        return self.outer.at(self.inner.at(points))


@dataclass(frozen=True)
class TransposedField:
    """A field over the grid of another one with rows and columns exchanged, which maps to the same points.

    Attributes
    ----------
    inner : Field
    """

    inner: Field

    @property
    def shape(self) -> Shape:
        """See `Field`."""
        rows, columns = self.inner.shape
        return columns, rows

    @property
    def chunks(self) -> Chunks:
        """See `Field`; those of `inner`."""
        rows, columns = self.inner.chunks
        return columns, rows

    def coordinates(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        return np.ascontiguousarray(self.inner.coordinates(columns, rows).swapaxes(1, 2))

    def displacements(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        return self.coordinates(rows, columns) - grid_points(rows, columns)

    def at(self, points: Coordinates) -> Coordinates:
        """See `Field`."""
        return self.inner.at(np.ascontiguousarray(points[::-1]))


def transposed(field: Field) -> Field:
    """A field with rows and columns of its grid exchanged; an affine for an affine."""
    if not isinstance(field, AffineField):
        return TransposedField(field)
    (rows, columns), matrix = field.shape, np.array(field.matrix)
    return AffineField.of((columns, rows), matrix[:, [1, 0, 2]])


def scaled(field: Field, factor: float) -> Field:
    """The field with displacements times `factor`; an affine for an affine."""
    if not isinstance(field, AffineField):
        return ScaledField(field, factor)
    identity = np.eye(2, 3)
    return AffineField.of(field.shape, identity + factor * (np.array(field.matrix) - identity))


def composed(outer: Field, inner: Field) -> Field:
    """The field that applies `inner`, then `outer`; an affine for two affines."""
    if isinstance(outer, AffineField) and isinstance(inner, AffineField):
        return AffineField.of(inner.shape, transforms.compose(outer.matrix, inner.matrix))
    return ComposedField(inner, outer)


def same(a: Field, b: Field) -> bool:
    """Whether two fields have one shape and map each pixel to the same point up to rounding, or both to NaN."""
    return a.shape == b.shape and all(
        np.allclose(a.coordinates(*block), b.coordinates(*block), rtol=1e-12, atol=1e-9, equal_nan=True)
        for _, block in blocks(a.chunks)
    )


def validate_shape(shape: tuple[int, int]) -> Shape:
    """Validate the rows and columns of a grid."""
    try:
        rows, columns = map(operator.index, shape)
    except (TypeError, ValueError):
        rows = columns = 0
    if min(rows, columns) < 1:
        raise InputError(f"shape {shape!r} must be two positive whole numbers, rows and columns", code="invalid-shape")
    return rows, columns


def block_of(shape: Shape, rows: slice, columns: slice) -> tuple[slice, slice]:
    """Normalize the slices of a block of a grid."""
    ends = []
    for name, along, n in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
        if not isinstance(along, slice) or along.step not in (None, 1):
            raise InputError(f"{name} {along!r} must be a slice with step 1", code="invalid-slice")
        start, stop, _ = along.indices(n)
        ends.append(slice(start, max(start, stop)))
    return ends[0], ends[1]


def is_dask(array: Any) -> bool:
    """Whether an array is a dask array, or holds one as xarray's do; without importing dask."""
    graph = getattr(array, "__dask_graph__", None)
    return callable(graph) and graph() is not None
