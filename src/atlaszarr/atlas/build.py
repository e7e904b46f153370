"""`build_atlas`: annotation, template, hemispheres, terminology and region volumes, laid out as they are published."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..allen.client import AllenClient
from ..annotation_set import masks, meshes, surfaces
from ..annotation_set.structure_order import PostOrder
from ..assets import names as paths
from ..assets.names import VOLUMES, AtlasNames, below
from ..brainglobe import demands
from ..credit import Credit, credit_of
from ..engine.finished_image import Finished
from ..engine.inputs import locations_read
from ..engine.job import ImageJob
from ..engine.schedulers import SchedulerLike, resolve_scheduler, scheduler_for, worker_count
from ..engine.writer import Progress, WriteReport, write
from ..errors import AtlaszarrWarning, InputError
from ..reference_volumes import open_annotation, open_template
from ..regions.tables import to_csv
from ..regions.volumes import region_volumes
from ..stores.locations import protocol_of
from ..stores.target import Target
from ..stores.temporary import temporary_folder
from ..terminology.terminology import Terminology
from . import record, registration
from .ccf import Recognised
from .images import annotation_image, hemispheres_image, template_image
from .inputs import Uri, open_volumes, refuse_other_table, refuse_overlaps, refuse_unknown, terminology_from, uris_of
from .layouts import Layout
from .levels import Levels, corner_of, levels_of
from .second_name import give_second_name


@dataclass(frozen=True)
class AtlasReport:
    """The result of `build_atlas`.

    Attributes
    ----------
    target : str
    images : tuple of WriteReport
        Of the annotation, the template, the hemispheres, and masks and meshes, as far as the layout has them.
    remarks : tuple of str
        Warnings about the sources.
    volumes : str
        Path or URL of the table of region volumes.
    contradictions : tuple of str
        Those of `remarks` on options that contradict the header of a source.
    """

    target: str
    images: tuple[WriteReport, ...]
    remarks: tuple[str, ...]
    volumes: str
    contradictions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The attributes, in JSON's types."""
        return {**self.__dict__, "images": [dict(image.__dict__) for image in self.images]}


