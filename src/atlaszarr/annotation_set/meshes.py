"""The folder `annotations.precomputed`: a mesh of every structure with its descendants, made from its box.

A mesh is a task; its entry in the ledger records the level that it is made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..boxes import cells, everywhere
from ..engine import ledger
from ..engine.blocks import Done
from ..engine.finished_image import Finished
from ..engine.job import Job
from ..engine.ledger import Defect, Entry, Ledger, Task, damaged_objects, digest
from ..engine.lock import KEYS, Owner
from ..engine.schedulers import Future, Scheduler, SchedulerLike, resolve_scheduler, scheduler_for
from ..engine.target_state import FINISHED, REMOVING, UNFINISHED
from ..engine.verify import document_defects
from ..engine.writer import Progress, WriteReport, write
from ..errors import InputError
from ..stores.backend import LARGEST_SIDECAR
from ..stores.target import Target
from ..terminology.terminology import Terminology
from . import precomputed, surfaces
from .structure_boxes import Extent, extents
from .structure_order import PostOrder

#: The least size of the voxels that meshes are made from, in um, if the annotation has such a level.
RESOLUTION = 50.0
#: Structures with fewer voxels are made from a finer level: their surface would be steps.
_FEW = 1000
INFO, NAMES = "mesh/info", "segment_properties/info"


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
    """Write the meshes of all structures that occur in an annotation, with their names for neuroglancer.

    ``mesh/<identifier>`` is Draco with XYZ in nm from the corner of the first voxel, ``mesh/<identifier>.index`` its
    manifest with one level of detail. The coarsest level is also written, as a volume.

    Parameters
    ----------
    annotation : Finished
    target : Target
    terminology : Terminology
    resolution : float
        Of the level that meshes are made from, in um: the finest one of at least this size, or the last. A small
        structure is made from the coarsest finer level with 1000 voxels of it, or the finest level. A task holds the
        box of the structure at that level in memory.
    scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If the libraries for meshes are not installed, or the target holds something else.
    """
    surfaces.check_libraries()
    job = _MeshJob(annotation, target, terminology, float(resolution))
    with scheduler_for(resolve_scheduler(scheduler, target.url), workers) as running:
        return write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)


class _MeshJob(Job):
    """The folder of meshes; a task is a mesh, identified by its level and the index of its structure."""

    def __init__(self, annotation: Finished, target: Target, terminology: Terminology, resolution: float) -> None:
        self._annotation, self._target, self._terminology = annotation, target, terminology
        self._order, self._resolution = PostOrder.of(terminology), resolution
        self.fetches = set()
        names = digest(precomputed.segment_properties(terminology))
        self._request = {"meshes_of": annotation.digest, "terminology": names, "resolution": resolution}

    @property
    def target(self) -> Target:
        """The target."""
        return self._target

    def read_state(self, overwrite: bool) -> str | None:
        """The state of the folder, by the header of its ledger."""
        found = ledger.read(self.target)
        recorded = (found.header or {}).get("request")
        if recorded is None and not found.damaged:
            own = {INFO: precomputed.mesh_info(), NAMES: precomputed.segment_properties(self._terminology)}
            if self.target.read_each(own, LARGEST_SIDECAR) == own:
                return REMOVING  # only the ledger is missing: everything is made again
            if other := [key for key in self.target.list_keys() if not key.startswith("atlaszarr/")]:
                raise InputError(
                    f"target {self.target.url} is not empty (it holds {other[0]!r}); choose another target",
                    code="target-not-empty",
                )
            return None
        if recorded is not None and recorded != self._request and not overwrite:
            names = [name for name in self._request if recorded.get(name) != self._request[name]]
            raise InputError(
                f"target {self.target.url} was made with another {' and '.join(names).replace('_', ' ')}; give the "
                "same, choose another target, or give --overwrite",
                code="different-options",
            )
        if recorded != self._request or overwrite:
            return REMOVING
        return FINISHED if (found.header or {}).get("finished") else UNFINISHED

    def clear(self) -> None:
        """Remove everything except the lock."""
        self.target.remove_each(self.target.links())
        for key in self.target.list_keys():
            if key not in KEYS:
                self.target.remove(key)

    def read_ledger(self, state: str) -> Ledger:
        """The ledger."""
        return ledger.read(self.target)

    def defects(self, state: str, recorded: Ledger) -> list[Defect]:
        """All defects; every object is read."""
        return defects(self.target)

    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """A task for every structure that occurs, the largest first, so that the last tasks are short."""
        return [list(self._extents(scheduler))]

    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Remove the metadata of the folder of meshes, and keep only the given entries of the ledger."""
        self.target.make_way(f"{link}/" for link in self.target.links())
        self.target.remove(INFO)
        header = {"request": self._request, "finished": False}
        ledger.compact(self.target, ledger.compacted(header, done), {})

    def share(self, scheduler: Scheduler) -> Any:
        """The annotation."""
        return scheduler.share(self._annotation)

    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Start one future for each mesh."""
        extents = self._extents(scheduler)
        for task in tasks:
            yield partial(scheduler.compute, write_mesh, shared, self.target, self._order, task, extents[task])

    def word(self, number: int) -> str:
        """What the tasks are called in progress."""
        return "meshes"

    def window(self, scheduler: Scheduler) -> int:
        """Two for each worker, since a mesh may need much memory."""
        return 2 * scheduler.workers

    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Write the names and the coarsest level, the ledger, and last the metadata of the folder of meshes."""
        files = dict(_files(self._annotation, self._terminology))
        self.target.write_all(files.items())
        owner.validate(read=True)
        written = {key: (len(body), digest(body)) for key, body in files.items()}
        header = {"request": self._request, "finished": True}
        ledger.compact(self.target, ledger.compacted(header, done), written)
        self.target.write(INFO, precomputed.mesh_info())
        return True

    def _extents(self, scheduler: Scheduler) -> dict[Task, Extent]:
        if not hasattr(self, "_chosen"):
            self._chosen = _chosen(self._annotation, self._order, self._resolution, scheduler)
        return self._chosen


