"""All of an atlas that BrainGlobe's reader needs beside annotation and template, in the order that makes it safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..engine.finished_image import Finished
from ..engine.schedulers import SchedulerLike, resolve_scheduler
from ..engine.writer import Progress, WriteReport
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES
from ..stores.target import Target
from ..terminology.terminology import Terminology
from . import manifests
from . import paths as names
from .alias import give_second_name
from .manifests import About
from .masks import write_masks
from .meshes import RESOLUTION, write_meshes
from .paths import AtlasLayout, below
from .structure_order import PostOrder
from .surfaces import check_libraries


def write(
    target: Target,
    layout: AtlasLayout,
    terminology: Terminology,
    *,
    about: About | None = None,
    mesh_resolution: float = RESOLUTION,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> tuple[WriteReport, ...]:
    """Complete an atlas for BrainGlobe: masks, meshes, manifests.

    The annotation, the hemispheres and the template are there already, finished, at ``layout.annotation_set`` /
    ``annotation.ome.zarr`` and ``hemispheres.ome.zarr``, and ``layout.template`` / ``template.ome.zarr``. What was
    written before is gone on with, or left if it is sound.
    The manifests by which the reader finds the atlas are written last.

    Parameters
    ----------
    target : Target
        The folder ``brainglobe-atlasapi``.
    layout : AtlasLayout
    terminology : Terminology
        One tree whose root's acronym is ``root``, with every label of the annotation.
    about : About, optional
        Default: that of the CCFv3.
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
        If annotation and template are not there, or not of the kind, shape and resolutions that the reader needs; or
        the libraries for meshes are not installed. Nothing is written.
    RecordError
        If the terminology is not such a tree.
    TargetError
        If the target cannot be written.
    """
    annotation, template = (
        Finished.at(below(target, path))
        for path in (f"{layout.annotation_set}/{names.ANNOTATION}", f"{layout.template}/{names.TEMPLATE}")
    )
    documents = check(annotation, template, layout, terminology, about)
    order = PostOrder.of(terminology)
    options: Mapping[str, Any] = {
        "scheduler": resolve_scheduler(scheduler, target.url),
        "workers": workers,
        "overwrite": overwrite,
        "take_over": take_over,
        "progress": progress,
    }
    folder = below(target, layout.annotation_set)
    target.make_way(keys_written(layout, documents), overwrite)
    if overwrite:
        for key in documents:
            target.remove(key)
    give_second_name(below(folder, names.ANNOTATION), below(folder, names.COMPRESSED))
    reports = (
        write_masks(annotation, below(folder, names.MASKS), order, **options),
        write_meshes(annotation, below(folder, names.PRECOMPUTED), terminology, resolution=mesh_resolution, **options),
    )
    target.write_all(documents.items())
    return reports


def keys_written(layout: AtlasLayout, documents: Iterable[str]) -> list[str]:
    """Where masks, meshes and manifests are written: keys of folders, which end in ``/``, and of documents."""
    return [f"{layout.annotation_set}/{name}/" for name in (names.MASKS, names.PRECOMPUTED)] + list(documents)


def check(
    annotation: Finished, template: Finished, layout: AtlasLayout, terminology: Terminology, about: About | None = None
) -> dict[str, bytes]:
    """Whether BrainGlobe's reader can open an annotation and a template together, written already or not.

    Parameters
    ----------
    annotation, template : Finished
    layout : AtlasLayout
    terminology : Terminology
    about : About, optional

    Returns
    -------
    dict of str to bytes
        The manifests, by key; those that make an atlas of the rest are last.

    Raises
    ------
    InputError
        If one is of another kind, the template lacks a level of the annotation, or the libraries for meshes are not
        installed.
    RecordError
        If the terminology is not one tree with the root ``root``.
    """
    check_libraries()
    PostOrder.of(terminology)
    for word, image, dtype in (("annotation", annotation, "uint32"), ("template", template, "uint16")):
        if image.multiscale.arrays[0].dtype != dtype:
            raise InputError(f"the {word} is {image.multiscale.arrays[0].dtype}; BrainGlobe needs {dtype}")
    if (stated := annotation.geometry.orientation.get("x", BRAINGLOBE_SIDES)) != BRAINGLOBE_SIDES:
        raise InputError(
            f"the annotation's x axis runs {stated}, where BrainGlobe's reader takes it for {BRAINGLOBE_SIDES}; build "
            "the atlas for BrainGlobe (--brainglobe)"
        )
    shapes = dict(zip(template.resolutions, (level.shape for level in template.multiscale.pyramid.levels), strict=True))
    for level, resolution in zip(annotation.multiscale.pyramid.levels, annotation.resolutions, strict=True):
        if shapes.get(resolution) != level.shape:
            size = resolution[0]
            raise InputError(
                f"the annotation has {level.shape} voxels at {size:g} um where the template has "
                f"{shapes.get(resolution, 'none')}; give a template with the levels of the annotation"
            )
    atlases = manifests.atlases(layout, about or About(), annotation)
    space = {f"{layout.coordinate_space}/{names.MANIFEST}": manifests.coordinate_space(layout)}
    return space | {f"{place}/{names.MANIFEST}": body for place, body in atlases.items()}
