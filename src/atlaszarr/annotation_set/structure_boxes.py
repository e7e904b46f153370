"""The number of voxels and the box of each structure of an annotation at a level, whose blocks are each read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index, Region, everywhere
from ..engine.finished_image import Finished
from ..engine.schedulers import Scheduler
from ..engine.task_windows import in_window
from .occurrence import layers
from .structure_order import PostOrder


@dataclass(frozen=True)
class Extent:
    """The size of a structure with its descendants, at a level.

    Attributes
    ----------
    voxels : int
    region : tuple of slice
        The smallest box along (z, y, x) that holds all voxels.
    """

    voxels: int
    region: Region


def extents(annotation: Finished, level: int, order: PostOrder, scheduler: Scheduler) -> dict[int, Extent]:
    """The extent of each structure that occurs at a level, by its index."""
    at = layers(annotation.multiscale.pyramid).levels[level]
    shared = scheduler.share(annotation)
    blocks = at.units(everywhere(at.shape))
    starts = (partial(scheduler.compute, _of_block, shared, level, order, index) for index in blocks)
    counts = np.zeros(len(order), np.int64)
    lowest, highest = np.full((len(order), 3), 2**62), np.full((len(order), 3), -1)
    for indices, rows in in_window(scheduler, starts, 4 * scheduler.workers):
        counts[indices] += rows[:, 0]
        lowest[indices] = np.minimum(lowest[indices], rows[:, 1:4])
        highest[indices] = np.maximum(highest[indices], rows[:, 4:])
    by_index = {}
    for index, first in enumerate(order.firsts):
        below = slice(first, index + 1)
        if voxels := int(counts[below].sum()):
            ends = zip(lowest[below].min(axis=0), highest[below].max(axis=0) + 1, strict=True)
            z, y, x = (slice(int(start), int(stop)) for start, stop in ends)
            by_index[index] = Extent(voxels, (z, y, x))
    return by_index


def _of_block(
    annotation: Finished, level: int, order: PostOrder, block: Index
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices that occur in a block, and their rows of `structure_index.extents`, relative to the level."""
    from .structure_index import extents, indices_of

    region = layers(annotation.multiscale.pyramid).levels[level].region(block)
    labels = annotation.read(level, region)
    indices, present = indices_of(labels, order)
    rows = extents(indices, len(order))[present]
    corner = [axis.start for axis in region]
    rows[:, 1:] += corner + corner
    return np.flatnonzero(present), rows
