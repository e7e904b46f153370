"""The inner loops of 2-D resampling, compiled from kernels.cpp. Each pixel depends only on its own coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..native.library import BOOL, INT, KernelByDtype, kernel, read, written

Array = NDArray[Any]

_extent = kernel("resampling_extent", read("f8", 3), *[INT] * 4, BOOL, written("i8", 1))
_border_range = kernel("resampling_border_range", *[INT] * 4, written("i8", 1))
_copy = KernelByDtype(
    "resampling_copy",
    lambda dtype: (
        *(read(dtype, 3), INT, INT, INT, read("f8", 3), INT, INT, read(dtype, 1)),
        *(INT, INT, INT, INT, written(dtype, 3)),
    ),
    result=BOOL,
)
_interpolate = KernelByDtype(
    "resampling_interpolate",
    lambda dtype: (
        *(read(dtype, 3), INT, INT, INT, read("f8", 3), INT, INT, INT, read("f8", 1)),
        *(INT, INT, INT, INT, written(dtype, 3)),
    ),
    result=BOOL,
)


def extent(xy: Array, support: int, width: int, height: int, bounded: bool) -> tuple[int, int, int, int]:
    """First and last column and row that are needed, also beyond the image.

    Parameters
    ----------
    xy : ndarray, float64, shape (2, rows, columns)
    support : int
        See `atlaszarr.resampling.weights`.
    width, height : int
        Of the image.
    bounded : bool
        Whether coordinates whose pixels all lie beyond the image are left out.

    Returns
    -------
    left, right, top, bottom : int
        If no pixel is needed, left is larger than right.
    """
    needed = np.empty(4, np.int64)
    _extent(xy, xy[0].size, support, width, height, bounded, needed)
    left, right, top, bottom = needed.tolist()
    return left, right, top, bottom


def border_range(first: int, last: int, n: int, border: int) -> tuple[int, int]:
    """The first and the last pixel that replace `first` to `last`; (0, -1) if the constant replaces all."""
    pixels = np.empty(2, np.int64)
    _border_range(first, last, n, border, pixels)
    return int(pixels[0]), int(pixels[1])


def copy(
    pixels: Array, xy: Array, border: int, constant: Array, origin: tuple[int, int], size: tuple[int, int], out: Array
) -> bool:
    """Copy the nearest pixels as bits.

    Parameters
    ----------
    pixels : ndarray, uint8, uint16, uint32 or uint64, shape (h, w, channels)
        A part of the image.
    xy, border, origin, size
        See `interpolate`.
    constant : ndarray, dtype of `pixels`, shape (channels,)
    out : ndarray, dtype of `pixels`, shape (rows, columns, channels), output

    Returns
    -------
    bool
        See `interpolate`.
    """
    found: bool = _copy[pixels.dtype](pixels, *pixels.shape, xy, xy[0].size, border, constant, *origin, *size, out)
    return found


def interpolate(
    pixels: Array,
    xy: Array,
    support: int,
    border: int,
    constant: Array,
    origin: tuple[int, int],
    size: tuple[int, int],
    out: Array,
) -> bool:
    """Interpolate the pixels around each coordinate: first along x, then along y.

    Parameters
    ----------
    pixels : ndarray, uint8, int8, uint16, int16, float32 or float64, shape (h, w, channels)
        A part of the image.
    xy : ndarray, float64, shape (2, rows, columns)
    support, border : int
        See `atlaszarr.resampling.weights`.
    constant : ndarray, float64, shape (channels,)
        Values that the dtype can hold.
    origin : tuple of int
        Left and top of `pixels` in the image.
    size : tuple of int
        The image's width and height, not 0.
    out : ndarray, dtype of `pixels`, shape (rows, columns, channels), output
        Integers are rounded half up, and clipped.

    Returns
    -------
    bool
        False if a pixel is needed that is not among `pixels`; `out` is then incomplete.
    """
    found: bool = _interpolate[pixels.dtype](
        pixels, *pixels.shape, xy, xy[0].size, support, border, constant, *origin, *size, out
    )
    return found
