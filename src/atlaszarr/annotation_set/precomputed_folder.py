"""The folder `annotations.precomputed`: the labels at every level, meshes, and the names of structures.

One job writes all of it: first the blocks of the levels, then the meshes. The number of the task of a block is its
level; that of a mesh is the level that it is made from, plus the number of levels. ``info`` makes the folder open, and
is written last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..engine import ledger
from ..engine.finished_image import Finished
from ..engine.job import Job
from ..engine.ledger import Defect, Entry, Ledger, Task, damaged_objects, digest
from ..engine.lock import KEYS, PROBES, Owner
from ..engine.schedulers import Future, Scheduler, SchedulerLike, resolve_scheduler, scheduler_for
from ..engine.target_state import FINISHED, REMOVING, UNFINISHED
from ..engine.verify import document_defects
from ..engine.writer import Progress, WriteReport, write
from ..errors import InputError
from ..stores.backend import LARGEST_SIDECAR
from ..stores.local import is_partial
from ..stores.target import Target
from ..terminology.terminology import Terminology
from . import meshes, precomputed, segmentation, surfaces
from .meshes import RESOLUTION
from .structure_boxes import Extent
from .structure_order import PostOrder

INFO, MESHES, NAMES = "info", "mesh/info", "segment_properties/info"


def write_precomputed(
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
    """Write an annotation in neuroglancer's precomputed format, with meshes and the names of structures.

    The labels of every level are chunks of compressed_segmentation; a chunk without labels is not written.
    ``mesh/<label>`` is Draco with XYZ in nm from the corner of the first voxel, ``mesh/<label>.index`` its index
    with one level of detail. Structures that do not occur in the annotation have no mesh.

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
    job = _PrecomputedJob(annotation, target, terminology, float(resolution))
    with scheduler_for(resolve_scheduler(scheduler, target.url), workers) as running:
        return write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)


class _PrecomputedJob(Job):
    """The labels in the first pass, meshes in the second."""

    def __init__(self, annotation: Finished, target: Target, terminology: Terminology, resolution: float) -> None:
        self._annotation, self._target = annotation, target
        self._order, self._resolution = PostOrder.of(terminology), resolution
        self.fetches = set()
        self._documents = {
            NAMES: precomputed.segment_properties(terminology),
            MESHES: precomputed.mesh_info(),
            INFO: segmentation.info(annotation),
        }
        self._request = {
            "meshes_of": annotation.digest,
            "terminology": digest(self._documents[NAMES]),
            "resolution": resolution,
            "segmentation": digest(self._documents[INFO]),
        }

    @property
    def target(self) -> Target:
        """The target."""
        return self._target

    def read_state(self, overwrite: bool) -> str | None:
        """The state of the folder, by the header of its ledger."""
        found = ledger.read(self.target)
        recorded = (found.header or {}).get("request")
        if recorded is None and not found.damaged:
            return REMOVING if _has_lost_ledger(self.target, self._documents[NAMES]) else None
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
        """A task for every block, and one for every structure that occurs."""
        return [segmentation.tasks(self._annotation), list(self._extents(scheduler))]

    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Remove the documents that make the folders open, and keep only the given entries of the ledger."""
        self.target.make_way(f"{link}/" for link in self.target.links())
        self.target.remove(INFO)
        self.target.remove(MESHES)
        header = {"request": self._request, "finished": False}
        ledger.compact(self.target, ledger.compacted(header, done), {})

    def share(self, scheduler: Scheduler) -> Any:
        """The annotation."""
        return scheduler.share(self._annotation)

    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Start one future for each block or mesh."""
        extents = self._extents(scheduler)
        for task in tasks:
            if number == 0:
                yield partial(scheduler.compute, segmentation.write_block, shared, self.target, task)
            else:
                yield partial(
                    scheduler.compute, meshes.write_mesh, shared, self.target, self._order, task, extents[task]
                )

    def word(self, number: int) -> str:
        """What the tasks of a pass are called in progress."""
        return ("blocks", "meshes")[number]

    def window(self, scheduler: Scheduler) -> int:
        """Two for each worker, since a mesh may need much memory."""
        return 2 * scheduler.workers

    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Remove what no task wrote; write the ledger, the documents, and last the one that makes the folder open."""
        owner.validate(read=True)
        self._sweep(done)
        documents = {key: body.decode() for key, body in self._documents.items()}
        header = {"request": self._request, "finished": True, "documents": documents}
        ledger.compact(self.target, ledger.compacted(header, done), {})
        for key, body in self._documents.items():
            self.target.write(key, body)
        return True

    def _sweep(self, done: Mapping[Task, Entry]) -> None:
        """Remove temporary objects of a build that was killed, and chunks and meshes that no task wrote."""
        known = {key for entry in done.values() for key in entry.written} | {*self._documents}
        folders = ("mesh/", *(f"{key}/" for key in segmentation.folders(self._annotation)))
        self.target.remove_each(
            key
            for key in self.target.list_keys()
            if key not in known and (key.startswith((*folders, *PROBES)) or is_partial(key))
        )

    def _extents(self, scheduler: Scheduler) -> dict[Task, Extent]:
        if not hasattr(self, "_chosen"):
            self._chosen = meshes.tasks(self._annotation, self._order, self._resolution, scheduler)
        return self._chosen


def refuse_other(target: Target, terminology: Terminology) -> None:
    """Refuse a folder that is neither empty nor made by `write_precomputed`.

    Raises
    ------
    InputError
    """
    found = ledger.read(target)
    if not found.header and not found.damaged:
        _has_lost_ledger(target, precomputed.segment_properties(terminology))


def _has_lost_ledger(target: Target, names: bytes) -> bool:
    """Whether a folder without a ledger has only lost it, so that everything is made again; False if it is empty.

    Raises
    ------
    InputError
        If another program wrote it.
    """
    own = {MESHES: precomputed.mesh_info(), NAMES: names}
    if target.read_each(own, LARGEST_SIDECAR) == own:
        return True
    if other := [key for key in target.list_keys() if not key.startswith("atlaszarr/")]:
        raise InputError(
            f"target {target.url} is not empty (it holds {other[0]!r}); choose another target",
            code="target-not-empty",
        )
    return False


def defects(target: Target) -> list[Defect]:
    """The defects of a folder that `write_precomputed` wrote; every object is read.

    Raises
    ------
    InputError
        If the target holds no such folder.
    """
    found = ledger.read(target)
    if not found.header and not found.damaged:
        raise InputError(
            f"target {target.url} holds no segmentation and meshes of atlaszarr; give those of an atlas",
            code="not-atlaszarr",
        )
    result = [Defect("ledger", name, "cannot be read") for name in found.damaged]
    result += damaged_objects(target, found.done)
    result += document_defects(target, found)
    if not (found.header or {}).get("finished"):
        result.append(Defect("unfinished", INFO, "the folder is unfinished; build again to resume"))
    return result
