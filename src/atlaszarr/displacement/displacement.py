"""Displacement: the point in an image of each pixel of a 2-D grid, lazy and computed block by block."""

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
    composed,
    is_dask,
    same,
    scaled,
    validate_shape,
)

_EVERYTHING = slice(None)


@dataclass(frozen=True, eq=False, repr=False)
class Displacement:
    """A displacement field over a 2-D grid, which maps each pixel of the grid to a point in an image.

    The pixel in column x and row y of the grid has its centre at (x, y) and is mapped to (X, Y) in pixels of the image,
    whose first pixel has its centre at (0, 0). Its displacement is (X - x, Y - y). Both are NaN for a pixel without a
    point in the image.

    Immutable, picklable and lazy. Two fields are equal if they have the same shape and map each pixel to the same
    point, within 1e-9 pixels and a relative difference of 1e-12, or both to NaN.

    Attributes
    ----------
    field : Field
        An affine, arrays, or a field computed from other fields; see `atlaszarr.displacement.fields`.
    """

    field: Field

    __array_ufunc__ = None  # so that a NumPy number times a field calls __rmul__

    @classmethod
    def from_affine(cls, shape: tuple[int, int], matrix: ArrayLike) -> Displacement:
        """Make the field of an affine.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns of the grid.
        matrix : array_like, shape (2, 3) or (3, 3)
            (x, y, 1) of the grid to (X, Y) in pixels of the image. A third row must be 0 0 1.

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
        """Make the field of a scaling, then a shear and a rotation, then a translation.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns of the grid.
        scale_x, scale_y : float
            Scale; above 1, the image looks smaller.
        rotation, shear : float
            Angles in radians, from x to y: clockwise as images are displayed.
        translation_x, translation_y : float
            Translation in pixels of the image.
        centred : bool
            Whether the fixed point is the centre of the grid, ((columns - 1) / 2, (rows - 1) / 2), instead of (0, 0).

        Raises
        ------
        InputError
            If a value is not finite.

        Notes
        -----
        X = scale_x cos(rotation) x - scale_y sin(rotation + shear) y + translation_x and
        Y = scale_x sin(rotation) x + scale_y cos(rotation + shear) y + translation_y, as in atldld's `affine_simple`.
        """
        rows, columns = validate_shape(shape)
        translation = (translation_x, translation_y)
        if not all(map(math.isfinite, (scale_x, scale_y, rotation, shear, *translation))):
            parts = f"scale {(scale_x, scale_y)}, rotation {rotation}, shear {shear}, translation {translation}"
            raise InputError(f"{parts} must be finite numbers", code="not-finite")
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
        """Make the field with displacement 0, over a grid of a shape (rows, columns)."""
        return cls.from_affine(shape, np.eye(3))

    @classmethod
    def from_coordinates(cls, x: Any, y: Any) -> Displacement:
        """Make the field of points (X, Y).

        Parameters
        ----------
        x, y : array_like or dask array, shape (rows, columns), real
            Points in pixels of the image; masked values are NaN. Writeable NumPy arrays are copied. Dask arrays stay
            lazy and are computed each time they are used, in their own chunks; compute expensive ones first.

        Raises
        ------
        InputError
            If the arrays are not real and 2-D, differ in shape, or are persisted on a cluster.
        """
        return cls(ArrayField.of(x, y, relative=False))

    @classmethod
    def from_deltas(cls, delta_x: Any, delta_y: Any) -> Displacement:
        """Make the field of displacements (X - x, Y - y); see `from_coordinates`."""
        return cls(ArrayField.of(delta_x, delta_y, relative=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Displacement:
        """Load a field from a ``.npy`` file of atldld or an OME-Zarr; see `atlaszarr.displacement.files.load`."""
        from .files import load

        return cls(load(path, storage_options))

    def save(self, path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        """Save the field as ``.npy`` as in atldld, or as ``.zarr``; see `atlaszarr.displacement.files.save`."""
        from .files import save

        save(self.field, path, storage_options)

    @property
    def shape(self) -> Shape:
        """Rows and columns of the grid."""
        return self.field.shape

    def coordinates(self, rows: slice = _EVERYTHING, columns: slice = _EVERYTHING) -> Coordinates:
        """Compute the points of a block.

        Parameters
        ----------
        rows, columns : slice
            The block, with a step of 1. Default: the whole grid.

        Returns
        -------
        ndarray, float64, shape (2, rows, columns)
            X and Y in pixels of the image.

        Raises
        ------
        InputError
            If a slice has another step than 1.
        """
        return self.field.coordinates(*block_of(self.shape, rows, columns))

    @property
    def x(self) -> Any:
        """X of each pixel: dask array, float64, shape (rows, columns)."""
        return self._lazy("x")

    @property
    def y(self) -> Any:
        """Y of each pixel: dask array, float64, shape (rows, columns)."""
        return self._lazy("y")

    @property
    def delta_x(self) -> Any:
        """X - x of each pixel: dask array, float64, shape (rows, columns)."""
        return self._lazy("delta_x")

    @property
    def delta_y(self) -> Any:
        """Y - y of each pixel: dask array, float64, shape (rows, columns)."""
        return self._lazy("delta_y")

    @property
    def norm(self) -> Any:
        """Length of the displacement of each pixel, in pixels: dask array, float64, shape (rows, columns)."""
        return self._lazy("norm")

    def __mul__(self, factor: float) -> Displacement:
        """Multiply the displacements by a number."""
        if not isinstance(factor, Real) or isinstance(factor, bool):
            return NotImplemented
        if not math.isfinite(factor):
            raise InputError(f"factor {factor} of a displacement field must be finite", code="not-finite")
        return Displacement(scaled(self.field, float(factor)))

    __rmul__ = __mul__

    def compose(self, inner: Displacement) -> Displacement:
        """Make the field that applies `inner`, then this field.

        Parameters
        ----------
        inner : Displacement
            A field that maps to pixels of this field's grid.

        Returns
        -------
        Displacement
            A field over the grid of `inner`. Between its pixels this field is interpolated bilinearly; beyond its grid
            it is extrapolated linearly from the outermost two pixels. An affine is exact everywhere.

        Raises
        ------
        InputError
            If `inner` is not a Displacement.
        """
        if not isinstance(inner, Displacement):
            raise InputError(f"inner has type {type(inner).__name__}; give a Displacement", code="wrong-type")
        return Displacement(composed(self.field, inner.field))

    def invert(self, shape: tuple[int, int] | None = None) -> tuple[Displacement, Any]:
        """Compute the inverse field, which maps each pixel of the image to the point of this grid that maps to it.

        Parameters
        ----------
        shape : tuple of int, optional
            Rows and columns of the image. Default: those of this grid.

        Returns
        -------
        inverse : Displacement
            Exact for an affine. Any other field is inverted immediately and in memory, by Newton's method on the
            bilinear field: 16 bytes for each pixel of this grid, and 16 for each pixel of the image.
        residual : dask array, float64, shape (rows, columns)
            Distance in pixels of the image between each pixel and the point that inverse and field map it to: about
            1e-10 where the field can be inverted, more where it folds, NaN without a point.

        Raises
        ------
        InputError
            If the field has no finite point, or all its points lie on one line.
        """
        from .inverse import inverse

        back = Displacement(inverse(self.field, self.shape if shape is None else validate_shape(shape)))
        return back, self.compose(back).norm

    def warp(self, image: Any, interpolation: str = "linear", border: str = "constant", constant: ArrayLike = 0) -> Any:
        """Sample an image at the points of this field.

        Parameters
        ----------
        image : ndarray or dask array, shape (h, w) or (h, w, channels)
        interpolation, border, constant
            See `atlaszarr.resampling.sampler.resample`.

        Returns
        -------
        ndarray or dask array, shape (rows, columns) or (rows, columns, channels)
            The dtype of the image. Lazy for a dask image: each block computes its part of the field and reads only
            the chunks of the image that it samples. A field that is not an affine is computed once to find the chunks.

        Raises
        ------
        InputError
            If an option is unknown or does not fit the image.
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

    def _lazy(self, quantity: str) -> Any:
        """A quantity of each pixel as a dask array, in the blocks of the field."""
        import dask.array as da
        from dask.highlevelgraph import HighLevelGraph

        name, shared, chunks = f"{quantity}-{self._token}", f"field-{self._token}", self.field.chunks
        layer: dict[Any, Any] = {shared: self.field}
        for index, block in blocks(chunks):
            layer[(name, *index)] = (_part, shared, block, quantity)
        return da.Array(HighLevelGraph.from_collections(name, layer), name, chunks=chunks, dtype="float64")


def _part(field: Field, block: tuple[slice, slice], quantity: str) -> NDArray[np.float64]:
    x, y = field.coordinates(*block) if quantity in ("x", "y") else field.displacements(*block)
    part: NDArray[np.float64] = np.hypot(x, y) if quantity == "norm" else x if quantity.endswith("x") else y
    return part
