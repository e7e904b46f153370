"""The inner loops of displacement fields: interpolation between pixels, and inversion. Compiled from kernels.cpp."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..native.library import INT, kernel, read, written

Array = NDArray[Any]

_interpolate = kernel("displacement_interpolate", read("f8", 3), *[INT] * 6, read("f8", 3), INT, written("f8", 3))
_invert = kernel("displacement_invert", read("f8", 3), INT, INT, read("f8", 2), INT, INT, written("f8", 3))


def interpolate(values: Array, top: int, left: int, height: int, width: int, points: Array, mapped: Array) -> None:
    """Map points between or beyond the pixels of a grid to the image.

    Parameters
    ----------
    values : ndarray, float64, shape (2, h, w)
        Displacements of a part of the grid that contains all pixels to interpolate from.
    top, left, height, width : int
        First row and column of the part, and the size of the grid.
    points : ndarray, float64, shape (2, rows, columns)
        (x, y) in pixels of the grid.
    mapped : ndarray, float64, shape (2, rows, columns), output
        (X, Y); NaN for a point that is not finite.

    Notes
    -----
    Displacements are bilinear between pixels. Beyond the grid they are extrapolated linearly from the outermost two
    pixels, so that an affine stays affine; along an axis of one pixel they are constant.
    """
    _, rows, columns = values.shape
    _interpolate(values, rows, columns, top, left, height, width, points, points[0].size, mapped)


def invert(values: Array, guess: Array, mapped: Array) -> None:
    """Find the points of a grid that map to the pixels of an image, by Newton's method on the bilinear field.

    Parameters
    ----------
    values : ndarray, float64, shape (2, h, w)
        Displacements of the whole grid.
    guess : ndarray, float64, shape (2, 3)
        Affine from (X, Y) in pixels of the image to an initial guess of (x, y) in the grid.
    mapped : ndarray, float64, shape (2, rows, columns), output
        (x, y) in the grid for each pixel of the image, or the nearest point reached; NaN where the field is NaN.
    """
    _invert(values, *values.shape[1:], guess, *mapped.shape[1:], mapped)
