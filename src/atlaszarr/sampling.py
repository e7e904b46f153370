"""The inner loops of the 3-D pull-back: where a voxel lies in which section image, and what it shows there.

Every coordinate is float64 and a function of the absolute voxel index alone, so that blocks of any size
agree to the byte; float32 holds only interpolated grey levels. One row of voxels (along x) is handled at a
time: first its field, then its samples.

A stack of sections is described to these loops by

- ``depth_row`` (4,): depth in um = depth_row . (z, y, x, 1);
- ``affines`` (n, 2, 4): (X, Y) in pixels of the section's tier = affines[s] . (z, y, x, 1);
- ``sizes`` (n, 2): width and height of the tier image of each section, 0 x 0 for one that is missing;
- ``edges`` (m + 1,), ``section_of`` (m,): the section that shows depths in [edges[j], edges[j + 1]), or -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]


@njit(cache=True, nogil=True)
def row_field(
    z: int,
    y: int,
    start: int,
    depth_row: Array,
    affines: Array,
    sizes: Array,
    edges: Array,
    section_of: Array,
    section: Array,
    fx: Array,
    fy: Array,
) -> None:
    """The displacement field of one row of voxels.

    Parameters
    ----------
    z, y, start : int
        Absolute index of the row's first voxel.
    section : ndarray, int32, shape (n,), output
        The section that shows each voxel; -1 where none does.
    fx, fy : ndarray, float64, shape (n,), output
        Where in that section's tier image the voxel lies, in pixels; NaN where nowhere.

    Notes
    -----
    A voxel is shown where it falls on a pixel's area: -1/2 <= X < width - 1/2, and likewise in Y.
    """
    depth_start = depth_row[0] * z + depth_row[1] * y + depth_row[3]
    low = high = np.nan
    s = s_before = -1
    x_start = y_start = 0.0
    for k in range(section.size):
        x = start + k
        depth = depth_start + depth_row[2] * x
        if not (low <= depth < high):
            j = np.searchsorted(edges, depth, side="right") - 1
            if j < 0 or j >= section_of.size:
                low = high = np.nan
                s = -1
            else:
                low, high, s = edges[j], edges[j + 1], section_of[j]
        if s >= 0:
            if s != s_before:
                x_start = affines[s, 0, 0] * z + affines[s, 0, 1] * y + affines[s, 0, 3]
                y_start = affines[s, 1, 0] * z + affines[s, 1, 1] * y + affines[s, 1, 3]
                s_before = s
            fx[k] = x_start + affines[s, 0, 2] * x
            fy[k] = y_start + affines[s, 1, 2] * x
            if -0.5 <= fx[k] < sizes[s, 0] - 0.5 and -0.5 <= fy[k] < sizes[s, 1] - 0.5:
                section[k] = s
                continue
        section[k] = -1
        fx[k] = np.nan
        fy[k] = np.nan


@njit(cache=True, nogil=True)
def sample_row(
    section: Array, fx: Array, fy: Array, flat: Array, crops: Array, sizes: Array, linear: bool, values: Array
) -> None:
    """Interpolate one row of voxels in the plane of their section images.

    Parameters
    ----------
    section, fx, fy : ndarray, shape (n,)
        As `row_field` gives them.
    flat : ndarray, uint8, shape (pixels, 3)
        The pixels of the crops of all the images, one after another, each in C order.
    crops : ndarray, int64, shape (sections, 4)
        Offset of the crop's first pixel in `flat`; its left and top in the tier image; its width.
    sizes : ndarray, int64, shape (sections, 2)
        Width and height of the tier images: beyond their outermost pixel centres, these pixels go on.
    linear : bool
        Bilinear; else the nearest pixel.
    values : ndarray, float32, shape (n, 3), output
        Grey levels; left alone where no section is.
    """
    for k in range(section.size):
        s = section[k]
        if s < 0:
            continue
        offset, left, top, width = crops[s, 0], crops[s, 1], crops[s, 2], crops[s, 3]
        if not linear:
            column = min(int(np.floor(fx[k] + 0.5)), sizes[s, 0] - 1)
            row = min(int(np.floor(fy[k] + 0.5)), sizes[s, 1] - 1)
            at = offset + (row - top) * width + column - left
            for c in range(3):
                values[k, c] = np.float32(flat[at, c])
            continue
        column = int(np.floor(fx[k]))
        row = int(np.floor(fy[k]))
        u = np.float32(fx[k] - column)
        v = np.float32(fy[k] - row)
        west = max(column, 0) - left
        east = min(column + 1, sizes[s, 0] - 1) - left
        north = offset + (max(row, 0) - top) * width
        south = offset + (min(row + 1, sizes[s, 1] - 1) - top) * width
        for c in range(3):
            upper = np.float32(flat[north + west, c]) * (np.float32(1) - u) + np.float32(flat[north + east, c]) * u
            lower = np.float32(flat[south + west, c]) * (np.float32(1) - u) + np.float32(flat[south + east, c]) * u
            values[k, c] = upper * (np.float32(1) - v) + lower * v


@njit(cache=True, nogil=True)
def pull_back(
    start: Array,
    depth_row: Array,
    affines: Array,
    sizes: Array,
    edges: Array,
    nearest: Array,
    neighbour: Array,
    depths: Array,
    ids: Array,
    flat: Array,
    crops: Array,
    linear: bool,
    image: Array,
    label: Array,
) -> None:
    """Fill a block of voxels from the sections that show it.

    Parameters
    ----------
    start : ndarray, int64, shape (3,)
        Absolute index (z, y, x) of the block's first voxel.
    nearest, neighbour : ndarray, int32, shape (m,)
        For each interval of depth the section that fills it, and the one to blend it with, or -1.
    depths : ndarray, float64, shape (n,)
        Depth of each section, in um.
    ids : ndarray, uint32, shape (n,)
        SectionImage id of each section.
    flat, crops, linear
        See `sample_row`.
    image : ndarray, uint8, shape (3, z, y, x), output
        Comes filled with the background; grey levels round half up.
    label : ndarray, uint32, shape (z, y, x), output
        Comes filled with 0; the id of the section that made each voxel.

    Notes
    -----
    A neighbour is blended in by its share of depth, and only where it shows the voxel too.
    """
    n = label.shape[2]
    blend = neighbour.max() >= 0
    section, other = np.empty(n, np.int32), np.empty(n, np.int32)
    fx, fy = np.empty(n), np.empty(n)
    values, beside = np.empty((n, 3), np.float32), np.empty((n, 3), np.float32)
    for i in range(label.shape[0]):
        for j in range(label.shape[1]):
            z, y = start[0] + i, start[1] + j
            row_field(z, y, start[2], depth_row, affines, sizes, edges, nearest, section, fx, fy)
            sample_row(section, fx, fy, flat, crops, sizes, linear, values)
            if blend:
                row_field(z, y, start[2], depth_row, affines, sizes, edges, neighbour, other, fx, fy)
                sample_row(other, fx, fy, flat, crops, sizes, linear, beside)
                depth_start = depth_row[0] * z + depth_row[1] * y + depth_row[3]
                for k in range(n):
                    s, t = section[k], other[k]
                    if s >= 0 and t >= 0:
                        depth = depth_start + depth_row[2] * (start[2] + k)
                        share = np.float32((depth - depths[s]) / (depths[t] - depths[s]))
                        for c in range(3):
                            values[k, c] += share * (beside[k, c] - values[k, c])
            for k in range(n):
                if section[k] >= 0:
                    label[i, j, k] = ids[section[k]]
                    for c in range(3):
                        image[c, i, j, k] = np.uint8(values[k, c] + np.float32(0.5))


@njit(cache=True, nogil=True)
def field(
    start: Array,
    depth_row: Array,
    affines: Array,
    sizes: Array,
    edges: Array,
    nearest: Array,
    section: Array,
    out: Array,
) -> None:
    """The displacement field of a block.

    Parameters
    ----------
    section : ndarray, int32, shape (z, y, x), output
    out : ndarray, float64, shape (2, z, y, x), output
        See `row_field`.
    """
    for i in range(section.shape[0]):
        for j in range(section.shape[1]):
            z, y = start[0] + i, start[1] + j
            row_field(
                z, y, start[2], depth_row, affines, sizes, edges, nearest, section[i, j], out[0, i, j], out[1, i, j]
            )


@njit(cache=True, nogil=True)
def find_shown(
    start: Array,
    shape: Array,
    depth_row: Array,
    affines: Array,
    sizes: Array,
    edges: Array,
    nearest: Array,
    neighbour: Array,
    candidate: Array,
    shown: Array,
) -> None:
    """Mark the sections that a block shows, each where a voxel samples it; stops once all candidates are found.

    Parameters
    ----------
    start, shape : ndarray, int64, shape (3,)
        The block.
    candidate : ndarray, bool, shape (n,)
        A superset of what is shown; its entries turn False as they are found.
    shown : ndarray, bool, shape (n,), output
    """
    left = candidate.sum()
    section, other = np.empty(shape[2], np.int32), np.empty(shape[2], np.int32)
    fx, fy = np.empty(shape[2]), np.empty(shape[2])
    blend = neighbour.max() >= 0
    for i in range(shape[0]):
        for j in range(shape[1]):
            if left == 0:
                return
            z, y = start[0] + i, start[1] + j
            row_field(z, y, start[2], depth_row, affines, sizes, edges, nearest, section, fx, fy)
            if blend:
                row_field(z, y, start[2], depth_row, affines, sizes, edges, neighbour, other, fx, fy)
            for k in range(shape[2]):
                s = section[k]
                if s < 0:
                    continue
                if candidate[s]:
                    candidate[s] = False
                    shown[s] = True
                    left -= 1
                if blend and other[k] >= 0 and candidate[other[k]]:
                    candidate[other[k]] = False
                    shown[other[k]] = True
                    left -= 1
