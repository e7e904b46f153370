"""Compiled kernels that draw rows of the phantom brain, for an affine from pixels to PIR microns.

Along a row an ellipsoid is an interval and a sine is a rotation, so a pixel costs a few multiplications. The result
equals `Phantom.rgb` and `Phantom.expression` to 1e-9. Compiled from phantom_kernels.cpp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..native.library import INT, kernel, read, written

Array = NDArray[np.float64]

_START = (written("f8", 3), INT, INT, read("f8", 2), INT)
_REGIONS = (read("f8", 3), INT)
_tissue = kernel(
    *("phantom_tissue", *_START, read("f8", 2), *_REGIONS),
    *(read("f8", 2), read("f8", 1), read("f8", 1), read("f8", 3), INT),
)
_expression = kernel("phantom_expression", *_START, *_REGIONS, read("f8", 1))


def tissue_rows(
    out: Array,
    pixel_to_pir: Array,
    first_row: int,
    brain: Array,
    regions: Array,
    shifts: Array,
    background: Array,
    base: Array,
    waves: Array,
) -> None:
    """Draw rows of the tissue view.

    Parameters
    ----------
    out : ndarray, float64, shape (rows, width, 3)
        Output: grey levels.
    pixel_to_pir : ndarray, float64, shape (3, 3)
        (x, y, 1) of pixel centres to (p, i, r) in um of reference space 9.
    first_row : int
        y of the first row of `out`.
    brain : ndarray, float64, shape (2, 3)
        Centre and semi-axes in um.
    regions : ndarray, float64, shape (n, 2, 3)
        Centre and semi-axes in um.
    shifts : ndarray, float64, shape (n, 3)
        Grey levels added by each region.
    background, base : ndarray, float64, shape (3,)
        Grey levels outside the brain, and the mean inside.
    waves : ndarray, float64, shape (3, m, 5)
        By channel: amplitude, radians per um along (p, i, r), phase.

    Raises
    ------
    InputError
        If an array has another shape.
    """
    _check("pixel_to_pir", pixel_to_pir, (3, 3))
    _check("brain", brain, (2, 3))
    _check("regions", regions, (len(regions), 2, 3))
    _check("shifts", shifts, (len(regions), 3))
    _check("background", background, (3,))
    _check("base", base, (3,))
    _check("waves", waves, (3, *waves.shape[1:2], 5))
    _check("out", out, (*out.shape[:2], 3))
    _tissue(
        *(out, *out.shape[:2], pixel_to_pir, first_row, brain, regions, len(regions)),
        *(shifts, background, base, waves, waves.shape[1]),
    )


def expression_rows(out: Array, pixel_to_pir: Array, first_row: int, regions: Array, levels: Array) -> None:
    """Draw rows of the expression view: heat colours inside the regions whose level is not 0, black elsewhere.

    Parameters
    ----------
    out : ndarray, float64, shape (rows, width, 3)
        Output: grey levels.
    pixel_to_pir : ndarray, float64, shape (3, 3)
        (x, y, 1) of pixel centres to (p, i, r) in um of reference space 9.
    first_row : int
        y of the first row of `out`.
    regions : ndarray, float64, shape (n, 2, 3)
        Centre and semi-axes in um.
    levels : ndarray, float64, shape (n,)
        Expression at each region's centre, 0 to 1.

    Raises
    ------
    InputError
        If an array has another shape.
    """
    _check("pixel_to_pir", pixel_to_pir, (3, 3))
    _check("regions", regions, (len(regions), 2, 3))
    _check("levels", levels, (len(regions),))
    _check("out", out, (*out.shape[:2], 3))
    _expression(out, *out.shape[:2], pixel_to_pir, first_row, regions, len(regions), levels)


def _check(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; give an array of shape {shape}", code="shape-mismatch")