def build_atlas(  # noqa: PLR0915 - one step after another
    target: Uri,
    *,
    annotation: Uri | Sequence[Uri],
    template: Uri | Sequence[Uri] = (),
    ontology: Terminology | Uri | None = None,
    name: str | None = None,
    version: str | None = None,
    citation: str | None = None,
    terms: str | None = None,
    species: str | None = None,
    asymmetric: bool | None = None,
    layout: str | Sequence[str] = "plain",
    brainglobe: bool = False,
    strict: bool = False,
    template_name: str | None = None,
    template_version: str | None = None,
    space_name: str | None = None,
    space_version: str | None = None,
    terminology_name: str | None = None,
    terminology_version: str | None = None,
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
        NRRD, NIfTI, MetaImage, TIFF or OME-Zarr: a path, or any URL that fsspec opens. The finest of several is level
        0, and each other one replaces the level of its resolution, with the origin of its own voxels.
    template : str, path-like or several
        Same as `annotation`, with integers or floating point numbers.
    ontology : Terminology, str or path-like, optional
        A file that `Terminology.read` reads; default for the CCF structure graph 1 of the Allen API. The CCF is
        recognised by the extent and the axes of its volumes, and by its labels. BrainGlobe needs a tree whose root is
        ``root``, identifiers that are the labels, and no acronym twice.
    name, version : str, optional
        Name and version of the atlas and its annotation, see `atlaszarr.assets.names.AtlasNames`; default for the CCF
        ``allen-adult-mouse`` and ``2017``.
    citation, terms, species : str, optional
        Citation, terms of use and species, for the metadata; default for the CCF those of the Allen Institute, and
        for its other data its name and terms. Nothing is recorded that is not known.
    asymmetric : bool, optional
        Whether the left half does not mirror the right one; default False for the CCF, else True.
    layout : str or sequence of str
        ``plain``: annotation, template, hemispheres, terminology and region volumes. ``assets``: also the standard
        "Atlas Asset Organization": manifests, masks, meshes, segmentation, NIfTI. ``brainglobe``: also what the reader
        of BrainGlobe needs, a template with the levels of the annotation among it; x then runs ``right-to-left``, as
        BrainGlobe names the CCF, in metadata, manifests and hemispheres; else ``left-to-right``.
    brainglobe : bool
        Same as the layout ``brainglobe``, next to those that are given.
    strict : bool
        Whether to leave out every name that the standard lacks; only with the layout ``assets`` alone.
    template_name, template_version, space_name, space_version, terminology_name, terminology_version : str, optional
        Name and version of the template, the coordinate space and the terminology; default for the CCF those of the
        Allen Institute, else those of the atlas.
    orientation, voxel_size
        Of all volumes, if their files lack them or are wrong; see `atlaszarr.reference_volumes.open_annotation`. A
        remark names each header that they contradict.
    allow_unknown : bool
        Whether to accept labels of the annotation that the ontology lacks, also if it lacks most of them.
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
    parts = Layout.of(layout, brainglobe=brainglobe, strict=strict)
    _refuse_wrong_use(uris, template_uris, voxel_size, parts, ome_zarr)
    names = AtlasNames.of(
        name,
        version,
        template_name=template_name,
        template_version=template_version,
        space_name=space_name,
        space_version=space_version,
        terminology_name=terminology_name,
        terminology_version=terminology_version,
    )
    names.refuse_versions(parts.assets, parts.brainglobe)
    root = Target.of(target, storage_options if protocol_of(target) else None)
    worker_count(workers)
    scheduler = resolve_scheduler(scheduler, root.url)
    written_to = _targets_written(root, names, parts)
    refuse_overlaps((*uris, *template_uris), written_to)
    options: dict[str, Any] = {"overwrite": overwrite, "take_over": take_over, "progress": progress}
    terminology = None if ontology is None else terminology_from(ontology, client, target, storage_options)
    openings = {"annotation": (open_annotation, uris), "template": (open_template, template_uris)}
    documents: dict[str, bytes] = {}
    with ExitStack() as stack:
        folder = spool or stack.enter_context(temporary_folder())
        sides = parts.sides
        frame = {"orientation": orientation, "voxel_size": voxel_size, "origin": f"as{sides[0]}"}
        sources = {
            kind: open_volumes(stack, opening, given, folder, target, storage_options, frame)
            for kind, (opening, given) in openings.items()
            if given
        }
        every = [volume for of_kind in sources.values() for volume in of_kind]
        read = [*uris, *template_uris, *(url for volume in every for url in locations_read(volume.array))]
        refuse_overlaps(read, written_to)  # a level may be a link
        corner = corner_of(sources["annotation"], sources.get("template", ()))
        opened = {kind: levels_of(of_kind, corner, chunk, shard, sides) for kind, of_kind in sources.items()}
        recognised = Recognised.of(sources["annotation"], terminology)
        unknown = [] if terminology is None else refuse_unknown(recognised.labels, terminology, allow_unknown)
        recognised.refuse_defaults(name, version, terminology, allow_unknown)
        if terminology is None:
            terminology = terminology_from(None, client, target, storage_options)
            unknown = refuse_unknown(recognised.labels, terminology, allow_unknown)
        credit = credit_of(
            recognised.is_ccf, recognised.in_frame, (*uris, *template_uris), citation, terms, species, asymmetric
        )
        images = _images(opened, root, names, parts, terminology, recognised.all_labels, ome_zarr, credit)
        order = PostOrder.of(terminology) if parts.has_annotation_set else None
        if parts.brainglobe:
            one, other = (Finished(images[kind].multiscale, opened[kind].geometry, "") for kind in opened)
            documents = demands.check(one, other, names, terminology, credit, unknown)
        for image in images.values():
            image.read_state(overwrite)
        running = stack.enter_context(scheduler_for(scheduler, workers))
        table = terminology.to_csv().encode()
        files = {
            f"{path}/{paths.TERMINOLOGY}": table for path in (names.terminology.folder, names.annotation_set.folder)
        }
        refuse_other_table(ontology, root, files)
        stale = _make_way(root, names, parts, images, (*files, *documents), overwrite, read)
        record.begin(root, names, files, overwrite, stale)
        reports = [write(image, running, **options) for image in images.values()]
        files[_made_later(names, parts)[0]] = _volumes_table(images["annotation"].target, terminology)
        if order is not None:
            given = {"scheduler": scheduler, "workers": workers, **options}
            reports += _write_annotation_set(root, names, parts, images["annotation"].target, terminology, order, given)
            if parts.second_name:
                alias = _made_later(names, parts)[-1]
                files[alias] = root.read(alias) or b""
            files |= registration.kept(root, documents)
    volumes = {kind: levels.volumes for kind, levels in opened.items()}
    remarks = [
        *unknown,
        *recognised.remarks,
        *(text for volume in every for text in volume.all_remarks),
        *terminology.remarks,
    ]
    record.finish(root, names, files, volumes, [report.target for report in reports], remarks, sides, credit)
    return AtlasReport(
        root.url,
        tuple(reports),
        tuple(remarks),
        f"{root.url}/{names.annotation_set.folder}/{VOLUMES}",
        tuple(text for volume in every for text in volume.contradictions),
    )


def _write_annotation_set(
    root: Target,
    names: AtlasNames,
    parts: Layout,
    annotation: Target,
    terminology: Terminology,
    order: PostOrder,
    options: Mapping[str, Any],
) -> list[WriteReport]:
    """Write what is made from a finished annotation: its second name, masks and meshes."""
    folder = below(root, names.annotation_set.folder)
    if parts.second_name is not None:
        give_second_name(annotation, below(folder, parts.second_name))
    finished = Finished.at(annotation)
    return [
        masks.write_masks(finished, below(folder, paths.MASKS), order, **options),
        meshes.write_meshes(finished, below(folder, paths.PRECOMPUTED), terminology, **options),
    ]


def _refuse_wrong_use(
    uris: Sequence[Uri], template_uris: Sequence[Uri], voxel_size: Any, parts: Layout, ome_zarr: str
) -> None:
    if not uris:
        raise InputError("an atlas needs an annotation; give one (--annotation)", code="missing-annotation")
    if voxel_size is not None and max(len(uris), len(template_uris)) > 1:
        raise InputError(
            "a voxel size is that of all volumes, but several annotations or templates are given, one for each "
            "resolution; correct the sizes in their headers instead of --voxel-size",
            code="one-voxel-size",
        )
    if parts.brainglobe and not template_uris:
        raise InputError("BrainGlobe needs a template; give one (--template)", code="missing-template")
    if parts.has_annotation_set:
        if ome_zarr != "0.5":
            who = "BrainGlobe needs" if parts.brainglobe else "the standard needs"
            raise InputError(f"{who} OME-Zarr 0.5, not {ome_zarr}; leave --ome-zarr out", code="not-supported")
        surfaces.check_libraries()


def _made_later(names: AtlasNames, parts: Layout) -> list[str]:
    """Keys of the files that are made from the images: the table of volumes, and the annotation's second name."""
    folder = names.annotation_set.folder
    alias = [f"{folder}/{parts.second_name}/zarr.json"] if parts.second_name else []
    return [f"{folder}/{VOLUMES}", *alias]


def _make_way(
    root: Target,
    names: AtlasNames,
    parts: Layout,
    images: Mapping[str, ImageJob],
    files: Sequence[str],
    overwrite: bool,
    read: Sequence[Uri],
) -> list[str]:
    """Validate that nothing is in the way of the atlas; the paths of an earlier one that it does not make.

    Raises
    ------
    InputError
        If a folder is a link, or a source lies in a path of the earlier atlas that is to be removed.
    """
    keys = [*(f"{image.target.url.removeprefix(root.url)[1:]}/" for image in images.values()), *files]
    if parts.has_annotation_set:
        keys += [f"{names.annotation_set.folder}/{name}/" for name in (paths.MASKS, paths.PRECOMPUTED)]
    keys.append(record.key(names))
    stale = record.leftovers(root, names, [*keys, *_made_later(names, parts)]) if overwrite else []
    refuse_overlaps(read, [below(root, path) for path in stale])
    root.make_way(keys, overwrite)
    return stale


def _images(
    opened: Mapping[str, Levels],
    root: Target,
    names: AtlasNames,
    parts: Layout,
    terminology: Terminology,
    labels: Sequence[int],
    ome_zarr: str,
    credit: Credit,
) -> dict[str, ImageJob]:
    """The jobs of the images of an atlas: annotation, template if there is one, and hemispheres."""
    annotation, targets = opened["annotation"], _image_targets(root, names, parts)
    images = {"annotation": annotation_image(annotation, targets["annotation"], terminology, labels, ome_zarr, credit)}
    if "template" in opened:
        images["template"] = template_image(opened["template"], targets["template"], ome_zarr, credit)
    layers = annotation.pyramid, annotation.geometry
    images["hemispheres"] = hemispheres_image(*layers, targets["hemispheres"], ome_zarr, credit)
    return images


def _image_targets(root: Target, names: AtlasNames, parts: Layout) -> dict[str, Target]:
    """The targets of the images of an atlas."""
    folder = names.annotation_set.folder
    return {
        "annotation": below(root, f"{folder}/{parts.annotation}"),
        "template": below(root, f"{names.template.folder}/{paths.TEMPLATE}"),
        "hemispheres": below(root, f"{folder}/{paths.HEMISPHERES}"),
    }


def _targets_written(root: Target, names: AtlasNames, parts: Layout) -> list[Target]:
    """The targets of all images and meshes: no source may lie in them."""
    more = (paths.COMPRESSED, paths.MASKS, paths.PRECOMPUTED) if parts.has_annotation_set else ()
    others = [below(root, f"{names.annotation_set.folder}/{name}") for name in more]
    return [*_image_targets(root, names, parts).values(), *others]


def _volumes_table(annotation: Target, terminology: Terminology) -> bytes:
    """The volumes of all regions, also by hemisphere, as CSV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtlaszarrWarning)  # on labels without a structure: a remark names them
        options: dict[str, Any] = {"storage_options": json.loads(annotation.storage_options), "allow_unknown": True}
        volumes = region_volumes(annotation.url, terminology, by_hemisphere=True, **options)
    return to_csv(volumes).encode()
