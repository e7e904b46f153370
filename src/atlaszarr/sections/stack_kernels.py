"""The inner loops of a stack of sections, one row of voxels at a time. Compiled from stack_kernels.cpp.

The section of each voxel and the point in its image are computed first; then the image is interpolated at that point.
`pull_back` does both; `field` and `find_sampled` do the first alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..native.library import INT, kernel, read, written

Array = NDArray[Any]

_GEOMETRY = (
    *(read("f8", 1), read("f8", 1), read("i4", 1), read("i4", 1), INT),
    *(read("i8", 2), read("f8", 3), read("i4", 1), INT, read("f8", 5), INT, INT, INT),
)
_pull_back = kernel(
    "stack_pull_back",
    *(read("i8", 1), *_GEOMETRY, read("f8", 1), read("u4", 1), read("u1", 2), read("i8", 2), INT),
    *(read("i8", 1), written("u1", 4), written("u4", 3)),
)
_field = kernel("stack_field", read("i8", 1), *_GEOMETRY, read("i8", 1), written("i4", 3), written("f8", 4))
_find_sampled = kernel(
    "stack_find_sampled", read("i8", 1), read("i8", 1), *_GEOMETRY, written("u1", 1), written("u1", 1)
)
_find_sampled_chunks = kernel(
    "stack_find_sampled_chunks",
    *(INT, INT, read("i8", 1), *_GEOMETRY, INT, written("u1", 1), INT, INT, written("u1", 3)),
)


class StackGeometry(NamedTuple):
    """The position of a stack of sections relative to the voxels of a block.

    Attributes
    ----------
    depth_row : ndarray, float64, shape (4,)
        Depth in um = depth_row . (z, y, x, 1), for absolute voxel indices.
    edges : ndarray, float64, shape (m + 1,)
        Depth interval j is [edges[j], edges[j + 1]).
    nearest, neighbour : ndarray, int32, shape (m,)
        For each depth interval, the section that fills it and the section to blend with; -1 for none.
    sizes : ndarray, int64, shape (n, 2)
        Width and height of the tier image of each section; 0 x 0 for a missing image.
    affines : ndarray, float64, shape (n, 2, 4)
        (X, Y) in pixels of the section's tier image = affines[s] . (z, y, x, 1); of a section with a field, what is
        added to it.
    field_of : ndarray, int32, shape (n,)
        Index of the field of each section; -1 for a section with an affine.
    fields : ndarray, float64, shape (fields, 2, z, y, x)
        (X, Y) of the voxels of the block, in pixels of the tier image; of length 1 across the plane of section.
    """

    depth_row: Array
    edges: Array
    nearest: Array
    neighbour: Array
    sizes: Array
    affines: Array
    field_of: Array
    fields: Array

    def _arguments(self) -> tuple[Any, ...]:
        """The arguments of the kernels, of the types in `_GEOMETRY`."""
        depth_row, edges, nearest, neighbour, sizes, affines, field_of, fields = self
        return (
            *(depth_row, edges, nearest, neighbour, len(nearest)),
            *(sizes, affines, field_of, len(sizes), fields, *fields.shape[2:]),
        )


def pull_back(
    start: Array,
    geometry: StackGeometry,
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
    depths : ndarray, float64, shape (n,)
        Depth of each section, in um.
    ids : ndarray, uint32, shape (n,)
        SectionImage id of each section.
    flat : ndarray, uint8, shape (pixels, 3)
        The pixels of the crops of all images, concatenated, each crop in C order.
    crops : ndarray, int64, shape (n, 5)
        Offset of each crop's first pixel in `flat`, and its box in the tier image: left, top, right, bottom. A crop
        holds all pixels that the block samples from an image whose size in `geometry` is not 0 x 0.
    support : int
        Pixels along an axis that the interpolation uses; see `atlaszarr.resampling.weights`.
    image : ndarray, uint8, shape (3, z, y, x), output
        Holds the background on entry. Grey levels are rounded half up.
    label : ndarray, uint32, shape (z, y, x), output
        Holds 0 on entry. The SectionImage id of each voxel.

    Notes
    -----
    The outermost pixels of an image extend half a pixel beyond their centres. A neighbour is blended in proportion to
    depth, and only where the voxel lies inside the neighbour's image too.
    """
    shape = np.array(label.shape, np.int64)
    _pull_back(start, *geometry._arguments(), depths, ids, flat, crops, support, shape, image, label)


def field(start: Array, geometry: StackGeometry, section: Array, out: Array) -> None:
    """The displacement field of a block, without blending.

    Parameters
    ----------
    start, geometry
        See `pull_back`.
    section : ndarray, int32, shape (z, y, x), output
        The section of each voxel; -1 if no section fills the voxel or the voxel lies outside the section's image.
    out : ndarray, float64, shape (2, z, y, x), output
        The voxel's point (X, Y) in pixels of that section's tier image; NaN if `section` is -1.
    """
    _field(start, *geometry._arguments(), np.array(section.shape, np.int64), section, out)


def find_sampled(start: Array, shape: Array, geometry: StackGeometry, candidate: Array, sampled: Array) -> None:
    """Mark the sections that the voxels of a block sample.

    Parameters
    ----------
    start, shape : ndarray, int64, shape (3,)
        Index (z, y, x) of the block's first voxel, and shape of the block.
    geometry
        See `pull_back`.
    candidate : ndarray, bool, shape (n,)
        The sections that the block could sample. Entries become False when the section is found, and the search stops
        when none is left.
    sampled : ndarray, bool, shape (n,), output
    """
    _find_sampled(start, shape, *geometry._arguments(), candidate.view(np.uint8), sampled.view(np.uint8))


def find_sampled_chunks(
    slab: int, side: int, shape: Array, geometry: StackGeometry, margin: int, sampled: Array
) -> None:
    """Mark the sections that the chunks of a slab of the grid sample; all sections have affines.

    Parameters
    ----------
    slab : int
        Index of the slab along z, in chunks.
    side : int
        Side of a chunk, in voxels.
    shape : ndarray, int64, shape (3,)
        Shape of the grid.
    geometry
        See `pull_back`.
    margin : int
        Pixels around a voxel's point that the interpolation uses.
    sampled : ndarray, bool, shape (chunks along y, chunks along x, n), output
        False on input.
    """
    down, across, sections = sampled.shape
    candidate = np.empty(sections, np.uint8)
    _find_sampled_chunks(
        slab, side, shape, *geometry._arguments(), margin, candidate, down, across, sampled.view(np.uint8)
    )
