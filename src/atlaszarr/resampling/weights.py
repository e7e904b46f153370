"""Interpolation along one axis: the pixels that are used, their weights, and the pixels beyond a border.

The definitions are those of OpenCV's `remap`, with weights in float64 instead of coordinates rounded to 1/32 pixel. The
kernels identify an interpolation by its support, the number of pixels along an axis: 1 nearest, 2 linear, 4 cubic, 8
Lanczos; their part of it is in weights.hpp.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

SUPPORT = {"nearest": 1, "linear": 2, "cubic": 4, "lanczos": 8}
BORDERS = {"constant": 0, "replicate": 1, "reflect": 2, "reflect_101": 3, "wrap": 4}
CONSTANT = BORDERS["constant"]

#: Coordinates are clipped to this absolute value, a whole number that int64 holds.
MAX_COORDINATE = 2.0**60


def nearest_pixel(x: float) -> int:
    """The pixel nearest to a coordinate along an axis, the even one of two equally near, as in OpenCV's `remap`."""
    return round(x)
