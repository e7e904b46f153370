"""Points inside an image, and the extent of a block of a plane that an affine maps inside the image.

A point is inside the image if it lies on the area of a pixel: -1/2 <= X < width - 1/2, and likewise in Y. The
coordinates of an affine are monotonic along a row, also after rounding, so bisection finds the points inside in a time
proportional to the rows of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


@njit(cache=True, nogil=True, inline="always")
def inside(x: float, n: int) -> bool:
    """Whether a coordinate lies inside an image of `n` pixels along an axis; False for NaN."""
    return -0.5 <= x < n - 0.5


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
    _extent(matrix, size, rows.start, rows.stop, columns.start, columns.stop, bounds)
    return bounds if bounds[0, 0] <= bounds[0, 1] else None


@njit(cache=True, nogil=True)
def _extent(matrix: Any, size: Any, top: int, bottom: int, left: int, right: int, bounds: Any) -> None:
    for y in range(top, bottom):
        first, end = left, right
        for axis in range(2):
            line = matrix[axis][1] * y + matrix[axis][2]
            first, end = _between(line, matrix[axis][0], -0.5, size[axis] - 0.5, first, end)
        if first < end:
            for axis in range(2):
                line = matrix[axis][1] * y + matrix[axis][2]
                for x in (first, end - 1):
                    at = line + matrix[axis][0] * x
                    bounds[axis, 0] = min(bounds[axis, 0], at)
                    bounds[axis, 1] = max(bounds[axis, 1], at)


@njit(cache=True, nogil=True)
def _between(line: float, step: float, low: float, high: float, first: int, end: int) -> Any:
    """The range of x in [first, end) for which low <= line + step x < high."""
    if step >= 0:
        return _bisect(line, step, low, False, first, end), _bisect(line, step, high, False, first, end)
    return _bisect(line, step, high, True, first, end), _bisect(line, step, low, True, first, end)


@njit(cache=True, nogil=True)
def _bisect(line: float, step: float, bound: float, falling: bool, first: int, end: int) -> int:
    """The first x in [first, end) with line + step x >= bound or, if `falling`, < bound; `end` if there is none."""
    while first < end:
        middle = (first + end) // 2
        if (line + step * middle < bound) == falling:
            end = middle
        else:
            first = middle + 1
    return first
