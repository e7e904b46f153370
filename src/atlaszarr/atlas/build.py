"""`build_atlas`: annotation, template, hemispheres, terminology and region volumes, laid out as they are published."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..allen.client import AllenClient
from ..brainglobe import paths
from ..brainglobe import write as brainglobe_atlas
from ..brainglobe.paths import AtlasLayout, below
from ..engine.finished_image import Finished
from ..engine.inputs import locations_read
from ..engine.job import ImageJob
from ..engine.schedulers import SchedulerLike, resolve_scheduler, scheduler_for, worker_count
from ..engine.writer import Progress, WriteReport, write
from ..errors import AtlaszarrWarning, InputError
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION
from ..reference_volumes import open_annotation, open_template
from ..regions.tables import to_csv
from ..regions.volumes import region_volumes
from ..stores.locations import protocol_of
from ..stores.target import Target
from ..stores.temporary import temporary_folder
from ..terminology.terminology import Terminology
from . import manifest
from .images import annotation_image, hemispheres_image, template_image
from .inputs import Uri, labels_of, open_levels, refuse_other_table, refuse_overlaps, terminology_from, uris_of
from .levels import Levels, check_extent

#: The table of region volumes, next to the annotation.
VOLUMES = "volumes.csv"


@dataclass(frozen=True)
class AtlasReport:
    """The result of `build_atlas`.

    Attributes
    ----------
    target : str
    images : tuple of WriteReport
        Of the annotation, the template, the hemispheres and, for BrainGlobe, masks and meshes.
    remarks : tuple of str
        Warnings about the sources.
    volumes : str
        Path or URL of the table of region volumes.
    """

    target: str
    images: tuple[WriteReport, ...]
    remarks: tuple[str, ...]
    volumes: str

    def to_dict(self) -> dict[str, Any]:
        """The attributes, in JSON's types."""
        return {**self.__dict__, "images": [dict(image.__dict__) for image in self.images]}


