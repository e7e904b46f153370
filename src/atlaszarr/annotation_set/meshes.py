"""A mesh of every structure with its descendants, made from its box.

A mesh is a task, whose number is that of the level that it is made from, after the numbers of all levels.
"""

from __future__ import annotations

from ..engine.blocks import Done, Made, put
from ..engine.finished_image import Finished
from ..engine.ledger import Task
from ..engine.schedulers import Scheduler
from ..stores.target import Target
from . import precomputed, surfaces
from .structure_boxes import Extent, extents
from .structure_order import PostOrder

#: The least size of the voxels that meshes are made from, in um, if the annotation has such a level.
RESOLUTION = 50.0
#: Structures with fewer voxels are made from a finer level: their surface would be steps.
_FEW = 1000


def write_mesh(annotation: Finished, target: Target, order: PostOrder, task: Task, extent: Extent) -> list[Done]:
    """Read the box of a structure, write its mesh, and record it."""
    from .structure_index import indices_of, within

    number, (_, _, index) = task
    level = number - len(annotation.resolutions)
    labels = annotation.read(level, extent.region)
    mask = within(indices_of(labels, order)[0], order, index)
    vertices, faces = surfaces.surface(mask)
    corner = [axis.start for axis in extent.region]
    mesh, mesh_index = precomputed.draco((vertices + corner) * annotation.resolutions[level], faces)
    key = f"mesh/{order.values[index]}"
    objects = [(key, mesh), (f"{key}.index", mesh_index)]
    return put(target, [Made(task, objects, {"level": level, "voxels": extent.voxels})])


def tasks(annotation: Finished, order: PostOrder, resolution: float, scheduler: Scheduler) -> dict[Task, Extent]:
    """The tasks, the largest first, and the extent of each structure at the level of its mesh."""
    sizes = annotation.resolutions
    start = next((level for level, size in enumerate(sizes) if size[0] >= resolution), len(sizes) - 1)
    chosen: dict[int, tuple[int, Extent]] = {}
    for level in range(start, -1, -1):
        for index, extent in extents(annotation, level, order, scheduler).items():
            if index not in chosen or chosen[index][1].voxels < _FEW:
                chosen[index] = level, extent
    ordered = sorted(chosen.items(), key=lambda item: -item[1][1].voxels)
    return {(len(sizes) + level, (0, 0, index)): extent for index, (level, extent) in ordered}
