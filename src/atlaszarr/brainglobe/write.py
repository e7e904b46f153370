"""Everything that BrainGlobe's reader needs next to annotation and template, written so that manifests come last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..credit import Credit
from ..engine.finished_image import Finished
from ..engine.schedulers import SchedulerLike, resolve_scheduler
from ..engine.writer import Progress, WriteReport
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES
from ..stores.target import Target
from ..terminology.terminology import Terminology
from . import manifests, paths
from .alias import give_second_name
from .masks import write_masks
from .meshes import RESOLUTION, write_meshes
from .paths import AtlasLayout, below
from .structure_order import PostOrder
from .surfaces import check_libraries


def write(
    target: Target,
    layout: AtlasLayout,
    terminology: Terminology,
    credit: Credit,
    *,
    mesh_resolution: float = RESOLUTION,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> tuple[WriteReport, ...]:
    """Complete an atlas for BrainGlobe: masks, meshes, manifests.

    The annotation, the hemispheres and the template must be finished, at ``layout.annotation_set`` /
    ``annotation.ome.zarr`` and ``hemispheres.ome.zarr``, and ``layout.template`` / ``template.ome.zarr``. What an
    earlier call wrote is resumed, repaired, or kept if it is intact. The manifests, by which the reader finds the
    atlas, are written last.

    Parameters
    ----------
    target : Target
        The folder ``brainglobe-atlasapi``.
    layout : AtlasLayout
    terminology : Terminology
        One tree whose root's acronym is ``root``, with every label of the annotation.
    credit : Credit
        With citation and species, which the reader needs.
    mesh_resolution : float
        In um; see `write_meshes`.
    scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Returns
    -------
    tuple of WriteReport
        Of masks and meshes.

    Raises
    ------
    InputError
        If annotation or template is missing, or has not the dtype, shape and resolutions that the reader needs; or if
        the libraries for meshes are not installed. Nothing is written.
    RecordError
        If the terminology is not one tree with the root ``root``.
    TargetError
        If the target cannot be written.
    """
    annotation, template = (
        Finished.at(below(target, path))
        for path in (f"{layout.annotation_set}/{paths.ANNOTATION}", f"{layout.template}/{paths.TEMPLATE}")
    )
    documents = check(annotation, template, layout, terminology, credit)
    order = PostOrder.of(terminology)
    options: Mapping[str, Any] = {
        "scheduler": resolve_scheduler(scheduler, target.url),
        "workers": workers,
        "overwrite": overwrite,
        "take_over": take_over,
        "progress": progress,
    }
    folder = below(target, layout.annotation_set)
    target.make_way([*folders_written(layout), *documents], overwrite)
    if overwrite:
        for key in documents:
            target.remove(key)
    give_second_name(below(folder, paths.ANNOTATION), below(folder, paths.COMPRESSED))
    reports = (
        write_masks(annotation, below(folder, paths.MASKS), order, **options),
        write_meshes(annotation, below(folder, paths.PRECOMPUTED), terminology, resolution=mesh_resolution, **options),
    )
    target.write_all(documents.items())
    return reports


def folders_written(layout: AtlasLayout) -> list[str]:
    """Keys of the folders of masks and meshes, which end in ``/``."""
    return [f"{layout.annotation_set}/{name}/" for name in (paths.MASKS, paths.PRECOMPUTED)]


def check(
    annotation: Finished,
    template: Finished,
    layout: AtlasLayout,
    terminology: Terminology,
    credit: Credit,
    unknown: Sequence[str] = (),
) -> dict[str, bytes]:
    """Refuse an annotation and a template that BrainGlobe's reader cannot open together, before they are written.

    Parameters
    ----------
    annotation, template : Finished
    layout : AtlasLayout
    terminology : Terminology
    credit : Credit
    unknown : sequence of str
        Remarks on labels that the terminology lacks.

    Returns
    -------
    dict of str to bytes
        The manifests, by key; those of the atlases are last.

    Raises
    ------
    InputError
        If a label, the citation or the species is not known, a dtype or the orientation is wrong, the template lacks a
        level of the annotation, or the libraries for meshes are not installed.
    RecordError
        If the terminology is not one tree with the root ``root``.
    """
    check_libraries()
    if unknown:
        raise InputError(f"{unknown[0]}; BrainGlobe needs an ontology with all labels", code="unknown-label")
    PostOrder.of(terminology)
    for word, image, dtype in (("annotation", annotation, "uint32"), ("template", template, "uint16")):
        if image.multiscale.arrays[0].dtype != dtype:
            raise InputError(
                f"the {word} is {image.multiscale.arrays[0].dtype}; BrainGlobe needs {dtype}", code="unsupported-dtype"
            )
    if (sides := annotation.geometry.orientation.get("x", BRAINGLOBE_SIDES)) != BRAINGLOBE_SIDES:
        raise InputError(
            f"the x axis of the annotation runs {sides}, but BrainGlobe needs {BRAINGLOBE_SIDES}; build the atlas for "
            "BrainGlobe (--brainglobe)",
            code="unsupported-orientation",
        )
    shapes = dict(zip(template.resolutions, (level.shape for level in template.multiscale.pyramid.levels), strict=True))
    for level, resolution in zip(annotation.multiscale.pyramid.levels, annotation.resolutions, strict=True):
        if shapes.get(resolution) != level.shape:
            size = resolution[0]
            raise InputError(
                f"the annotation has {level.shape} voxels at {size:g} um, but the template has "
                f"{shapes.get(resolution, 'no such level')}; give a template with the levels of the annotation",
                code="shape-mismatch",
            )
    atlases = manifests.atlases(layout, credit, annotation)
    space = {f"{layout.coordinate_space}/{paths.MANIFEST}": manifests.coordinate_space(layout)}
    return space | {f"{folder}/{paths.MANIFEST}": body for folder, body in atlases.items()}
