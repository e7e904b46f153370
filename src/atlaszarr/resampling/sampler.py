"""Sample a 2-D image at coordinates, and compute the pixels that are needed.

Coordinates and weights are float64 and relative to the whole image, also if only a part of it is given, so that blocks
of any size give the same bytes as the whole. Pixel (0, 0) has its centre at (0, 0).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..boxes import Box
from ..errors import InputError
from .kernels import border_range, copy, extent, interpolate
from .weights import BORDERS, CONSTANT, MAX_COORDINATE, SUPPORT, Array, nearest_pixel

_INTERPOLABLE = ("uint8", "int8", "uint16", "int16", "float32", "float64")
_REFUSED = {
    "area": "interpolation 'area' is not supported; use 'linear', which is the same for images sampled at coordinates",
    "transparent": "border 'transparent' is not supported, since it leaves pixels undefined; use 'constant'",
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
        uint8, int8, uint16, int16, float32 or float64; with ``nearest`` any real dtype of at most 8 bytes.
    xy : ndarray, float64, shape (2, rows, columns)
        X and Y in pixels of the whole image. If X or Y is not finite, the result is the constant.
    interpolation : str
        ``nearest`` (the even one of two equally near pixels), ``linear``, ``cubic`` (a = -3/4) or ``lanczos`` (8 x 8).
    border : str
        Values beyond the whole image: ``constant``, ``replicate``, ``reflect`` (cba|abc), ``reflect_101`` (cb|abc)
        or ``wrap``. The constant takes part in the interpolation.
    constant : float or sequence of float
        One value, or one per channel, that the dtype can hold.
    origin : tuple of int
        Left and top of `pixels` in the whole image.
    size : tuple of int, optional
        Width and height of the whole image. Default: those of `pixels`.

    Returns
    -------
    ndarray, shape (rows, columns) or (rows, columns, channels)
        The same dtype as `pixels`; integers are rounded half up and clipped.

    Raises
    ------
    InputError
        If an option is unknown or does not fit the image, `xy` has another shape, or `pixels` are not the whole
        `footprint`.

    Notes
    -----
    Defined as OpenCV's ``remap``, without rounding coordinates to 1/32 pixel.
    """
    pixels = np.asarray(pixels)
    support, border_mode, constants = validate(pixels.shape, pixels.dtype, interpolation, border, constant)
    channels = len(constants)
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
            "give the origin of the pixels and the size of the whole image",
            code="outside-image",
        )
    xy = _coordinates(xy)
    dtype = pixels.dtype.newbyteorder("=")
    solid = np.ascontiguousarray(pixels, dtype).reshape(height, width, channels)
    out = np.empty((*xy.shape[1:], channels), dtype)
    whole = (whole_width, whole_height)
    if support == 1:
        bits = f"u{dtype.itemsize}"
        complete = copy(solid.view(bits), xy, border_mode, constants.view(bits), origin, whole, out.view(bits))
    else:
        complete = interpolate(solid, xy, support, border_mode, constants.astype(np.float64), origin, whole, out)
    if not complete:
        raise InputError(
            f"pixels of shape {pixels.shape} at {origin} do not contain all sampled pixels; give the whole footprint",
            code="missing-pixels",
        )
    return out if pixels.ndim == 3 else out[..., 0]


def footprint(xy: NDArray[np.float64], size: tuple[int, int], interpolation: str, border: str) -> Box | None:
    """The box of pixels of an image that are needed to sample it.

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
        Left, top, right, bottom (half-open) of the smallest such box; None if no pixel is needed.

    Raises
    ------
    InputError
        If an option is unknown, or the coordinates have another shape.
    """
    support, border_mode = validate_names(interpolation, border)
    needed = extent(_coordinates(xy), support, *size, border_mode == CONSTANT)
    return _box(needed, size, border_mode) if needed[0] <= needed[1] else None


def _coordinates(xy: ArrayLike) -> NDArray[np.float64]:
    """Coordinates as kernels read them; InputError if they are not X and Y of a grid."""
    if np.ndim(xy) != 3 or len(np.asarray(xy)) != 2:
        raise InputError(
            f"coordinates of shape {np.shape(xy)} must have shape (2, rows, columns), X and Y of each pixel",
            code="invalid-shape",
        )
    return np.ascontiguousarray(xy, np.float64)


