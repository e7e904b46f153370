"""The kernel of an estimate: which chunks of a grid the sections of many datasets reach. Pure geometry.

Compiled from estimate_kernels.cpp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..native.library import FLOAT, INT, kernel, read, written

Array = NDArray[Any]

_mark_chunks = kernel(
    *("estimate_mark_chunks", INT, read("i8", 1), read("f8", 1), read("f8", 1), read("f8", 3), read("f8", 3)),
    *(read("f8", 1), read("f8", 3), read("f8", 3), read("f8", 2), FLOAT, read("i8", 1), INT, INT, FLOAT),
    *(written("u1", 4), written("u1", 1)),
)


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
    read_only = map(np.ascontiguousarray, (steps, thickness, tvr, trv, numbers, tsv, tvs, sizes))
    _mark_chunks(len(thickness), bounds, *read_only, resolution, shape, side, fill, max_gap, chunks, used)