def defects(target: Target) -> list[Defect]:
    """The defects of a folder of meshes; every object is read.

    Raises
    ------
    InputError
        If the target holds no meshes of atlaszarr.
    """
    found = ledger.read(target)
    if not found.header and not found.damaged:
        raise InputError(
            f"target {target.url} holds no meshes of atlaszarr; give the target of a build", code="not-atlaszarr"
        )
    result = [Defect("ledger", name, "cannot be read") for name in found.damaged]
    result += damaged_objects(target, found.done)
    result += document_defects(target, found)
    if not (found.header or {}).get("finished") or target.read(INFO) != precomputed.mesh_info():
        result.append(Defect("unfinished", INFO, "the meshes are unfinished; build again to resume"))
    return result


def write_mesh(annotation: Finished, target: Target, order: PostOrder, task: Task, extent: Extent) -> list[Done]:
    """Read the box of a structure, write its mesh, and record it."""
    from .structure_index import indices_of, within

    level, (_, _, index) = task
    labels = annotation.read(level, extent.region)
    mask = within(indices_of(labels, order, labels.shape)[0], order, index)
    vertices, faces = surfaces.surface(mask)
    corner = [axis.start for axis in extent.region]
    mesh, manifest = precomputed.draco((vertices + corner) * annotation.resolutions[level], faces)
    key = f"mesh/{order.values[index]}"
    bodies = {key: mesh, f"{key}.index": manifest}
    target.write_all(bodies.items())
    origin = {"level": level, "voxels": extent.voxels}
    entry = Entry.of(task, {name: (len(body), digest(body)) for name, body in bodies.items()}, origin)
    ledger.record(target, task, entry)
    return [Done(task, entry)]


def _chosen(annotation: Finished, order: PostOrder, resolution: float, scheduler: Scheduler) -> dict[Task, Extent]:
    """The tasks, the largest first, and the extent of each structure at the level of its mesh."""
    sizes = annotation.resolutions
    start = next((level for level, size in enumerate(sizes) if size[0] >= resolution), len(sizes) - 1)
    chosen: dict[int, tuple[int, Extent]] = {}
    for level in range(start, -1, -1):
        for index, extent in extents(annotation, level, order, scheduler).items():
            if index not in chosen or chosen[index][1].voxels < _FEW:
                chosen[index] = level, extent
    ordered = sorted(chosen.items(), key=lambda item: -item[1][1].voxels)
    return {(level, (0, 0, index)): extent for index, (level, extent) in ordered}


def _files(annotation: Finished, terminology: Terminology) -> Iterator[tuple[str, bytes]]:
    """All files other than meshes: names, and the coarsest level as a volume."""
    last = len(annotation.resolutions) - 1
    shape, resolution = annotation.multiscale.pyramid.levels[last].shape, annotation.resolutions[last]
    labels = annotation.read(last, everywhere(shape))
    for cell in cells(everywhere(shape), (precomputed.CHUNK,) * 3):
        z, y, x = (i * precomputed.CHUNK for i in cell)
        part = labels[z : z + precomputed.CHUNK, y : y + precomputed.CHUNK, x : x + precomputed.CHUNK]
        name, body = precomputed.volume_chunk(np.asarray(part), (z, y, x))
        yield f"{precomputed.scale_key(resolution)}/{name}", body
    yield NAMES, precomputed.segment_properties(terminology)
    yield "info", precomputed.volume_info(shape, resolution)
