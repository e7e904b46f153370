"""Along an axis: the pixels that an interpolation takes, their weights, and the pixels that a border substitutes.

The definitions are those of OpenCV's `remap`, but weights are float64, where OpenCV rounds to 1/32 pixel. An
interpolation is named by the number of its taps along an axis: 1 nearest, 2 linear, 4 cubic, 8 Lanczos.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

TAPS = {"nearest": 1, "linear": 2, "cubic": 4, "lanczos": 8}
CONSTANT, REPLICATE, REFLECT, REFLECT_101, WRAP = range(5)
BORDERS = {"constant": CONSTANT, "replicate": REPLICATE, "reflect": REFLECT, "reflect_101": REFLECT_101, "wrap": WRAP}

#: Coordinates are clipped to it: whole pixels, far within the range of int64.
FARTHEST = 2.0**60
#: Below it OpenCV takes Lanczos' middle pixel alone: float32's epsilon.
_ON_PIXEL = 2.0**-23
_A = -0.75  # of the cubic convolution; OpenCV's choice
_SIN = np.array([math.sin(k * math.pi / 4) for k in range(8)])
_COS = np.array([math.cos(k * math.pi / 4) for k in range(8)])


@njit(cache=True, nogil=True, inline="always")
def nearest_pixel(x: float) -> int:
    """The pixel nearest to a coordinate along an axis, of two equally near ones the even one, as in OpenCV's `remap`.

    The one rule for planes and volumes. A coordinate inside the image, -1/2 <= x < n - 1/2, has its nearest pixel
    there: 0 <= pixel < n.
    """
    return int(np.rint(x))


@njit(cache=True, nogil=True, inline="always")
def span(x: float, taps: int) -> tuple[int, int, float]:
    """The pixels that a coordinate takes along an axis.

    Parameters
    ----------
    x : float
        In pixels; finite.
    taps : int

    Returns
    -------
    first, count : int
        The pixels first, ..., first + count - 1; just one where `x` is on a pixel's centre, so that no pixel is
        taken with a weight of 0.
    fraction : float
        How far `x` lies beyond the pixel before it, in [0, 1).

    """
    x = min(max(x, -FARTHEST), FARTHEST)
    if taps == 1:
        return nearest_pixel(x), 1, 0.0
    column = np.floor(x)
    fraction = x - column
    if fraction >= 1.0:  # a little below a whole number
        column += 1.0
        fraction = 0.0
    if fraction == 0.0 or (taps == 8 and fraction < _ON_PIXEL):
        return int(column), 1, 0.0
    return int(column) - taps // 2 + 1, taps, fraction


@njit(cache=True, nogil=True)
def weigh(count: int, fraction: float, weights: Array) -> None:
    """The weights of the pixels that `span` gives.

    Parameters
    ----------
    count : int
    fraction : float
    weights : ndarray, float64, shape (8,), output
        Of the pixels, in their order; they sum to 1.

    Notes
    -----
    Cubic: R. Keys, Cubic convolution interpolation for digital image processing, 1981, with a = -3/4.
    Lanczos: sinc(t) sinc(t / 4) at t = fraction + 3 - k, divided by its sum. sin(pi t) is the same for all k but for
    its sign, and sin(pi t / 4) comes from one sine and one cosine by the angle's difference.
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
def send(i: int, n: int, border: int) -> int:
    """The pixel of 0, ..., n - 1 that stands for pixel `i`; -1 for the constant.

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
def send_all(first: int, last: int, n: int, border: int) -> tuple[int, int]:
    """The first and the last of the pixels that stand for `first` to `last`; (0, -1) if the constant stands for all."""
    if border in (CONSTANT, REPLICATE):
        if border == CONSTANT and (last < 0 or first >= n):
            return 0, -1
        return min(max(first, 0), n - 1), min(max(last, 0), n - 1)
    low, high = n, -1
    for i in range(first, min(last, first + 2 * n) + 1):
        low = min(low, send(i, n, border))
        high = max(high, send(i, n, border))
    return low, high
