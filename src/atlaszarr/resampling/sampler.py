"""Sample a 2-D image at coordinates, and find the pixels that this takes.

Coordinates and weights are float64 and relative to the whole image, whatever part of it is given, so that blocks of
any size give the same bytes as one whole warp. Pixel (0, 0) has its centre at (0, 0).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..boxes import Box
from ..errors import InputError
from .kernels import copy, extent, interpolate
from .weights import BORDERS, CONSTANT, FARTHEST, TAPS, Array, nearest_pixel, send_all

_WEIGHABLE = ("uint8", "int8", "uint16", "int16", "float32", "float64")
_REFUSED = {
    "area": "interpolation 'area' is the same as 'linear' where an image is sampled at coordinates; ask for 'linear'",
    "transparent": "border 'transparent' keeps what the output's memory happened to hold; choose 'constant'",
}


def resample(
    pixels: NDArray[Any],
    xy: NDArray[np.float64],
    interpolation: str = "linear",
    border: str = "constant",
    constant: ArrayLike = 0,
    *,
    origin: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
) -> NDArray[Any]:
    """Sample an image at coordinates.

    Parameters
    ----------
    pixels : ndarray, shape (h, w) or (h, w, channels)
        uint8, int8, uint16, int16, float32 or float64; for ``nearest`` any real dtype of at most 8 bytes.
    xy : ndarray, float64, shape (2, rows, columns)
        X and Y in pixels of the whole image; where either is not finite, the result is the constant.
    interpolation : str
        ``nearest`` (of two equally near pixels the even one), ``linear``, ``cubic`` (a = -3/4) or ``lanczos`` (8 x 8).
    border : str
        What lies beyond the whole image: ``constant``, ``replicate``, ``reflect`` (cba|abc), ``reflect_101`` (cb|abc)
        or ``wrap``. The constant takes part in the interpolation.
    constant : float or sequence of float
        One, or one a channel; of a value that the dtype can hold.
    origin : tuple of int
        Left and top, in the whole image, of the first of `pixels`.
    size : tuple of int, optional
        Width and height of the whole image; default: those of `pixels`.

    Returns
    -------
    ndarray, shape (rows, columns) or (rows, columns, channels)
        Of the same dtype; integers are rounded (half a level upwards) and clipped.

    Raises
    ------
    InputError
        If an option is not known or does not fit the image, `xy` has another shape, or `pixels` lack some of
        `footprint`.

    Notes
    -----
    The definitions of OpenCV's ``remap``, without its rounding of coordinates to 1/32 pixel.
    """
    pixels = np.asarray(pixels)
    taps, border_mode, filling = validate(pixels.shape, pixels.dtype, interpolation, border, constant)
    channels = len(filling)
    left, top = origin
    height, width = pixels.shape[:2]
    whole_width, whole_height = size or (width, height)
    if (
        min(left, top) < 0
        or left + width > whole_width
        or top + height > whole_height
        or not whole_width * whole_height
    ):
        raise InputError(
            f"pixels of shape {pixels.shape} at {origin} are not part of an image of {whole_width} x {whole_height}; "
            "give the position of the first one and the size of the whole image"
        )
    if np.ndim(xy) != 3 or len(xy) != 2:
        raise InputError(f"coordinates of shape {np.shape(xy)} are not (2, rows, columns): X and Y of every pixel")
    xy = np.ascontiguousarray(xy, np.float64)
    dtype = pixels.dtype.newbyteorder("=")
    solid = np.ascontiguousarray(pixels, dtype).reshape(height, width, channels)
    out = np.empty((*xy.shape[1:], channels), dtype)
    window = np.array([left, top, whole_width, whole_height])
    if taps == 1:
        bits = f"u{dtype.itemsize}"
        complete = copy(solid.view(bits), xy, border_mode, filling.view(bits), window, out.view(bits))
    else:
        integers = dtype.kind != "f"
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if integers else (0, 0)
        filling = filling.astype(np.float64)
        complete = interpolate(solid, xy, taps, border_mode, filling, window, integers, float(low), float(high), out)
    if not complete:
        raise InputError(
            f"pixels of shape {pixels.shape} at {origin} lack some that are sampled; give all of the footprint"
        )
    return out if pixels.ndim == 3 else out[..., 0]


def footprint(xy: NDArray[np.float64], size: tuple[int, int], interpolation: str, border: str) -> Box | None:
    """The pixels of an image that sampling it takes.

    Parameters
    ----------
    xy : ndarray, float64, shape (2, rows, columns)
        X and Y in pixels.
    size : tuple of int
        Width and height of the image.
    interpolation, border : str
        See `resample`.

    Returns
    -------
    tuple of int or None
        Left, top, right, bottom (half-open) of the least rectangle with all of them; None if none is taken.

    Raises
    ------
    InputError
        If an option is not known.
    """
    taps, border_mode = known(interpolation, border)
    asked = extent(np.ascontiguousarray(xy, np.float64), taps, *size, border_mode == CONSTANT)
    return _box(asked, size, border_mode) if asked[0] <= asked[1] else None


def corner_footprint(
    corners: NDArray[np.float64], size: tuple[int, int], interpolation: str, border: str
) -> Box | None:
    """The same for a rectangle of grid points whose coordinates its corners bound, as an affine's do.

    Parameters
    ----------
    corners : ndarray, float64, shape (2, ...)
        X and Y of the corners; finite.
    size, interpolation, border
        See `footprint`.

    Returns
    -------
    tuple of int or None
        Never less than `footprint` finds from all the points.
    """
    taps, border_mode = known(interpolation, border)
    asked: list[int] = []
    for across in corners:
        low, high = (min(max(float(end), -FARTHEST), FARTHEST) for end in (across.min(), across.max()))
        if taps == 1:
            asked += [nearest_pixel(low), nearest_pixel(high)]
        else:
            asked += [math.floor(low) - taps // 2 + 1, math.ceil(high) + taps // 2 - 1]
    left, right, top, bottom = asked
    return _box((left, right, top, bottom), size, border_mode)


def validate(
    shape: tuple[int, ...], dtype: np.dtype[Any], interpolation: str, border: str, constant: ArrayLike
) -> tuple[int, int, Array]:
    """Validate the options of `resample` for an image, before there is one.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
        Of the image.
    interpolation, border, constant
        See `resample`.

    Returns
    -------
    taps, border : int
        See `atlaszarr.resampling.weights`.
    constants : ndarray, shape (channels,)
        In the image's dtype.

    Raises
    ------
    InputError
        If an option is not known or does not fit the image.
    """
    taps, border_mode = known(interpolation, border)
    if len(shape) not in (2, 3) or 0 in shape[2:]:
        raise InputError(f"an image of shape {shape} cannot be sampled; it must be (h, w) or (h, w, channels)")
    if interpolation != "nearest" and dtype.name not in _WEIGHABLE:
        raise InputError(
            f"{dtype} cannot be interpolated by {interpolation!r}; use 'nearest', or one of {', '.join(_WEIGHABLE)}"
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(f"an image of {dtype} cannot be sampled; give real numbers of at most 8 bytes")
    channels = shape[2] if len(shape) == 3 else 1
    given = np.asarray(constant)
    if given.dtype.kind not in "biuf" or given.shape not in ((), (channels,)):
        raise InputError(f"constant {constant!r} must be one number, or one for each of {channels} channel(s)")
    values = given.reshape(-1).tolist()
    if dtype.kind != "f":
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not all(low <= value <= high and value == int(value) for value in values):
            raise InputError(
                f"constant {constant!r} does not fit the image's {dtype}; give whole numbers {low} to {high}"
            )
        values = [int(value) for value in values]
    filling = np.broadcast_to(np.array(values, dtype.newbyteorder("=")), channels)
    return taps, border_mode, np.ascontiguousarray(filling)


def known(interpolation: str, border: str) -> tuple[int, int]:
    """The number of taps along an axis of an interpolation, and the number of a border.

    Raises
    ------
    InputError
        If either is not known.
    """
    for name, given, choices in (("interpolation", interpolation, TAPS), ("border", border, BORDERS)):
        if given in _REFUSED:
            raise InputError(_REFUSED[given])
        if given not in choices:
            raise InputError(f"{name} {given!r} is not known; choose from {', '.join(choices)}")
    return TAPS[interpolation], BORDERS[border]


def _box(asked: tuple[int, int, int, int], size: tuple[int, int], border: int) -> Box | None:
    left, right = send_all(asked[0], asked[1], size[0], border)
    top, bottom = send_all(asked[2], asked[3], size[1], border)
    return (left, top, right + 1, bottom + 1) if left <= right and top <= bottom else None
