"""Writing masks: one pass over the annotation, with the ledger, the resume and the ownership of any other image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from .. import credit
from ..boxes import Index
from ..engine import ledger
from ..engine.finished_image import Finished
from ..engine.ledger import Entry
from ..engine.multiscale import Written, digest
from ..engine.ome import DEFAULT_VERSION, multiscales
from ..engine.pyramid import Pass
from ..engine.resume import WriteReport, complete
from ..engine.schedulers import Future, Scheduler
from ..engine.target_state import Root
from ..engine.writer import Assembly, Done, making, starting
from ..stores.target import Target
from .masks import VALUES_KEY, Masks
from .structure_order import PostOrder


def write_masks(annotation: Finished, target: Target, order: PostOrder, **options: Any) -> WriteReport:
    """Write the masks of all structures with their descendants, at every level of an annotation.

    The array of each level is uint8 (c, z, y, x), 1 where the annotation's level has the structure or one below it;
    ``annotation_values`` (uint32) tells the structure of each c. A block of a level is read once, and of the
    structures that do not occur in it nothing is written (but in the first, so that every structure has a folder).

    Parameters
    ----------
    annotation : Finished
        Integers, 0 where no structure is.
    target : Target
    order : PostOrder
    **options
        ``scheduler``, ``workers``, ``overwrite``, ``take_over`` and ``progress``, same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If the annotation has a label that is not in `order`, or the target holds something else.
    TargetError
        If the target cannot be written.
    """
    masks = Masks.over(target, annotation.multiscale.pyramid, order)
    described = json.dumps(masks.to_json())
    request = {"masks_of": annotation.digest, "masks": digest(described.encode()), "structures": len(order)}

    def values(_: str) -> list[str]:
        target.write(VALUES_KEY, masks.values())
        return [VALUES_KEY]

    return complete(
        Assembly(masks, Root(DEFAULT_VERSION, request, credit.SECTIONS), _groups(masks, annotation)),
        lambda where: partial(_computing, where, annotation),
        **options,
        beside=values,
    )


def write_block(masks: Masks, annotation: Finished, level: int, index: Index) -> Done:
    """Read a block of a level of the annotation, write the masks of what occurs in it, and record them."""
    task = (level, index)
    with making(masks, level, index):
        region = masks.pyramid.levels[level].region(index)
        labels = annotation.read(level, region)
        written: Written = {}
        masks.target.write_all(masks._noted(masks.bodies(level, index, labels), written))
        entry = Entry.of(task, written, {})
        ledger.record(masks.target, task, entry)
        return Done(task, entry)


def _computing(
    scheduler: Scheduler, annotation: Finished, shared: Any, step: Pass, blocks: Sequence[Index]
) -> Iterator[Callable[[], Future]]:
    source = scheduler.share(annotation)
    return starting(scheduler, write_block, (shared, source, step.source), blocks)


def _groups(masks: Masks, annotation: Finished) -> Mapping[str, Mapping[str, Any]]:
    method = "1 where this level of the annotation has the structure or one below it"
    axes = masks.arrays[0].axes
    entry = multiscales(DEFAULT_VERSION, "masks", axes, annotation.geometry, masks.pyramid, method)
    return {"": {"multiscales": [entry]}}
