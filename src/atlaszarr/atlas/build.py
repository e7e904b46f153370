"""`build_atlas`: annotation, template, hemispheres, terminology and region volumes, laid out as they are published."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..allen.client import AllenClient
from ..brainglobe import paths as names
from ..brainglobe import write as brainglobe_writing
from ..brainglobe.paths import Layout, below
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
from ..terminology.terminology import Terminology
from .images import annotation_image, hemispheres_image, template_image
from .inputs import Uri, labels_of, open_levels, refuse_other_table, refuse_overlaps, terminology_from, uris_of
from .levels import Levels, check_extent
from .manifest import Record

#: Beside the annotation.
VOLUMES = "volumes.csv"


@dataclass(frozen=True)
class AtlasReport:
    """What `build_atlas` did.

    Attributes
    ----------
    target : str
    images : tuple of WriteReport
        Of the annotation, the template, the hemispheres and, for BrainGlobe, masks and meshes.
    remarks : tuple of str
        What was found out about the sources, and should be known.
    volumes : str
        Where the table of region volumes lies.
    """

    target: str
    images: tuple[WriteReport, ...]
    remarks: tuple[str, ...]
    volumes: str

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, in JSON's types."""
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

    What was built before by the same call is gone on with, mended, or left if it is sound.

    Parameters
    ----------
    target : str or path-like
        A folder, or a URL that fsspec opens; other atlases may lie there. For BrainGlobe the folder
        ``brainglobe-atlasapi``.
    annotation : str, path-like or several
        NRRD, NIfTI, TIFF or OME-Zarr, a path or any URL that fsspec opens. Of several the finest is level 0, and each
        other one takes the place of the level of its resolution, where it lies by its own voxels.
    template : str, path-like or several
        Likewise; integers or floating point.
    ontology : Terminology, str or path-like, optional
        A structure graph or a terminology.csv; default structure graph 1 of the Allen API.
    name, version : str
        Of the atlas; see `atlaszarr.brainglobe.paths.Layout`.
    brainglobe : bool
        Whether to write all else that BrainGlobe's reader opens: masks, meshes, manifests. Needs a template with the
        levels of the annotation. x then runs ``right-to-left``, as BrainGlobe names the CCF, in metadata, manifests
        and hemispheres; else ``left-to-right``.
    orientation, voxel_size
        Of all volumes, where their files do not say or are wrong; see `atlaszarr.reference_volumes.open_annotation`.
    allow_unknown : bool
        Whether to go on although the annotation holds labels that the ontology lacks.
    chunk, shard
        As of `atlaszarr.build`; the default chunk is 64 voxels wide, 80 at 10 um.
    ome_zarr : str
        0.4, 0.5 or 0.6; BrainGlobe needs 0.5.
    spool : str or path-like, optional
        A folder for voxels of files that can only be read from their beginning, for as long as the build lasts; one
        that the workers of a cluster reach. Default a temporary one.
    client : AllenClient, optional
        For the ontology.
    storage_options : mapping, optional
        To fsspec, for the target and for sources of the same protocol.
    scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

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
        raise InputError("an atlas needs an annotation; give one (--annotation)")
    if brainglobe and not (template_uris and ome_zarr == "0.5"):
        raise InputError("BrainGlobe needs a template and OME-Zarr 0.5; give --template, and no other version")
    layout = Layout(str(name), str(version))
    place = Target.of(target, storage_options if protocol_of(target) else None)
    worker_count(workers)
    scheduler = resolve_scheduler(scheduler, place.url)
    written_to = places_written(place, layout, brainglobe)
    refuse_overlaps((*uris, *template_uris), written_to)
    options: dict[str, Any] = {
        "scheduler": scheduler,
        "workers": workers,
        "overwrite": overwrite,
        "take_over": take_over,
        "progress": progress,
    }
    terminology = terminology_from(ontology, client, target, storage_options)
    record, documents = Record(place, layout), {}
    with ExitStack() as stack:
        folder = spool or stack.enter_context(tempfile.TemporaryDirectory(prefix="atlaszarr-"))
        sides = BRAINGLOBE_SIDES if brainglobe else ORIENTATION["x"]
        frame = {"orientation": orientation, "voxel_size": voxel_size, "origin": f"as{sides[0]}"}
        opened = {
            kind: open_levels(stack, opening, some, folder, target, storage_options, frame, (chunk, shard, sides))
            for kind, opening, some in (
                ("annotation", open_annotation, uris),
                ("template", open_template, template_uris),
            )
            if some
        }
        for volume in (one for levels in opened.values() for one in levels.volumes.values()):
            refuse_overlaps(locations_read(volume.array), written_to)  # a level may be a link
        annotations = opened["annotation"]
        labels, unknown = labels_of(annotations, terminology, allow_unknown)
        images = atlas_images(opened, place, layout, terminology, labels, ome_zarr)
        if brainglobe:
            if unknown:
                raise InputError(f"{unknown[0]}; BrainGlobe cannot show it: give the ontology that it is of")
            one, other = (Finished(images[n].multiscale, opened[n].geometry, "") for n in opened)
            documents = brainglobe_writing.check(one, other, layout, terminology)
        for image in images.values():
            image.read_state(overwrite)
        where = stack.enter_context(scheduler_for(scheduler, workers))
        table = terminology.to_csv().encode()
        files = {f"{one}/{names.TERMINOLOGY}": table for one in (layout.terminology, layout.annotation_set)}
        refuse_other_table(ontology, place, files)
        folders = [f"{one.url.removeprefix(place.url)[1:]}/" for one in image_targets(place, layout).values()]
        more = brainglobe_writing.keys_written(layout, documents) if brainglobe else []
        place.make_way([*folders, *files, *more, record.key], overwrite)
        record.begin(files, overwrite)
        written = [
            write(image, where, overwrite=overwrite, take_over=take_over, progress=progress)
            for image in images.values()
        ]
        files[f"{layout.annotation_set}/{VOLUMES}"] = _table(images["annotation"].target, terminology)
        if brainglobe:
            written += brainglobe_writing.write(place, layout, terminology, **options)
            files |= documents | _second_name(place, layout)
        given = {kind: levels.volumes for kind, levels in opened.items()}
    remarks = [*unknown, *(text for some in given.values() for volume in some.values() for text in volume.all_remarks)]
    remarks += terminology.remarks
    record.finish(files, given, [report.target for report in written], remarks, sides)
    return AtlasReport(place.url, tuple(written), tuple(remarks), f"{place.url}/{layout.annotation_set}/{VOLUMES}")


