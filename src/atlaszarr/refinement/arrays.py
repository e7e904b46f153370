"""Images and displacement fields on a grid and on a coarser one: binned, sampled, composed, enlarged.

A field is an array of displacements in pixels of its grid, float64, shape (2, rows, columns), x first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..displacement.fields import grid_points
from ..displacement.kernels import interpolate
from ..errors import InputError
from ..resampling.sampler import resample

Array = NDArray[np.float64]


def points_of(shape: tuple[int, ...]) -> Array:
    """The positions (x, y) of the pixels of a grid of (rows, columns)."""
    return grid_points(slice(0, shape[0]), slice(0, shape[1]))


def binned(image: Array, factor: int) -> Array:
    """The means of squares of `factor` pixels a side; an image that is not divisible repeats its last pixels."""
    rows, columns = image.shape
    padded = np.pad(image, ((0, -rows % factor), (0, -columns % factor)), mode="edge")
    rows, columns = (n // factor for n in padded.shape)
    return np.asarray(padded.reshape(rows, factor, columns, factor).mean(axis=(1, 3)))


def pixels_joined(fitted: float, resolution: float) -> int:
    """How many pixels of a resolution, along each axis, are one of the pixel size of a fit, both in um.

    Raises
    ------
    InputError
        If the resolution is not a whole fraction.
    """
    factor = round(fitted / resolution) if 0 < resolution <= fitted else 0
    if not factor or abs(factor * resolution - fitted) > 1e-9:
        raise InputError(
            f"resolution {resolution:g} um does not divide {fitted:g} um, at which sections are fitted; use 50, 25 or "
            "10",
            code="not-supported",
        )
    return factor


def sampled(image: Array, points: Array, outside: float | None = None) -> Array:
    """An image at points (2, rows, columns), linear; beyond it a constant or, by default, its outermost pixels."""
    if outside is None:
        return np.asarray(resample(image, points, "linear", "replicate"))
    return np.asarray(resample(image, points, "linear", "constant", outside))


def moved(field: Array, points: Array) -> Array:
    """The points that a field maps points (2, rows, columns) to; beyond its grid it is extrapolated linearly."""
    out = np.empty(points.shape)
    _, height, width = field.shape
    interpolate(field, 0, 0, height, width, np.ascontiguousarray(points), out)
    return out


def enlarged(field: Array, factor: int, shape: tuple[int, int]) -> Array:
    """A field over a grid with pixels of a `factor` of those of another grid, over the finer grid of a shape."""
    fine = points_of(shape)
    coarse = (fine + 0.5) / factor - 0.5
    return np.asarray((moved(field, coarse) - coarse) * factor)


def smallest_jacobian(field: Array, where: NDArray[np.bool_]) -> float:
    """The least determinant of the Jacobian of x -> x + field within a mask; 0 or less where the field folds."""
    (x_y, x_x), (y_y, y_x) = (np.gradient(part) for part in field)
    found = ((1.0 + x_x) * (1.0 + y_y) - x_y * y_x)[where]
    return float(found.min()) if found.size else 1.0
