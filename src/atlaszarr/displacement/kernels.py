"""The inner loops of displacement fields: interpolation between pixels, and inversion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

#: Tolerance of Newton's method in pixels; rounding errors at 10^5 pixels are of this order.
_TOLERANCE = 1e-10
_MAX_STEPS = 50
#: A step that does not reduce the distance is halved, down to this fraction.
_MIN_FRACTION = 1 / 64


@njit(cache=True, nogil=True)
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
    for i in range(points.shape[1]):
        for j in range(points.shape[2]):
            x, y = points[0, i, j], points[1, i, j]
            if not (np.isfinite(x) and np.isfinite(y)):
                mapped[0, i, j] = mapped[1, i, j] = np.nan
                continue
            column, u = _cell(x, width)
            row, v = _cell(y, height)
            for c in range(2):
                mapped[c, i, j] = points[c, i, j] + _bilinear(values[c], row - top, column - left, u, v)


@njit(cache=True, nogil=True)
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
    height, width = values.shape[1:]
    for i in range(mapped.shape[1]):
        x = y = np.nan
        for j in range(mapped.shape[2]):
            start_x = guess[0, 0] * j + (guess[0, 1] * i + guess[0, 2])
            start_y = guess[1, 0] * j + (guess[1, 1] * i + guess[1, 2])
            continued = np.hypot(*_miss(values, height, width, x + guess[0, 0], y + guess[1, 0], j, i))
            if continued < np.hypot(*_miss(values, height, width, start_x, start_y, j, i)):
                start_x, start_y = x + guess[0, 0], y + guess[1, 0]
            x, y = _solve(values, height, width, start_x, start_y, j, i)
            mapped[0, i, j], mapped[1, i, j] = x, y


@njit(cache=True, nogil=True)
def _solve(values: Array, height: int, width: int, x: float, y: float, to_x: int, to_y: int) -> tuple[float, float]:
    miss_x, miss_y = _miss(values, height, width, x, y, to_x, to_y)
    if not (np.isfinite(miss_x) and np.isfinite(miss_y)):
        return np.nan, np.nan
    for _ in range(_MAX_STEPS):
        miss = np.hypot(miss_x, miss_y)
        if miss < _TOLERANCE:
            break
        a, b, c, d = _slope(values, height, width, x, y)
        determinant = a * d - b * c
        if not abs(determinant) > 0:
            break
        step_x = (d * miss_x - b * miss_y) / determinant
        step_y = (a * miss_y - c * miss_x) / determinant
        share = 1.0
        while share >= _MIN_FRACTION:
            near_x, near_y = _miss(values, height, width, x - share * step_x, y - share * step_y, to_x, to_y)
            if np.hypot(near_x, near_y) < miss:
                break
            share /= 2
        if share < _MIN_FRACTION:
            break
        x, y = x - share * step_x, y - share * step_y
        miss_x, miss_y = near_x, near_y
    return x, y


@njit(cache=True, nogil=True)
def _miss(values: Array, height: int, width: int, x: float, y: float, to_x: int, to_y: int) -> tuple[float, float]:
    """The distance (X, Y) of a mapped point of the grid from a pixel of the image."""
    if not (np.isfinite(x) and np.isfinite(y)):
        return np.nan, np.nan
    column, u = _cell(x, width)
    row, v = _cell(y, height)
    return x + _bilinear(values[0], row, column, u, v) - to_x, y + _bilinear(values[1], row, column, u, v) - to_y


@njit(cache=True, nogil=True)
def _bilinear(values: Array, row: int, column: int, u: float, v: float) -> float:
    east, south = min(column + 1, values.shape[1] - 1), min(row + 1, values.shape[0] - 1)
    upper = _mix(values[row, column], values[row, east], u)
    lower = _mix(values[south, column], values[south, east], u)
    return float(_mix(upper, lower, v))


@njit(cache=True, nogil=True)
def _slope(values: Array, height: int, width: int, x: float, y: float) -> tuple[float, float, float, float]:
    """The derivatives of (X, Y) at a point: dX/dx, dX/dy, dY/dx, dY/dy."""
    column, u = _cell(x, width)
    row, v = _cell(y, height)
    east, south = min(column + 1, width - 1), min(row + 1, height - 1)
    a = _mix(values[0, row, east] - values[0, row, column], values[0, south, east] - values[0, south, column], v)
    b = _mix(values[0, south, column] - values[0, row, column], values[0, south, east] - values[0, row, east], u)
    c = _mix(values[1, row, east] - values[1, row, column], values[1, south, east] - values[1, south, column], v)
    d = _mix(values[1, south, column] - values[1, row, column], values[1, south, east] - values[1, row, east], u)
    return 1.0 + a, b, c, 1.0 + d


@njit(cache=True, nogil=True)
def _cell(x: float, n: int) -> tuple[int, float]:
    """The pixel before a coordinate and the distance from it, which is in [0, 1] inside the grid."""
    if n == 1:
        return 0, 0.0
    pixel = min(max(np.floor(x), 0.0), n - 2.0)
    return int(pixel), x - pixel


@njit(cache=True, nogil=True)
def _mix(a: float, b: float, share: float) -> float:
    """Interpolate from a to b; at either end exactly that value, even if the other is NaN."""
    if share == 0.0:
        return a
    if share == 1.0:
        return b
    return (1.0 - share) * a + share * b
