"""Where the structures of an annotation lie: how many voxels, and in which box, found block by block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index, Region, everywhere
from ..engine.finished_image import Finished
from ..engine.schedulers import Scheduler, in_window
from .masks import layers
from .structure_order import PostOrder


@dataclass(frozen=True)
class Extent:
    """Of a structure with its descendants, at a level.

    Attributes
    ----------
    voxels : int
    region : tuple of slice
        The smallest along (z, y, x) that holds them.
    """

    voxels: int
    region: Region


def extents(annotation: Finished, level: int, order: PostOrder, where: Scheduler) -> dict[int, Extent]:
    """Where each structure lies at a level, by its index; what does not occur is left out."""
    at = layers(annotation.multiscale.pyramid).levels[level]
    shared = where.share(annotation)
    blocks = at.units(everywhere(at.shape))
    starts = (partial(where.compute, _of_block, shared, level, order, index) for index in blocks)
    counts = np.zeros(len(order), np.int64)
    lowest, highest = np.full((len(order), 3), 2**62), np.full((len(order), 3), -1)
    for indices, rows in in_window(where, starts, 4 * where.workers):
        counts[indices] += rows[:, 0]
        lowest[indices] = np.minimum(lowest[indices], rows[:, 1:4])
        highest[indices] = np.maximum(highest[indices], rows[:, 4:])
    found = {}
    for index, first in enumerate(order.firsts):
        below = slice(first, index + 1)
        if voxels := int(counts[below].sum()):
            ends = zip(lowest[below].min(axis=0), highest[below].max(axis=0) + 1, strict=True)
            z, y, x = (slice(int(start), int(stop)) for start, stop in ends)
            found[index] = Extent(voxels, (z, y, x))
    return found


def _of_block(
    annotation: Finished, level: int, order: PostOrder, block: Index
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices that occur in a block, and their rows of `lookup.extents` in the coordinates of the level."""
    from .structure_index import extents, indices_of

    region = layers(annotation.multiscale.pyramid).levels[level].region(block)
    labels = annotation.read(level, region)
    indices, present = indices_of(labels, order, labels.shape)
    rows = extents(indices, len(order))[present]
    corner = [axis.start for axis in region]
    rows[:, 1:] += corner + corner
    return np.flatnonzero(present), rows
