"""Recognise a coarser volume that is a strided copy of a finer one, and not a reduction of it."""

from __future__ import annotations

import math

import numpy as np

from ..boxes import blocks
from .volume import ReferenceVolume

#: Side of the blocks that are compared, in voxels of the finer volume.
_BLOCK = 128


def strided_factor(coarse: ReferenceVolume, fine: ReferenceVolume) -> int | None:
    """The n for which a volume is every n-th voxel of a finer one, starting with its first.

    The first voxels of both have the same centre, and so both levels have the same translation; after a reduction by n
    it is (n - 1)/2 finer voxels larger. The Allen Institute's annotation of 50 um is every second voxel of that of
    25 um.

    Parameters
    ----------
    coarse, fine : ReferenceVolume
        They are compared block by block, up to the first block that differs.

    Returns
    -------
    int or None
        At least 2; None if the ratio of the voxel sizes is not one whole number, the shapes do not fit, or a voxel
        differs.
    """
    import dask

    ratios = [c / f for c, f in zip(coarse.voxel_size, fine.voxel_size, strict=True)]
    n = round(ratios[0])
    if n < 2 or not all(math.isclose(ratio, n, rel_tol=1e-6) for ratio in ratios):
        return None
    if tuple(-(-length // n) for length in fine.array.shape) != coarse.array.shape:
        return None
    z, y, x = coarse.array.shape
    for _, region in blocks((z, y, x), max(1, _BLOCK // n)):
        strided = tuple(slice(axis.start * n, (axis.stop - 1) * n + 1, n) for axis in region)
        if not np.array_equal(*dask.compute(coarse.array[region], fine.array[strided], scheduler="threads")):
            return None
    return n