def atlas_images(
    opened: Mapping[str, Levels],
    place: Target,
    layout: Layout,
    terminology: Terminology,
    labels: Sequence[int],
    ome_zarr: str,
) -> dict[str, ImageJob]:
    """The images of an atlas, none of them written yet: those that are opened, in their order, and hemispheres."""
    annotations, targets = opened["annotation"], image_targets(place, layout)
    images = {"annotation": annotation_image(annotations, targets["annotation"], terminology, labels, ome_zarr)}
    if "template" in opened:
        check_extent(opened["template"], annotations)
        images["template"] = template_image(opened["template"], targets["template"], ome_zarr)
    images["hemispheres"] = hemispheres_image(
        annotations.pyramid, annotations.geometry, targets["hemispheres"], ome_zarr
    )
    return images


def image_targets(place: Target, layout: Layout) -> dict[str, Target]:
    """Where the images of an atlas lie."""
    return {
        "annotation": below(place, f"{layout.annotation_set}/{names.ANNOTATION}"),
        "template": below(place, f"{layout.template}/{names.TEMPLATE}"),
        "hemispheres": below(place, f"{layout.annotation_set}/{names.HEMISPHERES}"),
    }


def places_written(place: Target, layout: Layout, brainglobe: bool) -> list[Target]:
    """Where everything goes that is large: no source may lie there."""
    more = (names.COMPRESSED, names.MASKS, names.PRECOMPUTED) if brainglobe else ()
    others = [below(place, f"{layout.annotation_set}/{name}") for name in more]
    return [*image_targets(place, layout).values(), *others]


def _second_name(place: Target, layout: Layout) -> dict[str, bytes]:
    """What shows that the annotation is there under its second name."""
    key = f"{layout.annotation_set}/{names.COMPRESSED}/zarr.json"
    return {key: place.read(key) or b""}


def _table(annotation: Target, terminology: Terminology) -> bytes:
    """The volumes of all regions, by hemisphere too, as CSV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtlaszarrWarning)  # of labels without a structure: a remark already
        options = json.loads(annotation.storage_options)
        found = region_volumes(annotation.url, terminology, by_hemisphere=True, storage_options=options)
    return to_csv(found).encode()