def build_atlas(
    target: Uri,
    *,
    annotation: Uri | Sequence[Uri],
    template: Uri | Sequence[Uri] = (),
    ontology: Terminology | Uri | None = None,
    name: str = "allen-adult-mouse",
    version: str = "2017",
    brainglobe: bool = False,
    orientation: str | None = None,
    voxel_size: float | Sequence[float] | None = None,
    allow_unknown: bool = False,
    chunk: int | None = None,
    shard: int | None = None,
    ome_zarr: str = "0.5",
    spool: Uri | None = None,
    client: AllenClient | None = None,
    storage_options: Mapping[str, Any] | None = None,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> AtlasReport:
    """Build an atlas: every volume multiscale, with its terminology, and the volume of every region.

    What an earlier call with the same arguments built is resumed, repaired, or kept if it is intact.

    Parameters
    ----------
    target : str or path-like
        A folder, or a URL that fsspec opens; it may hold other atlases. For BrainGlobe the folder
        ``brainglobe-atlasapi``.
    annotation : str, path-like or several
        NRRD, NIfTI, TIFF or OME-Zarr: a path, or any URL that fsspec opens. The finest of several is level 0, and each
        other one replaces the level of its resolution, with the origin of its own voxels.
    template : str, path-like or several
        Same as `annotation`, with integers or floating point numbers.
    ontology : Terminology, str or path-like, optional
        A file that `Terminology.read` reads; default structure graph 1 of the Allen API. BrainGlobe needs a tree whose
        root is ``root``, identifiers that are the labels, and no acronym twice.
    name, version : str
        Name and version of the atlas; see `atlaszarr.brainglobe.paths.AtlasLayout`.
    brainglobe : bool
        Whether to also write masks, meshes and manifests, which BrainGlobe's reader needs. Needs a template with the
        levels of the annotation. x then runs ``right-to-left``, as BrainGlobe names the CCF, in metadata, manifests
        and hemispheres; else ``left-to-right``.
    orientation, voxel_size
        Of all volumes, if their files lack them or are wrong; see `atlaszarr.reference_volumes.open_annotation`.
    allow_unknown : bool
        Whether to accept labels of the annotation that the ontology lacks.
    chunk, shard
        Same as in `atlaszarr.build`; the default chunk is 64 voxels wide, 80 at 10 um.
    ome_zarr : str
        0.4, 0.5 or 0.6; BrainGlobe needs 0.5.
    spool : str or path-like, optional
        A folder for voxels of files that can only be read from their beginning, until the build ends. The workers of a
        cluster must reach it. Default: a temporary folder.
    client : AllenClient, optional
        Fetches the default ontology.
    storage_options : mapping, optional
        Options for fsspec, for the target and for sources of the same protocol.
    scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Returns
    -------
    AtlasReport

    Raises
    ------
    InputError, NotFoundError, RecordError
        If a source or an option cannot be used, or the target holds something else.
    SourceError, ServiceError
        If a source cannot be reached.
    TargetError
        If the target cannot be written.
    """
    uris, template_uris = uris_of(annotation), uris_of(template)
    if not uris:
        raise InputError("an atlas needs an annotation; give one (--annotation)", code="missing-annotation")
    if brainglobe and not template_uris:
        raise InputError("BrainGlobe needs a template; give one (--template)", code="missing-template")
    if brainglobe and ome_zarr != "0.5":
        raise InputError(f"BrainGlobe needs OME-Zarr 0.5, not {ome_zarr}; leave --ome-zarr out", code="not-supported")
    layout = AtlasLayout(str(name), str(version))
    root = Target.of(target, storage_options if protocol_of(target) else None)
    worker_count(workers)
    scheduler = resolve_scheduler(scheduler, root.url)
    written_to = _targets_written(root, layout, brainglobe)
    refuse_overlaps((*uris, *template_uris), written_to)
    options: dict[str, Any] = {"overwrite": overwrite, "take_over": take_over, "progress": progress}
    terminology = terminology_from(ontology, client, target, storage_options)
    documents: dict[str, bytes] = {}
    with ExitStack() as stack:
        folder = spool or stack.enter_context(temporary_folder())
        sides = BRAINGLOBE_SIDES if brainglobe else ORIENTATION["x"]
        frame = {"orientation": orientation, "voxel_size": voxel_size, "origin": f"as{sides[0]}"}
        opened = {
            kind: open_levels(stack, opening, sources, folder, target, storage_options, frame, (chunk, shard, sides))
            for kind, opening, sources in (
                ("annotation", open_annotation, uris),
                ("template", open_template, template_uris),
            )
            if sources
        }
        volumes = {kind: levels.volumes for kind, levels in opened.items()}
        for volume in (volume for by_level in volumes.values() for volume in by_level.values()):
            refuse_overlaps(locations_read(volume.array), written_to)  # a level may be a link
        labels, unknown = labels_of(opened["annotation"], terminology, allow_unknown)
        images = _images(opened, root, layout, terminology, labels, ome_zarr)
        if brainglobe:
            if unknown:
                raise InputError(f"{unknown[0]}; BrainGlobe needs an ontology with all labels", code="unknown-label")
            one, other = (Finished(images[kind].multiscale, opened[kind].geometry, "") for kind in opened)
            documents = brainglobe_atlas.check(one, other, layout, terminology)
        for image in images.values():
            image.read_state(overwrite)
        running = stack.enter_context(scheduler_for(scheduler, workers))
        table = terminology.to_csv().encode()
        files = {f"{path}/{paths.TERMINOLOGY}": table for path in (layout.terminology, layout.annotation_set)}
        refuse_other_table(ontology, root, files)
        folders = [f"{image.url.removeprefix(root.url)[1:]}/" for image in _image_targets(root, layout).values()]
        more = brainglobe_atlas.keys_written(layout, documents) if brainglobe else []
        root.make_way([*folders, *files, *more, manifest.key(layout)], overwrite)
        manifest.begin(root, layout, files, overwrite)
        reports = [write(image, running, **options) for image in images.values()]
        files[f"{layout.annotation_set}/{VOLUMES}"] = _volumes_table(images["annotation"].target, terminology)
        if brainglobe:
            options |= {"scheduler": scheduler, "workers": workers}
            reports += brainglobe_atlas.write(root, layout, terminology, **options)
            alias = f"{layout.annotation_set}/{paths.COMPRESSED}/zarr.json"
            files |= {**documents, alias: root.read(alias) or b""}
    remarks = [
        *unknown,
        *(text for by_level in volumes.values() for volume in by_level.values() for text in volume.all_remarks),
        *terminology.remarks,
    ]
    manifest.finish(root, layout, files, volumes, [report.target for report in reports], remarks, sides)
    return AtlasReport(root.url, tuple(reports), tuple(remarks), f"{root.url}/{layout.annotation_set}/{VOLUMES}")


def _images(
    opened: Mapping[str, Levels],
    root: Target,
    layout: AtlasLayout,
    terminology: Terminology,
    labels: Sequence[int],
    ome_zarr: str,
) -> dict[str, ImageJob]:
    """The jobs of the images of an atlas: annotation, template if there is one, and hemispheres."""
    annotation, targets = opened["annotation"], _image_targets(root, layout)
    images = {"annotation": annotation_image(annotation, targets["annotation"], terminology, labels, ome_zarr)}
    if "template" in opened:
        check_extent(opened["template"], annotation)
        images["template"] = template_image(opened["template"], targets["template"], ome_zarr)
    images["hemispheres"] = hemispheres_image(annotation.pyramid, annotation.geometry, targets["hemispheres"], ome_zarr)
    return images


def _image_targets(root: Target, layout: AtlasLayout) -> dict[str, Target]:
    """The targets of the images of an atlas."""
    return {
        "annotation": below(root, f"{layout.annotation_set}/{paths.ANNOTATION}"),
        "template": below(root, f"{layout.template}/{paths.TEMPLATE}"),
        "hemispheres": below(root, f"{layout.annotation_set}/{paths.HEMISPHERES}"),
    }


def _targets_written(root: Target, layout: AtlasLayout, brainglobe: bool) -> list[Target]:
    """The targets of all images and meshes: no source may lie in them."""
    more = (paths.COMPRESSED, paths.MASKS, paths.PRECOMPUTED) if brainglobe else ()
    others = [below(root, f"{layout.annotation_set}/{name}") for name in more]
    return [*_image_targets(root, layout).values(), *others]


def _volumes_table(annotation: Target, terminology: Terminology) -> bytes:
    """The volumes of all regions, also by hemisphere, as CSV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtlaszarrWarning)  # on labels without a structure: `labels_of` remarks on them
        options = json.loads(annotation.storage_options)
        volumes = region_volumes(annotation.url, terminology, by_hemisphere=True, storage_options=options)
    return to_csv(volumes).encode()
