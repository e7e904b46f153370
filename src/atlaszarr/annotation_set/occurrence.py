"""Which labels occur in which object of a finished annotation: from its label index, or else by counting."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..boxes import Region, everywhere, within
from ..engine.finished_image import Finished
from ..engine.label_counts import LabelCounts
from ..engine.label_index import LabelIndex, count_unit, index_of
from ..engine.multiscale import Multiscale
from ..engine.pyramid import Level, Pyramid
from ..engine.schedulers import Scheduler
from ..engine.target_state import read_root
from ..engine.task_windows import in_window

#: Approximate voxels along an axis of a block: half of a chunk of the published masks, so that a small region is cheap
#: to read.
_BLOCK = 128


def layers(annotation: Pyramid) -> Pyramid:
    """The levels of an annotation, all read from it, in blocks of whole objects of it."""
    levels = []
    for level in annotation.levels:
        z, y, x = (n * max(1, round(_BLOCK / n)) for n in level.unit)
        levels.append(Level(level.shape, (z, y, x), (z, y, x), level.factor, given=True, first=level.first))
    return Pyramid(tuple(levels))


def occurrence(annotation: Finished, scheduler: Scheduler) -> LabelIndex:
    """The label index of an annotation; one that is missing, or differs from the annotation, is made but not written.

    Raises
    ------
    TargetError
        If an object of the annotation is missing or damaged.
    """
    target, levels = annotation.multiscale.target, range(len(annotation.multiscale.pyramid.levels))
    own = read_root(target) or {}
    for level in levels:
        index, _ = index_of(target, own, level)
        if index is None or index.ledger != annotation.digest:
            break
    else:
        assert index is not None
        return index
    shared = scheduler.share(annotation.multiscale)
    blocks = layers(annotation.multiscale.pyramid).levels
    starts = (
        partial(scheduler.compute, _counted, shared, level, at.region(block))
        for level, at in enumerate(blocks)
        for block in at.units(everywhere(at.shape))
    )
    counts: dict[str, LabelCounts] = {}
    for counted in in_window(scheduler, starts, 4 * scheduler.workers):
        counts |= counted
    return LabelIndex.of(annotation.multiscale, counts, annotation.digest)


def occurring_labels(index: LabelIndex) -> set[int]:
    """The labels that occur at any level."""
    return set(np.unique(index.columns["label"]).tolist())


def _counted(multiscale: Multiscale, level: int, region: Region) -> dict[str, LabelCounts]:
    """The labels of every object in a region, by its key."""
    spec, at = multiscale.arrays[0], multiscale.pyramid.levels[level]
    labels = multiscale.read_array(spec, level, region)
    return {
        multiscale.key(spec, level, unit): count_unit(multiscale, level, unit, labels[within(at.region(unit), region)])
        for unit in at.units(region)
    }
