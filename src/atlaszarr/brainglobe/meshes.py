"""The folder `annotations.precomputed`: a mesh of every structure with its descendants, each read by its own box.

A mesh is a task: its record in the ledger says from which level, and a run that was stopped is gone on with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..boxes import cells, everywhere
from ..engine import checks, ledger
from ..engine.checks import Defect
from ..engine.finished_image import Finished
from ..engine.ledger import Entry, Task
from ..engine.lock import KEYS, Owner, owning, tidy
from ..engine.multiscale import digest
from ..engine.resume import WriteReport
from ..engine.schedulers import Scheduler, SchedulerLike, in_window, resolve_scheduler, scheduler_for
from ..engine.writer import Done, Progress
from ..errors import InputError
from ..stores.target import Target
from ..terminology.terminology import Terminology
from . import precomputed, surfaces
from .structure_boxes import Extent, extents
from .structure_order import PostOrder

#: um: voxels that meshes are made from have at least this size, where the annotation has such a level.
RESOLUTION = 50.0
#: Voxels of a structure for which a finer level is taken: of fewer, the surface is steps and no shape.
_FEW = 1000
INFO = "mesh/info"


def write_meshes(
    annotation: Finished,
    target: Target,
    terminology: Terminology,
    *,
    resolution: float = RESOLUTION,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> WriteReport:
    """Write the meshes of all structures that occur in an annotation, and what neuroglancer needs to name them.

    ``mesh/<identifier>`` is Draco with XYZ in nm from the corner of the first voxel, ``mesh/<identifier>.index`` its
    manifest of one level of detail. The coarsest level is written too, as a volume.

    Parameters
    ----------
    annotation : Finished
    target : Target
    terminology : Terminology
    resolution : float
        Of the level that meshes are made from, in um: the finest one of at least this size, or the last. A small
        structure takes the coarsest finer level that has 1000 voxels of it, or the finest. A task holds the voxels
        of the structure's box at that level.
    scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If the libraries for meshes are not installed, the annotation has a label that is not in the terminology, or
        the target holds something else.
    """
    surfaces.check_libraries()
    scheduler = resolve_scheduler(scheduler, target.url)
    order = PostOrder.of(terminology)
    names = digest(precomputed.segment_properties(terminology))
    request = {"meshes_of": annotation.digest, "terminology": names, "resolution": float(resolution)}
    if not _wrong(target, request, overwrite):
        tidy(target)
        return WriteReport(target.url, "already finished", 0)
    with owning(target, take_over) as owner:
        wrong = _wrong(target, request, overwrite)
        found = ledger.read(target)
        if overwrite or (found.header or {}).get("request") != request:
            target.remove_each(target.links())
            for key in target.list_keys():
                if key not in KEYS:
                    target.remove(key)
            found = ledger.Ledger()
        target.make_way(f"{link}/" for link in target.links())
        target.remove(INFO)
        redo = {defect.task for defect in wrong}
        done = {task: entry for task, entry in found.done.items() if task not in redo}
        ledger.compact(target, ledger.compacted({"request": request, "finished": False}, done), {})
        with scheduler_for(scheduler, workers) as where:
            chosen = _chosen(annotation, order, resolution, where)
            tasks = {task: extent for task, extent in chosen.items() if task not in done}
            done = {task: entry for task, entry in done.items() if task in chosen}
            done |= _run(annotation, target, order, tasks, owner, where, progress or (lambda *_: None))
        files = dict(_files(annotation, terminology))
        target.write_all(files.items())
        owner.confirm()
        written = {key: (len(body), digest(body)) for key, body in files.items()}
        ledger.compact(target, ledger.compacted({"request": request, "finished": True}, done), written)
        target.write(INFO, precomputed.mesh_info())
    return WriteReport(target.url, "resumed" if found.header else "built", len(tasks))


def defects(target: Target) -> list[Defect]:
    """What is wrong with a folder of meshes, every object read.

    Raises
    ------
    InputError
        If there is none.
    """
    found = ledger.read(target)
    if not found.header and not found.damaged:
        raise InputError(f"target {target.url} holds no meshes of atlaszarr; give the place that they were built at")
    wrong = [Defect("ledger", name, "cannot be read") for name in found.damaged]
    wrong += checks.objects(target, found.done)
    wrong += checks.documents(target, found)
    if not (found.header or {}).get("finished") or target.read(INFO) != precomputed.mesh_info():
        wrong.append(Defect("unfinished", INFO, "the meshes were not finished; build again to go on"))
    return wrong


def write_mesh(annotation: Finished, target: Target, order: PostOrder, task: Task, extent: Extent) -> Done:
    """Read the box of a structure, write its mesh, and record it."""
    from .structure_index import indices_of, within

    level, (_, _, index) = task
    labels = annotation.read(level, extent.region)
    mask = within(indices_of(labels, order, labels.shape)[0], order, index)
    vertices, faces = surfaces.surface(mask)
    corner = [axis.start for axis in extent.region]
    mesh, manifest = precomputed.draco((vertices + corner) * annotation.resolutions[level], faces)
    key = f"mesh/{order.identifiers[index]}"
    bodies = {key: mesh, f"{key}.index": manifest}
    target.write_all(bodies.items())
    origin = {"level": level, "voxels": extent.voxels}
    entry = Entry.of(task, {name: (len(body), digest(body)) for name, body in bodies.items()}, origin)
    ledger.record(target, task, entry)
    return Done(task, entry)


def _wrong(target: Target, request: Mapping[str, Any], overwrite: bool) -> list[Defect]:
    """What is to be done in a target: nothing if it is finished and sound."""
    found = ledger.read(target)
    there = (found.header or {}).get("request")
    if there is None and not found.damaged:
        if other := [key for key in target.list_keys() if not key.startswith("atlaszarr/")]:
            raise InputError(f"target {target.url} is not empty (it holds {other[0]!r}); choose another place")
        return [Defect("missing", INFO, "is not there")]
    if there is not None and there != request and not overwrite:
        names = [name for name in request if there.get(name) != request[name]]
        raise InputError(
            f"target {target.url} was made with another {' and '.join(names).replace('_', ' ')}; ask for the same, "
            "choose another place, or give --overwrite"
        )
    return [Defect("missing", INFO, "is to be replaced")] if there != request or overwrite else defects(target)


def _chosen(annotation: Finished, order: PostOrder, resolution: float, where: Scheduler) -> dict[Task, Extent]:
    """The level that each structure's mesh is made from, and its box there."""
    sizes = annotation.resolutions
    start = next((level for level, size in enumerate(sizes) if size[0] >= resolution), len(sizes) - 1)
    chosen: dict[int, tuple[int, Extent]] = {}
    for level in range(start, -1, -1):
        for index, extent in extents(annotation, level, order, where).items():
            if index not in chosen or chosen[index][1].voxels < _FEW:
                chosen[index] = level, extent
    # The largest first, so that the last ones to run are short.
    ordered = sorted(chosen.items(), key=lambda item: -item[1][1].voxels)
    return {(level, (0, 0, index)): extent for index, (level, extent) in ordered}


