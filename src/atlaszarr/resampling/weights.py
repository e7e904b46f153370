"""Interpolation along one axis: the pixels that are used, their weights, and the pixels beyond a border.

The definitions are those of OpenCV's `remap`, with weights in float64 instead of coordinates rounded to 1/32 pixel. The
kernels identify an interpolation by its support, the number of pixels along an axis: 1 nearest, 2 linear, 4 cubic, 8
Lanczos.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

SUPPORT = {"nearest": 1, "linear": 2, "cubic": 4, "lanczos": 8}
CONSTANT, REPLICATE, REFLECT, REFLECT_101, WRAP = range(5)
BORDERS = {"constant": CONSTANT, "replicate": REPLICATE, "reflect": REFLECT, "reflect_101": REFLECT_101, "wrap": WRAP}

#: Coordinates are clipped to this absolute value, a whole number that int64 holds.
MAX_COORDINATE = 2.0**60
#: For a smaller fraction, OpenCV uses only the middle pixel of Lanczos: the epsilon of float32.
_ON_PIXEL = 2.0**-23
_A = -0.75  # parameter of the cubic convolution, as in OpenCV
_SIN = np.array([math.sin(k * math.pi / 4) for k in range(8)])
_COS = np.array([math.cos(k * math.pi / 4) for k in range(8)])


@njit(cache=True, nogil=True, inline="always")
def nearest_pixel(x: float) -> int:
    """The pixel nearest to a coordinate along an axis, the even one of two equally near, as in OpenCV's `remap`.

    The nearest pixel of a coordinate inside the image, -1/2 <= x < n - 1/2, is in the image: 0 <= pixel < n.
    """
    return int(np.rint(x))


@njit(cache=True, nogil=True, inline="always")
def span(x: float, support: int) -> tuple[int, int, float]:
    """The pixels along an axis that a coordinate is interpolated from.

    Parameters
    ----------
    x : float
        Coordinate in pixels; finite.
    support : int

    Returns
    -------
    first, count : int
        The pixels first, ..., first + count - 1; only one if `x` is at the centre of a pixel, so that no pixel has
        the weight 0.
    fraction : float
        Distance of `x` from the pixel before it, in [0, 1).
    """
    x = min(max(x, -MAX_COORDINATE), MAX_COORDINATE)
    if support == 1:
        return nearest_pixel(x), 1, 0.0
    column = np.floor(x)
    fraction = x - column
    if fraction >= 1.0:  # x is slightly below a whole number
        column += 1.0
        fraction = 0.0
    if fraction == 0.0 or (support == 8 and fraction < _ON_PIXEL):
        return int(column), 1, 0.0
    return int(column) - support // 2 + 1, support, fraction


@njit(cache=True, nogil=True)
def weights_of(count: int, fraction: float, weights: Array) -> None:
    """The weights of the pixels that `span` returns.

    Parameters
    ----------
    count : int
    fraction : float
    weights : ndarray, float64, shape (8,), output
        The weights of the pixels in order; they sum to 1.

    Notes
    -----
    Cubic: R. Keys, Cubic convolution interpolation for digital image processing, 1981, with a = -3/4.
    Lanczos: sinc(t) sinc(t / 4) at t = fraction + 3 - k, divided by the sum. sin(pi t) differs only in sign between
    the k, and sin(pi t / 4) follows from one sine and one cosine by the addition theorem.
    """
    u = fraction
    if count == 1:
        weights[0] = 1.0
    elif count == 2:
        weights[0] = 1.0 - u
        weights[1] = u
    elif count == 4:
        weights[0] = ((_A * (u + 1) - 5 * _A) * (u + 1) + 8 * _A) * (u + 1) - 4 * _A
        weights[1] = ((_A + 2) * u - (_A + 3)) * u * u + 1
        weights[2] = ((_A + 2) * (1 - u) - (_A + 3)) * (1 - u) * (1 - u) + 1
        weights[3] = 1 - weights[0] - weights[1] - weights[2]
    else:
        angle = (u + 3) * np.pi / 4
        sine, cosine = np.sin(angle), np.cos(angle)
        total = 0.0
        for k in range(8):
            t = u + 3 - k
            weights[k] = (sine * _COS[k] - cosine * _SIN[k]) / (t * t)
            if k % 2:
                weights[k] = -weights[k]
            total += weights[k]
        for k in range(8):
            weights[k] /= total


@njit(cache=True, nogil=True)
def border_pixel(i: int, n: int, border: int) -> int:
    """The pixel of 0, ..., n - 1 that replaces pixel `i` beyond a border; -1 for the constant.

    Notes
    -----
    As in OpenCV, for a row abcdef: replicate aaa|abcdef|fff, reflect cba|abcdef|fed, reflect_101
    dcb|abcdef|edc, wrap def|abcdef|abc.
    """
    if 0 <= i < n:
        return i
    if border == CONSTANT:
        return -1
    if border == REPLICATE:
        return 0 if i < 0 else n - 1
    if border == WRAP or n == 1:
        return i % n
    period = 2 * n if border == REFLECT else 2 * n - 2
    i %= period
    if i < n:
        return i
    return period - 1 - i if border == REFLECT else period - i


@njit(cache=True, nogil=True)
def border_range(first: int, last: int, n: int, border: int) -> tuple[int, int]:
    """The first and the last pixel that replace `first` to `last`; (0, -1) if the constant replaces all."""
    if border in (CONSTANT, REPLICATE):
        if border == CONSTANT and (last < 0 or first >= n):
            return 0, -1
        return min(max(first, 0), n - 1), min(max(last, 0), n - 1)
    low, high = n, -1
    for i in range(first, min(last, first + 2 * n) + 1):
        low = min(low, border_pixel(i, n, border))
        high = max(high, border_pixel(i, n, border))
    return low, high
