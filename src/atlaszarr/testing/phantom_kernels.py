"""Compiled kernels that draw rows of the phantom brain, for an affine from pixels to PIR microns.

Along a row an ellipsoid is an interval and a sine is a rotation, so a pixel costs a few multiplications. The result
equals `Phantom.rgb` and `Phantom.expression` to 1e-9.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@numba.njit(nogil=True, cache=True)
def _squared_radius(x: float, origin: Array, step: Array, centre: Array, axes: Array) -> float:
    """(distance / semi-axes)^2 of pixel x of the row: at most 1 inside the ellipsoid."""
    total = 0.0
    for k in range(3):
        u = (origin[k] + x * step[k] - centre[k]) / axes[k]
        total += u * u
    return total


@numba.njit(nogil=True, cache=True)
def _span(origin: Array, step: Array, centre: Array, axes: Array, width: int) -> tuple[int, int]:
    """Pixels [first, stop) of the row inside the ellipsoid."""
    a = b = 0.0
    c = -1.0
    for k in range(3):
        u = (origin[k] - centre[k]) / axes[k]
        du = step[k] / axes[k]
        a += du * du
        b += u * du
        c += u * u
    discriminant = b * b - a * c
    if a == 0.0 or discriminant < 0.0:
        return 0, width if a == 0.0 and c <= 0.0 else 0
    root = math.sqrt(discriminant)
    first = min(max(math.floor((-b - root) / a) - 1.0, 0.0), float(width))
    stop = min(max(math.ceil((-b + root) / a) + 2.0, 0.0), float(width))
    start, end = int(first), int(stop)
    while start < end and _squared_radius(start, origin, step, centre, axes) > 1.0:
        start += 1
    while end > start and _squared_radius(end - 1, origin, step, centre, axes) > 1.0:
        end -= 1
    return start, end


@numba.njit(nogil=True, cache=True)
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
    """
    rows, width, _ = out.shape
    step = pixel_to_pir[:, 0].copy()
    for row in range(rows):
        origin = pixel_to_pir[:, 1] * (first_row + row) + pixel_to_pir[:, 2]
        for x in range(width):
            for channel in range(3):
                out[row, x, channel] = background[channel]
        start, end = _span(origin, step, brain[0], brain[1], width)
        if start == end:
            continue
        for channel in range(3):
            for x in range(start, end):
                out[row, x, channel] = base[channel]
            for wave in range(waves.shape[1]):
                amplitude, kp, ki, kr, phase = waves[channel, wave]
                turn = kp * step[0] + ki * step[1] + kr * step[2]
                angle = kp * origin[0] + ki * origin[1] + kr * origin[2] + phase + start * turn
                sine, cosine = amplitude * math.sin(angle), amplitude * math.cos(angle)
                turn_sine, turn_cosine = math.sin(turn), math.cos(turn)
                for x in range(start, end):
                    out[row, x, channel] += sine
                    sine, cosine = sine * turn_cosine + cosine * turn_sine, cosine * turn_cosine - sine * turn_sine
        for region in range(regions.shape[0]):
            left, right = _span(origin, step, regions[region, 0], regions[region, 1], width)
            for x in range(left, right):
                for channel in range(3):
                    out[row, x, channel] += shifts[region, channel]


@numba.njit(nogil=True, cache=True)
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
    """
    rows, width, _ = out.shape
    step = pixel_to_pir[:, 0].copy()
    out[:] = 0.0
    for row in range(rows):
        origin = pixel_to_pir[:, 1] * (first_row + row) + pixel_to_pir[:, 2]
        for region in range(regions.shape[0]):
            if levels[region] == 0.0:
                continue
            start, end = _span(origin, step, regions[region, 0], regions[region, 1], width)
            for x in range(start, end):
                inside = _squared_radius(x, origin, step, regions[region, 0], regions[region, 1])
                heat = levels[region] * (1.0 - inside)
                out[row, x, 0] = 255.0 * heat * (2.0 - heat)
                out[row, x, 1] = 255.0 * heat * heat
                out[row, x, 2] = 160.0 * heat * (1.0 - heat)