def corner_footprint(
    corners: NDArray[np.float64], size: tuple[int, int], interpolation: str, border: str
) -> Box | None:
    """A box like `footprint`, for a rectangle of grid points whose corners bound all coordinates, as with an affine.

    Parameters
    ----------
    corners : ndarray, float64, shape (2, ...)
        X and Y of the corners, finite.
    size, interpolation, border
        See `footprint`.

    Returns
    -------
    tuple of int or None
        Left, top, right, bottom (half-open) of a box that contains the `footprint` of all points.
    """
    support, border_mode = validate_names(interpolation, border)
    needed: list[int] = []
    for across in corners:
        low, high = (min(max(float(end), -MAX_COORDINATE), MAX_COORDINATE) for end in (across.min(), across.max()))
        if support == 1:
            needed += [nearest_pixel(low), nearest_pixel(high)]
        else:
            needed += [math.floor(low) - support // 2 + 1, math.ceil(high) + support // 2 - 1]
    left, right, top, bottom = needed
    return _box((left, right, top, bottom), size, border_mode)


def validate(
    shape: tuple[int, ...], dtype: np.dtype[Any], interpolation: str, border: str, constant: ArrayLike
) -> tuple[int, int, Array]:
    """Validate the options of `resample` for an image of a shape and dtype.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    interpolation, border, constant
        See `resample`.

    Returns
    -------
    support, border : int
        See `atlaszarr.resampling.weights`.
    constants : ndarray, shape (channels,)
        The constants in the image's dtype.

    Raises
    ------
    InputError
        If an option is unknown or does not fit the image.
    """
    support, border_mode = validate_names(interpolation, border)
    if len(shape) not in (2, 3) or 0 in shape[2:]:
        raise InputError(f"image of shape {shape} must have shape (h, w) or (h, w, channels)", code="invalid-shape")
    if interpolation != "nearest" and dtype.name not in _INTERPOLABLE:
        raise InputError(
            f"{dtype} is not supported for interpolation {interpolation!r}; use 'nearest', or one of "
            f"{', '.join(_INTERPOLABLE)}",
            code="unsupported-dtype",
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(
            f"image of {dtype} is not supported; give real numbers of at most 8 bytes", code="unsupported-dtype"
        )
    channels = shape[2] if len(shape) == 3 else 1
    given = np.asarray(constant)
    if given.dtype.kind not in "biuf" or given.shape not in ((), (channels,)):
        raise InputError(
            f"constant {constant!r} must be one number, or one for each of {channels} channel(s)", code="invalid-value"
        )
    values = given.reshape(-1).tolist()
    if dtype.kind != "f":
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not all(low <= value <= high and value == int(value) for value in values):
            raise InputError(
                f"constant {constant!r} does not fit {dtype}; give whole numbers between {low} and {high}",
                code="invalid-value",
            )
        values = [int(value) for value in values]
    constants = np.broadcast_to(np.array(values, dtype.newbyteorder("=")), channels)
    return support, border_mode, np.ascontiguousarray(constants)


def validate_names(interpolation: str, border: str) -> tuple[int, int]:
    """The support of an interpolation and the number of a border; see `atlaszarr.resampling.weights`.

    Raises
    ------
    InputError
        If either is unknown.
    """
    for name, given, choices in (("interpolation", interpolation, SUPPORT), ("border", border, BORDERS)):
        if given in _REFUSED:
            raise InputError(_REFUSED[given], code="not-supported")
        if given not in choices:
            raise InputError(f"{name} {given!r} is not known; choose from {', '.join(choices)}", code="unknown-value")
    return SUPPORT[interpolation], BORDERS[border]


def _box(needed: tuple[int, int, int, int], size: tuple[int, int], border: int) -> Box | None:
    left, right = border_range(needed[0], needed[1], size[0], border)
    top, bottom = border_range(needed[2], needed[3], size[1], border)
    return (left, top, right + 1, bottom + 1) if left <= right and top <= bottom else None
