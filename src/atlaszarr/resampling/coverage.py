"""Points inside an image, and the extent of a block of a plane that an affine maps inside the image.

A point is inside the image if it lies on the area of a pixel: -1/2 <= X < width - 1/2, and likewise in Y. The
coordinates of an affine are monotonic along a row, also after rounding, so bisection finds the points inside in a time
proportional to the rows of a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..native.library import INT, kernel, read, written

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]

_extent = kernel("coverage_extent", read("f8", 2), *[INT] * 6, written("f8", 2))


def inside_image(xy: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether points lie inside an image.

    Parameters
    ----------
    xy : ndarray, float64, shape (2, ...)
        X and Y in pixels of the image.
    size : tuple of int
        Width and height of the image.

    Returns
    -------
    ndarray, bool, shape (...)
    """
    (x, y), (width, height) = xy, size
    with np.errstate(invalid="ignore"):
        return np.asarray((x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5))


def extent_inside(matrix: Matrix, size: tuple[int, int], rows: slice, columns: slice) -> NDArray[np.float64] | None:
    """The extent of the points of a block that an affine maps inside the image.

    Parameters
    ----------
    matrix : tuple of tuple of float
        2 x 3: (column, row) of the plane to (X, Y) in pixels of the image; see
        `atlaszarr.displacement.fields.AffineField`.
    size : tuple of int
        Width and height of the image.
    rows, columns : slice

    Returns
    -------
    ndarray, float64, shape (2, 2), or None
        Smallest and largest X, then Y; None if no point lies inside the image.
    """
    bounds = np.array([[np.inf, -np.inf], [np.inf, -np.inf]])
    (a, b, c), (d, e, f) = matrix
    _extent(np.array([[a, b, c], [d, e, f]], "f8"), *size, rows.start, rows.stop, columns.start, columns.stop, bounds)
    return bounds if bounds[0, 0] <= bounds[0, 1] else None
