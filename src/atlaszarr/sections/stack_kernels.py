"""The 3-D pull-back of a block, row by row: what it shows, where that lies, and which sections it needs for it."""

from __future__ import annotations

import numpy as np
from numba import njit

from ..resampling.weights import Array
from .row_sampling import Placement, row_field, sample_row


@njit(cache=True, nogil=True)
def pull_back(
    start: Array,
    place: Placement,
    nearest: Array,
    neighbour: Array,
    depths: Array,
    ids: Array,
    flat: Array,
    crops: Array,
    taps: int,
    image: Array,
    label: Array,
) -> None:
    """Fill a block of voxels from the sections that show it.

    Parameters
    ----------
    start : ndarray, int64, shape (3,)
        Absolute index (z, y, x) of the block's first voxel.
    place : Placement
    nearest, neighbour : ndarray, int32, shape (m,)
        For each interval of depth the section that fills it, and the one to blend with it, or -1.
    depths : ndarray, float64, shape (n,)
        Depth of each section, in um.
    ids : ndarray, uint32, shape (n,)
        SectionImage id of each section.
    flat, crops, taps
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
    depth_row, sizes = place.depth_row, place.sizes
    blend = neighbour.max() >= 0
    section, other = np.empty(n, np.int32), np.empty(n, np.int32)
    fx, fy = np.empty(n), np.empty(n)
    values, beside = np.empty((n, 3), np.float32), np.empty((n, 3), np.float32)
    for i in range(label.shape[0]):
        for j in range(label.shape[1]):
            row_field(place, nearest, start, i, j, section, fx, fy)
            sample_row(section, fx, fy, flat, crops, sizes, taps, values)
            if blend:
                row_field(place, neighbour, start, i, j, other, fx, fy)
                sample_row(other, fx, fy, flat, crops, sizes, taps, beside)
                depth_start = depth_row[0] * (start[0] + i) + depth_row[1] * (start[1] + j) + depth_row[3]
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
def field(start: Array, place: Placement, nearest: Array, section: Array, out: Array) -> None:
    """The displacement field of a block.

    Parameters
    ----------
    start, place, nearest
        See `pull_back`.
    section : ndarray, int32, shape (z, y, x), output
    out : ndarray, float64, shape (2, z, y, x), output
        See `row_field`: (X, Y) in pixels of the tier.
    """
    for i in range(section.shape[0]):
        for j in range(section.shape[1]):
            row_field(place, nearest, start, i, j, section[i, j], out[0, i, j], out[1, i, j])


@njit(cache=True, nogil=True)
def find_shown(
    start: Array, shape: Array, place: Placement, nearest: Array, neighbour: Array, candidate: Array, shown: Array
) -> None:
    """Mark the sections that a block shows, each where a voxel samples it; stops once all candidates are found.

    Parameters
    ----------
    start, shape : ndarray, int64, shape (3,)
        The block.
    place, nearest, neighbour
        See `pull_back`.
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
            row_field(place, nearest, start, i, j, section, fx, fy)
            if blend:
                row_field(place, neighbour, start, i, j, other, fx, fy)
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
