"""Writing masks: one pass over the annotation, with the ledger, the resume and the ownership of any other image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from .. import ledger
from ..assembly import WINDOW, Assembly, Progress
from ..blocks import Done
from ..credit import CREDIT
from ..finished import Finished
from ..ledger import Entry, Ledger, Task
from ..multiscale import Written, digest
from ..ome import DEFAULT_VERSION, multiscales
from ..ownership import Owner, owning, tidy
from ..scheduling import in_window, scheduler_for
from ..store import Target
from ..target_state import FINISHED, REMOVING, Root, clear, examine
from ..verification import tasks_to_redo, unsound
from ..writing import WriteReport
from .masks import VALUES, VALUES_KEY, Masks
from .post_order import PostOrder


def write_masks(
    annotation: Finished,
    target: Target,
    order: PostOrder,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> WriteReport:
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
    scheduler, workers, overwrite, take_over, progress
        As of `atlaszarr.build`.

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
    assembly = Assembly(masks, Root(DEFAULT_VERSION, request, CREDIT))
    state = examine(target, request, overwrite)
    if state == FINISHED and not unsound(target, state, ledger.read(target, finished=True)):
        tidy(target)
        return WriteReport(target.url, "already finished", 0)
    with owning(target, take_over) as owner:
        state = examine(target, request, overwrite)
        if state == REMOVING:
            clear(target, request)
            target.remove(VALUES)
            state = None
        recorded = ledger.read(target, state == FINISHED) if state else Ledger()
        redo = tasks_to_redo(unsound(target, state, recorded), assembly)
        done = {task: entry for task, entry in recorded.done.items() if task not in redo}
        tasks = [task for some in assembly.tasks() for task in some if task not in done]
        assembly.begin(done)
        target.write(VALUES_KEY, masks.values())
        done |= _run(masks, annotation, tasks, owner, scheduler, workers, progress or (lambda *_: None))
        assembly.commit(done, _groups(masks, annotation), [VALUES_KEY], owner)
    return WriteReport(target.url, "resumed" if state else "built", len(tasks))


def write_block(masks: Masks, annotation: Finished, task: Task) -> Done:
    """Read a block of a level of the annotation, write the masks of what occurs in it, and record them."""
    level, index = task
    region = masks.pyramid.levels[level].region(index)
    labels = annotation.read(level, region)
    written: Written = {}
    masks.target.write_all(masks._noted(masks.bodies(level, index, labels), written))
    entry = Entry.of(task, written, {})
    ledger.record(masks.target, task, entry)
    return Done(task, entry)


def _run(
    masks: Masks,
    annotation: Finished,
    tasks: list[Task],
    owner: Owner,
    scheduler: str | None,
    workers: int | None,
    progress: Progress,
) -> dict[Task, Entry]:
    done: dict[Task, Entry] = {}
    with scheduler_for(scheduler, workers) as where:
        shared, source = where.share(masks), where.share(annotation)
        starts = (partial(where.compute, write_block, shared, source, task) for task in tasks)
        for outcome in in_window(where, starts, max(WINDOW * where.workers, 2 * WINDOW)):
            done[outcome.task] = outcome.entry
            progress(len(done), len(tasks), "masks")
            owner.check()
    return done


def _groups(masks: Masks, annotation: Finished) -> Mapping[str, Mapping[str, Any]]:
    method = "1 where this level of the annotation has the structure or one below it"
    axes = masks.arrays[0].axes
    entry = multiscales(DEFAULT_VERSION, "masks", axes, annotation.geometry, masks.pyramid, method)
    return {"": {"multiscales": [entry]}}
