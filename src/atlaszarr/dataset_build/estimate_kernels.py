"""The kernel of an estimate: which chunks of a grid the sections of many datasets reach. Pure geometry."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ..resampling.weights import Array


@njit(cache=True, nogil=True)
def mark_chunks(
    bounds: Array,
    steps: Array,
    thickness: Array,
    tvr: Array,
    trv: Array,
    numbers: Array,
    tsv: Array,
    tvs: Array,
    sizes: Array,
    resolution: float,
    shape: Array,
    side: int,
    fill: int,
    max_gap: float,
    chunks: Array,
    used: Array,
) -> None:
    """Mark the chunks that the slab of a section image intersects, and the sections with such a chunk.

    A section fills the same interval of depth as in `atlaszarr.sections.stack.depth_intervals`. Slab and chunk count as
    intersecting if they do along the axes of both: a chunk that touches only an edge of a slab may be marked too many.

    Parameters
    ----------
    bounds : ndarray, int64, shape (datasets + 1,)
        Rows of the sections of each dataset, which are in order of section number.
    steps : ndarray, float64, shape (datasets,)
        Nominal interval, in section numbers.
    thickness : ndarray, float64, shape (datasets,)
    tvr, trv : ndarray, float64, shape (datasets, 3, 4)
    numbers : ndarray, float64, shape (sections,)
        Section numbers.
    tsv, tvs : ndarray, float64, shape (sections, 2, 3)
    sizes : ndarray, float64, shape (sections, 2)
        Width and height, in full-resolution pixels.
    resolution : float
        Voxel size, in um.
    shape : ndarray, int64, shape (3,)
        Voxels of the grid.
    side : int
        Voxels of a chunk along an axis.
    fill : int
        0 none, 1 nearest, 2 linear.
    max_gap : float
    chunks : ndarray, uint8, shape (datasets, z, y, x)
        Zeros; set to 1 for the chunks that are marked.
    used : ndarray, uint8, shape (sections,)
        Zeros; set to 1 for the sections that are.
    """
    corner, to_pixel = np.empty((2, 3)), np.empty((2, 4))
    for n in range(len(thickness)):
        for s in range(bounds[n], bounds[n + 1]):
            interval = _interval(s, bounds[n], bounds[n + 1], numbers, thickness[n], steps[n], fill, max_gap)
            if not _bound_slab(tvr[n], tsv[s], sizes[s], interval, resolution, shape, corner):
                continue
            for i in range(2):
                for j in range(4):
                    to_pixel[i, j] = tvs[s, i, 0] * trv[n, 0, j] + tvs[s, i, 1] * trv[n, 1, j]
                to_pixel[i, 3] += tvs[s, i, 2]
            first, last = corner[0] // side, corner[1] // side
            for cz in range(int(first[0]), int(last[0]) + 1):
                for cy in range(int(first[1]), int(last[1]) + 1):
                    for cx in range(int(first[2]), int(last[2]) + 1):
                        if (not used[s] or not chunks[n, cz, cy, cx]) and (
                            _reaches((cz, cy, cx), side, shape, resolution, trv[n, 2], interval[0], interval[1])
                            and _reaches((cz, cy, cx), side, shape, resolution, to_pixel[0], -0.5, sizes[s, 0] - 0.5)
                            and _reaches((cz, cy, cx), side, shape, resolution, to_pixel[1], -0.5, sizes[s, 1] - 0.5)
                        ):
                            chunks[n, cz, cy, cx] = 1
                            used[s] = 1


@njit(cache=True, nogil=True)
def _interval(
    s: int, first: int, end: int, numbers: Array, thickness: float, step: float, fill: int, max_gap: float
) -> tuple[float, float]:
    """The depths, in um, that a section fills."""
    nominal, depth = thickness * step, numbers[s] * thickness
    reach = (thickness if fill == 0 else nominal) / 2
    widest = thickness if fill == 0 else (max_gap + 1e-6) * nominal
    low, high = depth - reach, depth + reach
    if s > first and depth - numbers[s - 1] * thickness <= widest:
        low = numbers[s - 1] * thickness
        low = low if fill == 2 else (low + depth) / 2
    if s + 1 < end and numbers[s + 1] * thickness - depth <= widest:
        high = numbers[s + 1] * thickness
        high = high if fill == 2 else (depth + high) / 2
    return low, high


@njit(cache=True, nogil=True)
def _bound_slab(
    tvr: Array, tsv: Array, size: Array, interval: tuple[float, float], resolution: float, shape: Array, out: Array
) -> bool:
    """Set `out` to the first and last voxel along each axis inside the box of a slab; return whether there are any."""
    out[0], out[1] = math.inf, -math.inf
    for corner in range(8):
        x = -0.5 + (size[0] if corner & 1 else 0.0)
        y = -0.5 + (size[1] if corner & 2 else 0.0)
        depth = interval[1] if corner & 4 else interval[0]
        u = tsv[0, 0] * x + tsv[0, 1] * y + tsv[0, 2]
        v = tsv[1, 0] * x + tsv[1, 1] * y + tsv[1, 2]
        for axis in range(3):
            at = tvr[axis, 0] * u + tvr[axis, 1] * v + tvr[axis, 2] * depth + tvr[axis, 3]
            voxel = at / resolution - 0.5
            out[0, axis] = min(out[0, axis], voxel)
            out[1, axis] = max(out[1, axis], voxel)
    inside = True
    for axis in range(3):
        out[0, axis] = max(math.ceil(out[0, axis]), 0)
        out[1, axis] = min(math.floor(out[1, axis]), shape[axis] - 1)
        inside = inside and out[0, axis] <= out[1, axis]
    return inside


@njit(cache=True, nogil=True)
def _reaches(
    chunk: tuple[int, int, int], side: int, shape: Array, resolution: float, row: Array, low: float, high: float
) -> bool:
    """Whether row . (p, i, r, 1) lies within [low, high] at some point between the voxel centres of a chunk."""
    middle, half = row[3], 0.0
    for axis in range(3):
        start = chunk[axis] * side
        end = min(start + side, shape[axis]) - 1
        middle += row[axis] * ((start + end) / 2 + 0.5) * resolution
        half += abs(row[axis]) * (end - start) / 2 * resolution
    return bool(middle + half >= low and middle - half <= high)
