"""The inner loops of a stack of sections, one row of voxels at a time.

`row_field` computes the section of each voxel and the point in its image; `sample_row` interpolates the image at that
point. `pull_back` calls both; `field` and `find_sampled` call `row_field` alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ..resampling.coverage import inside
from ..resampling.weights import Array, nearest_pixel, span, weights_of


class StackGeometry(NamedTuple):
    """The position of a stack of sections relative to the voxels of a block.

    Attributes
    ----------
    depth_row : ndarray, float64, shape (4,)
        Depth in um = depth_row . (z, y, x, 1), for absolute voxel indices.
    edges : ndarray, float64, shape (m + 1,)
        Depth interval j is [edges[j], edges[j + 1]).
    sizes : ndarray, int64, shape (n, 2)
        Width and height of the tier image of each section; 0 x 0 for a missing image.
    affines : ndarray, float64, shape (n, 2, 4)
        (X, Y) in pixels of the section's tier image = affines[s] . (z, y, x, 1); NaN for a section with a field.
    field_of : ndarray, int32, shape (n,)
        Index of the field of each section; -1 for a section with an affine.
    fields : ndarray, float64, shape (fields, 2, z, y, x)
        (X, Y) of the voxels of the block, in pixels of the tier image; of length 1 across the plane of section.
    """

    depth_row: Array
    edges: Array
    sizes: Array
    affines: Array
    field_of: Array
    fields: Array


@njit(cache=True, nogil=True)
def pull_back(
    start: Array,
    geometry: StackGeometry,
    nearest: Array,
    neighbour: Array,
    depths: Array,
    ids: Array,
    flat: Array,
    crops: Array,
    support: int,
    image: Array,
    label: Array,
) -> None:
    """Fill a block of voxels from the images of its sections.

    Parameters
    ----------
    start : ndarray, int64, shape (3,)
        Absolute index (z, y, x) of the block's first voxel.
    geometry : StackGeometry
    nearest, neighbour : ndarray, int32, shape (m,)
        For each depth interval, the section that fills it and the section to blend with; -1 for none.
    depths : ndarray, float64, shape (n,)
        Depth of each section, in um.
    ids : ndarray, uint32, shape (n,)
        SectionImage id of each section.
    flat, crops, support
        See `sample_row`.
    image : ndarray, uint8, shape (3, z, y, x), output
        Holds the background on entry. Grey levels are rounded half up.
    label : ndarray, uint32, shape (z, y, x), output
        Holds 0 on entry. The SectionImage id of each voxel.

    Notes
    -----
    A neighbour is blended in proportion to depth, and only where the voxel lies inside the neighbour's image too.
    """
    n = label.shape[2]
    depth_row, sizes = geometry.depth_row, geometry.sizes
    blend = neighbour.max() >= 0
    section, other = np.empty(n, np.int32), np.empty(n, np.int32)
    fx, fy = np.empty(n), np.empty(n)
    values, blended = np.empty((n, 3), np.float32), np.empty((n, 3), np.float32)
    for i in range(label.shape[0]):
        for j in range(label.shape[1]):
            row_field(geometry, nearest, start, i, j, section, fx, fy)
            sample_row(section, fx, fy, flat, crops, sizes, support, values)
            if blend:
                row_field(geometry, neighbour, start, i, j, other, fx, fy)
                sample_row(other, fx, fy, flat, crops, sizes, support, blended)
                depth_start = depth_row[0] * (start[0] + i) + depth_row[1] * (start[1] + j) + depth_row[3]
                for k in range(n):
                    s, t = section[k], other[k]
                    if s >= 0 and t >= 0:
                        depth = depth_start + depth_row[2] * (start[2] + k)
                        share = np.float32((depth - depths[s]) / (depths[t] - depths[s]))
                        for c in range(3):
                            values[k, c] += share * (blended[k, c] - values[k, c])
            for k in range(n):
                if section[k] >= 0:
                    label[i, j, k] = ids[section[k]]
                    for c in range(3):
                        image[c, i, j, k] = np.uint8(values[k, c] + np.float32(0.5))


@njit(cache=True, nogil=True)
def field(start: Array, geometry: StackGeometry, nearest: Array, section: Array, out: Array) -> None:
    """The displacement field of a block.

    Parameters
    ----------
    start, geometry, nearest
        See `pull_back`.
    section : ndarray, int32, shape (z, y, x), output
    out : ndarray, float64, shape (2, z, y, x), output
        (X, Y) in pixels of the tier image; see `row_field`.
    """
    for i in range(section.shape[0]):
        for j in range(section.shape[1]):
            row_field(geometry, nearest, start, i, j, section[i, j], out[0, i, j], out[1, i, j])


@njit(cache=True, nogil=True)
def find_sampled(
    start: Array,
    shape: Array,
    geometry: StackGeometry,
    nearest: Array,
    neighbour: Array,
    candidate: Array,
    sampled: Array,
) -> None:
    """Mark the sections that the voxels of a block sample.

    Parameters
    ----------
    start, shape : ndarray, int64, shape (3,)
        Index (z, y, x) of the block's first voxel, and shape of the block.
    geometry, nearest, neighbour
        See `pull_back`.
    candidate : ndarray, bool, shape (n,)
        The sections that the block could sample. Entries become False when the section is found, and the search stops
        when none is left.
    sampled : ndarray, bool, shape (n,), output
    """
    left = candidate.sum()
    section, other = np.empty(shape[2], np.int32), np.empty(shape[2], np.int32)
    fx, fy = np.empty(shape[2]), np.empty(shape[2])
    blend = neighbour.max() >= 0
    at, length = start.copy(), shape.copy()
    for i in range(shape[0]):
        # Whole planes and rows that no candidate reaches are skipped: in most chunks one candidate is not sampled.
        at[0], at[1] = start[0] + i, start[1]
        length[0], length[1] = 1, shape[1]
        if not _reaches(geometry, nearest, neighbour, at, length, candidate):
            continue
        length[1] = 1
        for j in range(shape[1]):
            if left == 0:
                return
            at[1] = start[1] + j
            if not _reaches(geometry, nearest, neighbour, at, length, candidate):
                continue
            row_field(geometry, nearest, start, i, j, section, fx, fy)
            if blend:
                row_field(geometry, neighbour, start, i, j, other, fx, fy)
            for k in range(shape[2]):
                s = section[k]
                if s < 0:
                    continue
                if candidate[s]:
                    candidate[s] = False
                    sampled[s] = True
                    left -= 1
                if blend and other[k] >= 0 and candidate[other[k]]:
                    candidate[other[k]] = False
                    sampled[other[k]] = True
                    left -= 1


@njit(cache=True, nogil=True)
def _reaches(
    geometry: StackGeometry, nearest: Array, neighbour: Array, start: Array, length: Array, candidate: Array
) -> bool:
    """Whether a block may sample a candidate: its depths reach an interval of it, and its points the image."""
    low, high = _extent(geometry.depth_row, start, length)
    # The corners bound the block up to rounding; margins of 1 um and 2 pixels allow for it.
    first = int(np.searchsorted(geometry.edges, low - 1.0, side="right")) - 1
    end = int(np.searchsorted(geometry.edges, high + 1.0, side="right"))
    for interval in range(max(first, 0), min(end, len(nearest))):
        for s in (nearest[interval], neighbour[interval]):
            if s < 0 or not candidate[s]:
                continue
            if geometry.field_of[s] >= 0:
                return True
            left, right = _extent(geometry.affines[s, 0], start, length)
            top, bottom = _extent(geometry.affines[s, 1], start, length)
            width, height = geometry.sizes[s]
            if right > -2.0 and left < width + 2.0 and bottom > -2.0 and top < height + 2.0:
                return True
    return False


@njit(cache=True, nogil=True)
def find_sampled_chunks(
    first: int,
    side: int,
    shape: Array,
    geometry: StackGeometry,
    nearest: Array,
    neighbour: Array,
    margin: int,
    sampled: Array,
) -> None:
    """Mark the sections that the chunks of a slab of the grid sample; all sections have affines.

    Parameters
    ----------
    first : int
        Index of the slab along z, in chunks.
    side : int
        Side of a chunk, in voxels.
    shape : ndarray, int64, shape (3,)
        Shape of the grid.
    geometry, nearest, neighbour
        See `pull_back`.
    margin : int
        Pixels around a voxel's point that the interpolation uses.
    sampled : ndarray, bool, shape (chunks along y, chunks along x, n), output
        False on input.
    """
    start, length = np.zeros(3, np.int64), np.zeros(3, np.int64)
    candidate = np.zeros(sampled.shape[2], np.bool_)
    for j in range(sampled.shape[0]):
        for k in range(sampled.shape[1]):
            for axis, index in enumerate((first, j, k)):
                start[axis] = index * side
                length[axis] = min(side, shape[axis] - start[axis])
            low, high = _extent(geometry.depth_row, start, length)
            # The corners bound the chunk up to rounding; margins of 1 um and 1 pixel allow for it.
            reached = np.searchsorted(geometry.edges, low - 1.0, side="right") - 1
            end = np.searchsorted(geometry.edges, high + 1.0, side="right")
            candidate[:] = False
            for interval in range(len(nearest)):
                if not reached <= interval < end:
                    continue
                for s in (nearest[interval], neighbour[interval]):
                    if s >= 0 and not candidate[s]:
                        candidate[s] = True
                        for axis in range(2):
                            low, high = _extent(geometry.affines[s, axis], start, length)
                            if high + margin + 2 < 0 or low - margin >= geometry.sizes[s, axis]:
                                candidate[s] = False
            if candidate.any():
                find_sampled(start, length, geometry, nearest, neighbour, candidate, sampled[j, k])


@njit(cache=True, nogil=True)
def _extent(row: Array, start: Array, length: Array) -> tuple[float, float]:
    """The smallest and the largest value of a row of an affine over the voxels of a block."""
    low = high = row[3]
    for axis in range(3):
        one, other = row[axis] * start[axis], row[axis] * (start[axis] + length[axis] - 1)
        low += min(one, other)
        high += max(one, other)
    return low, high


@njit(cache=True, nogil=True)
def row_field(
    geometry: StackGeometry, section_of: Array, start: Array, i: int, j: int, section: Array, fx: Array, fy: Array
) -> None:
    """The displacement field of one row of voxels.

    Parameters
    ----------
    geometry : StackGeometry
    section_of : ndarray, int32, shape (m,)
        The section that fills each depth interval, or -1.
    start : ndarray, int64, shape (3,)
        Absolute index (z, y, x) of the block's first voxel.
    i, j : int
        Index of the row along z and y, relative to `start`.
    section : ndarray, int32, shape (n,), output
        The section of each voxel; -1 if no section fills the voxel or the voxel lies outside the section's image.
    fx, fy : ndarray, float64, shape (n,), output
        The voxel's point (X, Y) in pixels of that section's tier image; NaN if `section` is -1.
    """
    _by_affines(geometry, section_of, start, i, j, section, fx, fy)
    if len(geometry.fields):
        _by_fields(geometry, section_of, start, i, j, section, fx, fy)


@njit(cache=True, nogil=True)
def _by_affines(
    geometry: StackGeometry, section_of: Array, start: Array, i: int, j: int, section: Array, fx: Array, fy: Array
) -> None:
    """`row_field` by affines alone; sections with a field get -1 and NaN, since their affines are NaN."""
    depth_row, edges, sizes, affines = geometry.depth_row, geometry.edges, geometry.sizes, geometry.affines
    z, y = start[0] + i, start[1] + j
    depth_start = depth_row[0] * z + depth_row[1] * y + depth_row[3]
    low = high = np.nan
    s = s_before = -1
    x_start = y_start = 0.0
    for k in range(section.size):
        x = start[2] + k
        depth = depth_start + depth_row[2] * x
        if not (low <= depth < high):
            # Repeated in `_by_fields`: a shared function makes `pull_back` 6 % slower.
            at = np.searchsorted(edges, depth, side="right") - 1
            if at < 0 or at >= section_of.size:
                low = high = np.nan
                s = -1
            else:
                low, high, s = edges[at], edges[at + 1], section_of[at]
        if s >= 0:
            if s != s_before:
                x_start = affines[s, 0, 0] * z + affines[s, 0, 1] * y + affines[s, 0, 3]
                y_start = affines[s, 1, 0] * z + affines[s, 1, 1] * y + affines[s, 1, 3]
                s_before = s
            fx[k] = x_start + affines[s, 0, 2] * x
            fy[k] = y_start + affines[s, 1, 2] * x
            if inside(fx[k], sizes[s, 0]) and inside(fy[k], sizes[s, 1]):
                section[k] = s
                continue
        section[k] = -1
        fx[k] = np.nan
        fy[k] = np.nan


@njit(cache=True, nogil=True)
def _by_fields(
    geometry: StackGeometry, section_of: Array, start: Array, i: int, j: int, section: Array, fx: Array, fy: Array
) -> None:
    """Add the sections with a field to the result of `_by_affines`."""
    depth_row, edges, sizes, fields = geometry.depth_row, geometry.edges, geometry.sizes, geometry.fields
    depth_start = depth_row[0] * (start[0] + i) + depth_row[1] * (start[1] + j) + depth_row[3]
    i, j, last = min(i, fields.shape[2] - 1), min(j, fields.shape[3] - 1), fields.shape[4] - 1
    low = high = np.nan
    s = f = -1
    for k in range(section.size):
        depth = depth_start + depth_row[2] * (start[2] + k)
        if not (low <= depth < high):
            at = np.searchsorted(edges, depth, side="right") - 1
            low = high = np.nan
            s = -1
            if 0 <= at < section_of.size:
                low, high, s = edges[at], edges[at + 1], section_of[at]
            f = geometry.field_of[s] if s >= 0 else -1
        if f >= 0:
            x, y = fields[f, 0, i, j, min(k, last)], fields[f, 1, i, j, min(k, last)]
            if inside(x, sizes[s, 0]) and inside(y, sizes[s, 1]):
                section[k] = s
                fx[k] = x
                fy[k] = y


@njit(cache=True, nogil=True)
def sample_row(
    section: Array, fx: Array, fy: Array, flat: Array, crops: Array, sizes: Array, support: int, values: Array
) -> None:
    """Interpolate the section images at one row of voxels.

    Parameters
    ----------
    section, fx, fy : ndarray, shape (n,)
        The output of `row_field`.
    flat : ndarray, uint8, shape (pixels, 3)
        The pixels of the crops of all images, concatenated, each crop in C order.
    crops : ndarray, int64, shape (sections, 4)
        Offset of each crop's first pixel in `flat`, left and top of the crop in the tier image, and its width.
    sizes : ndarray, int64, shape (sections, 2)
        Width and height of the tier images. Their outermost pixels extend half a pixel beyond the centres.
    support : int
        Pixels along an axis that the interpolation uses; see `atlaszarr.resampling.weights`.
    values : ndarray, float32, shape (n, 3), output
        Grey levels, 0 to 255; unchanged for a voxel without a section.
    """
    if support > 2:
        _sample_wide(section, fx, fy, flat, crops, sizes, support, values)
        return
    for k in range(section.size):
        s = section[k]
        if s < 0:
            continue
        offset, left, top, width = crops[s, 0], crops[s, 1], crops[s, 2], crops[s, 3]
        if support == 1:
            at = offset + (nearest_pixel(fy[k]) - top) * width + nearest_pixel(fx[k]) - left
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
def _sample_wide(
    section: Array, fx: Array, fy: Array, flat: Array, crops: Array, sizes: Array, support: int, values: Array
) -> None:
    """`sample_row` for cubic and Lanczos, clipped to 0 to 255."""
    across, down, columns = np.empty(8), np.empty(8), np.empty(8, np.int64)
    for k in range(section.size):
        s = section[k]
        if s < 0:
            continue
        offset, left, top, width = crops[s, 0], crops[s, 1], crops[s, 2], crops[s, 3]
        column, wide, u = span(fx[k], support)
        row, high, v = span(fy[k], support)
        weights_of(wide, u, across)
        weights_of(high, v, down)
        for a in range(wide):
            columns[a] = min(max(column + a, 0), sizes[s, 0] - 1) - left
        red = green = blue = 0.0
        for b in range(high):
            line = offset + (min(max(row + b, 0), sizes[s, 1] - 1) - top) * width
            r = g = h = 0.0
            for a in range(wide):
                at = line + columns[a]
                r += across[a] * flat[at, 0]
                g += across[a] * flat[at, 1]
                h += across[a] * flat[at, 2]
            red += down[b] * r
            green += down[b] * g
            blue += down[b] * h
        values[k, 0] = min(max(red, 0.0), 255.0)
        values[k, 1] = min(max(green, 0.0), 255.0)
        values[k, 2] = min(max(blue, 0.0), 255.0)