def _run(
    annotation: Finished,
    target: Target,
    order: PostOrder,
    tasks: Mapping[Task, Extent],
    owner: Owner,
    where: Scheduler,
    progress: Progress,
) -> dict[Task, Entry]:
    done: dict[Task, Entry] = {}
    shared = where.share(annotation)
    starts = (partial(where.compute, write_mesh, shared, target, order, *item) for item in tasks.items())
    for outcome in in_window(where, starts, 2 * where.workers):
        done[outcome.task] = outcome.entry
        progress(len(done), len(tasks), "meshes")
        owner.check()
    return done


def _files(annotation: Finished, terminology: Terminology) -> Iterator[tuple[str, bytes]]:
    """All but the meshes: names, and the coarsest level as a volume."""
    last = len(annotation.resolutions) - 1
    shape, resolution = annotation.multiscale.pyramid.levels[last].shape, annotation.resolutions[last]
    labels = annotation.read(last, everywhere(shape))
    for cell in cells(everywhere(shape), (precomputed.CHUNK,) * 3):
        z, y, x = (i * precomputed.CHUNK for i in cell)
        part = labels[z : z + precomputed.CHUNK, y : y + precomputed.CHUNK, x : x + precomputed.CHUNK]
        name, body = precomputed.volume_chunk(np.asarray(part), (z, y, x))
        yield f"{precomputed.scale_key(resolution)}/{name}", body
    yield "segment_properties/info", precomputed.segment_properties(terminology)
    yield "info", precomputed.volume_info(shape, resolution)
