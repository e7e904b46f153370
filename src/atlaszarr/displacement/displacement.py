"""Displacement: for every pixel of a 2-D grid, where in an image it lies. Lazy, and computed block by block."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .fields import (
    AffineField,
    ArrayField,
    Coordinates,
    Field,
    Shape,
    block_of,
    blocks,
    checked_shape,
    composed,
    is_dask,
    same,
    scaled,
)

_EVERYTHING = slice(None)


@dataclass(frozen=True, eq=False, repr=False)
class Displacement:
    """A displacement field over a 2-D grid: where in an image each pixel of the grid lies.

    The grid's pixel in column x and row y has its centre at (x, y), and lies at (X, Y) in pixels of the image, whose
    first pixel has its centre at (0, 0). (X - x, Y - y) is its displacement. Both are NaN where a pixel has no point
    in the image.

    Immutable, picklable and lazy. Two fields are equal if they have the same shape and map every pixel to the same
    point, within what float64 loses between a point and a displacement (1e-9 pixel, and 1e-12 of a far one), or both
    to NaN.

    Attributes
    ----------
    field : Field
        An affine, arrays, or computed from other fields; see `atlaszarr.displacement.fields`.
    """

    field: Field

    __array_ufunc__ = None  # a NumPy number times a field calls the field's __rmul__

    @classmethod
    def from_affine(cls, shape: tuple[int, int], matrix: ArrayLike) -> Displacement:
        """The field of an affine.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns of the grid.
        matrix : array_like, shape (2, 3) or (3, 3)
            (x, y, 1) of the grid to (X, Y) in pixels of the image; a third row is 0 0 1.

        Raises
        ------
        InputError
            If the shape or the matrix is not valid.
        """
        return cls(AffineField.of(shape, matrix))

    @classmethod
    def simple_affine(
        cls,
        shape: tuple[int, int],
        scale_x: float = 1,
        scale_y: float = 1,
        rotation: float = 0,
        shear: float = 0,
        translation_x: float = 0,
        translation_y: float = 0,
        centred: bool = True,
    ) -> Displacement:
        """The field of a scaling, then a shear and a rotation, then a translation.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns of the grid.
        scale_x, scale_y : float
            Above 1 the image looks smaller.
        rotation, shear : float
            In radians, from x to y: clockwise as images are shown.
        translation_x, translation_y : float
            In pixels of the image.
        centred : bool
            Whether the grid's centre, ((columns - 1) / 2, (rows - 1) / 2), replaces (0, 0) as the fixed point.

        Raises
        ------
        InputError
            If a value is not finite.

        Notes
        -----
        X = scale_x cos(rotation) x - scale_y sin(rotation + shear) y + translation_x and
        Y = scale_x sin(rotation) x + scale_y cos(rotation + shear) y + translation_y, as in atldld's `affine_simple`.
        """
        rows, columns = checked_shape(shape)
        translation = (translation_x, translation_y)
        if not all(map(math.isfinite, (scale_x, scale_y, rotation, shear, *translation))):
            parts = f"scale {(scale_x, scale_y)}, rotation {rotation}, shear {shear}, translation {translation}"
            raise InputError(f"{parts} make no affine; give finite numbers")
        sheared = rotation + shear
        matrix = np.array(
            [
                [scale_x * math.cos(rotation), -scale_y * math.sin(sheared), translation_x],
                [scale_x * math.sin(rotation), scale_y * math.cos(sheared), translation_y],
            ]
        )
        if centred:
            centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
            matrix[:, 2] += centre - matrix[:, :2] @ centre
        return cls.from_affine((rows, columns), matrix)

    @classmethod
    def identity(cls, shape: tuple[int, int]) -> Displacement:
        """The field without displacement, over a grid of rows and columns."""
        return cls.from_affine(shape, np.eye(3))

    @classmethod
    def from_coordinates(cls, x: Any, y: Any) -> Displacement:
        """The field of the points (X, Y) themselves.

        Parameters
        ----------
        x, y : array_like or dask array, shape (rows, columns), real
            In pixels of the image; masked values are NaN. Writeable NumPy arrays are copied. Dask arrays are
            computed block by block in their own chunks, anew each time: `compute` first what takes long.

        Raises
        ------
        InputError
            If they are not two arrays of one shape, or are kept on a cluster.
        """
        return cls(ArrayField.of(x, y, relative=False))

    @classmethod
    def from_deltas(cls, delta_x: Any, delta_y: Any) -> Displacement:
        """The field of displacements (X - x, Y - y); see `from_coordinates`."""
        return cls(ArrayField.of(delta_x, delta_y, relative=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Displacement:
        """A field from a ``.npy`` file as atldld writes it, or an OME-Zarr; see `atlaszarr.displacement.files.load`."""
        from .files import load

        return cls(load(path, storage_options))

    def save(self, path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        """Write it to ``.npy`` as atldld reads it, or to ``.zarr``; see `atlaszarr.displacement.files.save`."""
        from .files import save

        save(self.field, path, storage_options)

    @property
    def shape(self) -> Shape:
        """Rows and columns of the grid."""
        return self.field.shape

    def coordinates(self, rows: slice = _EVERYTHING, columns: slice = _EVERYTHING) -> Coordinates:
        """The points of a block, computed at once.

        Parameters
        ----------
        rows, columns : slice
            In steps of 1; default: all.

        Returns
        -------
        ndarray, float64, shape (2, rows, columns)
            X and Y in pixels of the image.

        Raises
        ------
        InputError
            If a slice has another step.
        """
        return self.field.coordinates(*block_of(self.shape, rows, columns))

    @property
    def x(self) -> Any:
        """X of every pixel: a lazy dask array, float64, (rows, columns)."""
        return self._lazy("x")

    @property
    def y(self) -> Any:
        """Y of every pixel; see `x`."""
        return self._lazy("y")

    @property
    def delta_x(self) -> Any:
        """X - x of every pixel; see `x`."""
        return self._lazy("delta_x")

    @property
    def delta_y(self) -> Any:
        """Y - y of every pixel; see `x`."""
        return self._lazy("delta_y")

    @property
    def norm(self) -> Any:
        """Length of every pixel's displacement, in pixels; see `x`."""
        return self._lazy("norm")

    def __mul__(self, factor: float) -> Displacement:
        """The field whose displacements are `factor` times as long."""
        if not isinstance(factor, Real) or isinstance(factor, bool):
            return NotImplemented
        if not math.isfinite(factor):
            raise InputError(f"a displacement field cannot be multiplied by {factor}; give a finite number")
        return Displacement(scaled(self.field, float(factor)))

    __rmul__ = __mul__

    def compose(self, inner: Displacement) -> Displacement:
        """The field that applies `inner` first, and then this one.

        Parameters
        ----------
        inner : Displacement
            Its points lie in pixels of this field's grid.

        Returns
        -------
        Displacement
            Over the grid of `inner`. Between its pixels this field is bilinear; beyond its grid it follows a straight
            line through the outermost two pixels. An affine is exact everywhere.
        """
        if not isinstance(inner, Displacement):
            raise InputError(f"a field is composed with another, not with {type(inner).__name__}")
        return Displacement(composed(self.field, inner.field))

    def invert(self, shape: tuple[int, int] | None = None) -> tuple[Displacement, Any]:
        """The inverse field: for each pixel of the image, the point of this grid that maps to it.

        Parameters
        ----------
        shape : tuple of int, optional
            Rows and columns of the image; default: those of this grid.

        Returns
        -------
        inverse : Displacement
            Exact for an affine. Any other field is inverted at once by Newton's method on the bilinear field, in
            memory: 16 bytes for each pixel of this grid, and 16 for each of the image.
        residual : dask array, float64, shape (rows, columns), lazy
            Distance in pixels of the image between each pixel and what inverse and field map it to: about 1e-10
            where the field can be inverted, more where it folds, NaN where it has no point.

        Raises
        ------
        InputError
            If the field has no finite point, or all lie on one line.
        """
        from .inverse import inverse

        back = Displacement(inverse(self.field, self.shape if shape is None else checked_shape(shape)))
        return back, self.compose(back).norm

    def warp(self, image: Any, interpolation: str = "linear", border: str = "constant", constant: ArrayLike = 0) -> Any:
        """The image over this grid.

        Parameters
        ----------
        image : ndarray or dask array, shape (h, w) or (h, w, channels)
        interpolation, border, constant
            See `atlaszarr.resampling.sampler.resample`.

        Returns
        -------
        ndarray or dask array, shape (rows, columns) or (rows, columns, channels)
            Of the image's dtype. Lazy for a dask image: each block computes its own field, and takes only the chunks
            of the image that it samples. A field that is not an affine is computed once more to find these.

        Raises
        ------
        InputError
            If the options do not fit the image.
        """
        from .warp import warp, warp_lazily

        if is_dask(image):
            return warp_lazily(self.field, image, interpolation, border, constant)
        return warp(self.field, np.asarray(image), interpolation, border, constant)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Displacement):
            return NotImplemented
        return same(self.field, other.field)

    def __hash__(self) -> int:
        return hash(self.shape)

    def __repr__(self) -> str:
        return f"<Displacement of shape {self.shape}: {type(self.field).__name__}>"

    def __dask_tokenize__(self) -> tuple[str, str]:
        return "atlaszarr.Displacement", self._token

    @cached_property
    def _token(self) -> str:
        from dask.base import tokenize

        return str(tokenize(self.field))

    def _lazy(self, what: str) -> Any:
        """One quantity of every pixel, in the field's own blocks."""
        import dask.array as da
        from dask.highlevelgraph import HighLevelGraph

        name, shared, chunks = f"{what}-{self._token}", f"field-{self._token}", self.field.chunks
        layer: dict[Any, Any] = {shared: self.field}
        for index, block in blocks(chunks):
            layer[(name, *index)] = (_part, shared, block, what)
        return da.Array(HighLevelGraph.from_collections(name, layer), name, chunks=chunks, dtype="float64")


def _part(field: Field, block: tuple[slice, slice], what: str) -> NDArray[np.float64]:
    found = field.coordinates(*block) if what in ("x", "y") else field.displacements(*block)
    part: NDArray[np.float64] = np.hypot(*found) if what == "norm" else found[0 if what.endswith("x") else 1]
    return part
