"""`build_atlas`: annotation, template, hemispheres, terminology and region volumes, laid out as they are published."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..allen.client import AllenClient
from ..annotation_set import masks, precomputed_folder, surfaces
from ..annotation_set.structure_order import PostOrder
from ..assets.names import MANIFEST, AtlasNames, below
from ..brainglobe import demands, listing, manifests
from ..credit import Credit, credit_of
from ..engine.finished_image import Finished
from ..engine.inputs import locations_read
from ..engine.job import ImageJob
from ..engine.lock import Owner, owning
from ..engine.notebook import table_html
from ..engine.schedulers import Scheduler, SchedulerLike, resolve_scheduler, scheduler_for, worker_count
from ..engine.writer import Progress, WriteReport, write
from ..errors import AtlaszarrWarning, InputError
from ..reference_volumes import ReferenceVolume, open_annotation, open_template
from ..regions.volumes import region_volumes
from ..stores.documents import parse_object
from ..stores.locations import protocol_of
from ..stores.target import Target
from ..stores.temporary import temporary_folder
from ..terminology.terminology import Terminology
from . import registration
from .ccf import Recognised
from .documents import documents_of
from .images import annotation_image, hemispheres_image, template_image
from .inputs import (
    Uri,
    open_volumes,
    refuse_other_table,
    refuse_overlaps,
    refuse_unknown,
    terminology_from,
    terminology_named,
    uris_of,
)
from .layouts import Layout
from .levels import Levels, corner_of, levels_of
from .nifti_export import export_nifti, nifti_header
from .record import Record
from .second_name import give_second_name, is_other
from .template_levels import as_uint16, template_levels
from .tree import Tree

if TYPE_CHECKING:
    from pandas import DataFrame


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

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows: list[tuple[str, object]] = [
            ("target", self.target),
            ("images", [f"{image.state}: {image.target}" for image in self.images]),
            ("region volumes", self.volumes),
            *([("remarks", self.remarks)] if self.remarks else []),
        ]
        return table_html("Atlas", rows)


def build_atlas(
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

    What an earlier call with the same arguments built is resumed, repaired, or kept if it is intact. With `overwrite`
    all of it is built again.

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
        A terminology, or a file that `Terminology.read` reads. Default: the terminology that the manifests name, if an
        annotation is given as an annotation set, an atlas or a manifest of the standard; else, for the CCF, structure
        graph 1 of the Allen API. `atlaszarr.atlas.ccf` says how the CCF is recognised. BrainGlobe needs a tree whose
        root is ``root``, identifiers that are the labels, and no acronym twice.
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
        Name and version of the template, the coordinate space and the terminology. Default: those of the atlas; for
        the atlas ``allen-adult-mouse`` ``2017`` those of the Allen Institute, whatever its annotation is.
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
        A local folder with room for the voxels of files that can only be read from their beginning, until the build
        ends, and for each NIfTI file until it is put into an object store. The workers of a cluster must reach it.
        Default: a temporary folder.
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
    chosen = Layout.of(layout, brainglobe=brainglobe, strict=strict)
    _refuse_wrong_use(uris, template_uris, voxel_size, chosen, ome_zarr)
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
    names.refuse_versions(chosen.assets, chosen.brainglobe)
    tree = Tree(Target.of(target, storage_options if protocol_of(target) else None), names, chosen)
    worker_count(workers)
    scheduler = resolve_scheduler(scheduler, tree.root.url)
    refuse_overlaps((*uris, *template_uris), tree.targets())
    if ontology is None:
        ontology = terminology_named(uris, target, storage_options)
    terminology = None if ontology is None else terminology_from(ontology, client, target, storage_options)
    with ExitStack() as stack:
        folder = spool or stack.enter_context(temporary_folder())
        frame = {"orientation": orientation, "voxel_size": voxel_size, "origin": f"as{chosen.sides[0]}"}
        sources = {
            kind: open_volumes(stack, opening, given, folder, target, storage_options, frame)
            for kind, opening, given in (
                ("annotation", open_annotation, uris),
                ("template", open_template, template_uris),
            )
            if given
        }
        every = [volume for of_kind in sources.values() for volume in of_kind]
        read = [*uris, *template_uris, *(url for volume in every for url in locations_read(volume.array))]
        refuse_overlaps(read, tree.targets())  # a level may be a link
        levels, remarks = _levels(sources, chunk, shard, chosen)
        recognised = Recognised.of(sources["annotation"], terminology)
        unknown = [] if terminology is None else refuse_unknown(recognised.labels, terminology, allow_unknown)
        recognised.refuse_defaults(name, version, terminology, allow_unknown)
        if terminology is None:
            terminology = terminology_from(None, client, target, storage_options)
            unknown = refuse_unknown(recognised.labels, terminology, allow_unknown)
        credit = credit_of(
            recognised.is_ccf, recognised.in_frame, (*uris, *template_uris), citation, terms, species, asymmetric
        )
        plan = _planned(tree, levels, terminology, recognised.all_labels, unknown, credit, ome_zarr, overwrite)
        refuse_other_table(ontology, tree.root, plan.tables)
        running = stack.enter_context(scheduler_for(scheduler, workers))
        _refuse_others(plan, read)
        # One build of the atlas at a time: another one, also with --overwrite, would change what this one has made.
        owner = stack.enter_context(owning(below(tree.root, tree.annotation_set), take_over))
        _begin(plan, read)
        options: dict[str, Any] = {"overwrite": overwrite, "take_over": take_over, "progress": progress}
        reports = [write(image, running, **options) for image in plan.images.values()]
        reports += _write_derived(plan, scheduler=scheduler, workers=workers, **options)
        _write_exports(plan, owner, running, progress, folder)
        volumes = tree.volume_bodies(_volumes(plan.annotation, terminology))
        remarks = [
            *unknown,
            *(f"{uri} has no label: every voxel is 0" for uri, found in recognised.labels.items() if not found.any()),
            *recognised.remarks,
            *remarks,
            *(text for volume in every for text in volume.all_remarks),
            *terminology.remarks,
        ]
        used = {kind: of_kind.volumes for kind, of_kind in levels.items()}
        with tree.changing():
            owner.validate(read=True)
            # With what other builds have shared or registered meanwhile.
            files = tree.terminology_tables(terminology) | volumes | tree.second_root() | plan.shared_documents()
            files = registration.with_registered(tree.root, files, plan.unused_templates)
            plan.record.finish(files, used, [report.target for report in reports], remarks, credit)
        if plan.is_listed:
            listing.update(tree.root, names.name)
    return AtlasReport(
        tree.root.url,
        tuple(reports),
        tuple(remarks),
        f"{tree.root.url}/{tree.volumes}",
        tuple(text for volume in every for text in volume.contradictions),
    )


@dataclass(frozen=True)
class _Plan:
    """Everything that an atlas consists of, before anything is written.

    Attributes
    ----------
    tree : Tree
    record : Record
    terminology : Terminology
    order : PostOrder or None
        The order of the masks; None for a layout without them.
    images : mapping of str to ImageJob
        Annotation, template and hemispheres, as far as the layout has them.
    exports : mapping of str to (str, int)
        The image and the level of each NIfTI, by its key.
    tables, documents : mapping of str to bytes
        By key.
    overwrite : bool
    is_lost : bool
        Whether the annotation exists already: then a record that is missing was lost.
    is_listed : bool
        Whether the lists from which BrainGlobe shows atlases are written.
    """

    tree: Tree
    record: Record
    terminology: Terminology
    order: PostOrder | None
    images: Mapping[str, ImageJob]
    exports: Mapping[str, tuple[str, int]]
    tables: dict[str, bytes]
    documents: dict[str, bytes]
    overwrite: bool
    is_lost: bool
    is_listed: bool

    @property
    def annotation(self) -> Target:
        """The target of the annotation."""
        return self.images["annotation"].target

    @property
    def unused_templates(self) -> set[str]:
        """Locations of templates that an earlier manifest may list, and this one does not."""
        return set() if "template" in self.images else {self.tree.names.template.reference()["location"]}

    def shared_documents(self) -> dict[str, bytes]:
        """The documents, those of assets that other atlases have too as they are now."""
        return self.record.shared(self.documents, self.overwrite)


def _levels(
    sources: Mapping[str, Sequence[ReferenceVolume]],
    chunk: int | Sequence[int] | None,
    shard: int | None,
    layout: Layout,
) -> tuple[dict[str, Levels], list[str]]:
    """The levels of annotation and template, with remarks on a conversion or on what the lack of a template means."""
    given, template = sources["annotation"], sources.get("template", ())
    corner = corner_of(given, template)
    levels = {"annotation": levels_of(given, corner, chunk, shard, layout.sides)}
    remarks: list[str] = []
    if template and layout.brainglobe:
        template, remarks = as_uint16(template)
        levels["template"] = template_levels(template, levels["annotation"], corner, chunk, shard, layout.sides)
    elif template:
        levels["template"] = levels_of(template, corner, chunk, shard, layout.sides)
    elif layout.assets:
        remarks.append(
            "the atlas has no template: no templates/ is written, and its manifests name none; give one (--template)"
        )
    return levels, remarks


def _planned(
    tree: Tree,
    levels: Mapping[str, Levels],
    terminology: Terminology,
    labels: Sequence[int],
    unknown: Sequence[str],
    credit: Credit,
    ome_zarr: str,
    overwrite: bool,
) -> _Plan:
    """Plan the parts of an atlas, and refuse what its layout cannot hold and what lies in the targets of its images."""
    images = _images(levels, tree, terminology, labels, ome_zarr, credit)
    # As they will be: no voxel is read before it is written, and the digest is not known yet.
    future = {kind: Finished(images[kind].multiscale, levels[kind].geometry, "") for kind in levels}
    order = PostOrder.of(terminology) if tree.layout.has_annotation_set else None
    if tree.layout.brainglobe:
        demands.refuse(future["annotation"], future["template"], terminology, credit, unknown)
    if is_listed := tree.layout.brainglobe or listing.concerns(tree.root, tree.names.name):
        listing.refuse(tree.root)
    exports = tree.exports(future)
    for kind, level in exports.values():
        nifti_header(future[kind], level)  # raises an InputError if NIfTI cannot hold it
    occurring = manifests.occurring(terminology, labels)
    template = levels["template"].volumes if "template" in levels else None
    documents = documents_of(tree, credit, future["annotation"], template, occurring, overwrite)
    record, tables = Record(tree.root, tree.names, tree.layout), tree.terminology_tables(terminology)
    if not overwrite:
        record.refuse_other_names()
        record.refuse_other_parts("template" in images)
    shared, _ = record.of_others()
    states = {}
    for kind, image in images.items():
        if overwrite and tree.images[kind] in shared:
            _refuse_other_image(image, kind)
        states[kind] = image.read_state(overwrite)
    if tree.derived and not overwrite:
        masks_folder, segmentation = (below(tree.root, folder) for folder in tree.derived)
        masks.refuse_other(masks_folder)
        precomputed_folder.refuse_other(segmentation, terminology)
    is_lost = states["annotation"] is not None
    return _Plan(tree, record, terminology, order, images, exports, tables, documents, overwrite, is_lost, is_listed)


def _refuse_others(plan: _Plan, read: Sequence[Uri]) -> list[str]:
    """Refuse files that are in the way of an atlas; the paths of an earlier one that it does not make.

    Raises
    ------
    InputError
    """
    stale, tree = _make_way(plan, plan.overwrite, read), plan.tree
    tables = tree.terminology_tables(plan.terminology)
    plan.record.refuse_other_files(tables, plan.overwrite, tree.plain_tables(plan.terminology))
    documents = plan.shared_documents()
    _refuse_other_space(plan, documents)
    if not plan.overwrite:
        documents = registration.with_registered(tree.root, documents, plan.unused_templates)
        made = [*tree.volume_tables, *plan.exports]
        second = below(tree.root, tree.second_name) if tree.second_name else None
        others = [*tree.second_root()] if second and is_other(plan.annotation, second) else []
        plan.record.refuse_unrecorded(documents, made, others, lost=plan.is_lost)
    return stale


def _refuse_other_space(plan: _Plan, documents: Mapping[str, bytes]) -> None:
    """Refuse a template that another atlas of the tree has in another coordinate space.

    Raises
    ------
    InputError
    """
    template = plan.tree.names.template
    if (key := f"{template.folder}/{MANIFEST}") not in documents:
        return
    shared, own = (parse_object(found[key]).get("coordinate_space", {}) for found in (documents, plan.documents))
    if any(shared.get(word) != own[word] for word in ("name", "version")):
        raise InputError(
            f"another atlas has the template {template.name} {template.version} in the coordinate space "
            f"{shared.get('name')} {shared.get('version')}, and this one lies in {own['name']} {own['version']}; give "
            "the same space (--space-name, --space-version) or another --template-name",
            code="wrong-reference-space",
        )


def _begin(plan: _Plan, read: Sequence[Uri]) -> None:
    """Begin the record and the tables of an atlas."""
    tree = plan.tree
    with tree.changing():
        stale = _refuse_others(plan, read)  # what other builds have written meanwhile
        images = [tree.images[kind] for kind in plan.images]
        planned = [*plan.documents, *tree.volume_tables, *plan.exports, *tree.second_root()]
        tables = tree.terminology_tables(plan.terminology)
        plan.record.begin(tables, images, planned, plan.overwrite, stale)


def _write_derived(plan: _Plan, **options: Any) -> list[WriteReport]:
    """Write what is made from a finished annotation: its second name, masks, segmentation and meshes."""
    if plan.order is None:
        return []
    tree = plan.tree
    if tree.second_name is not None:
        give_second_name(plan.annotation, below(tree.root, tree.second_name))
    finished = Finished.at(plan.annotation)
    masks_folder, segmentation = (below(tree.root, folder) for folder in tree.derived)
    return [
        masks.write_masks(finished, masks_folder, plan.order, allow_unknown=True, **options),
        precomputed_folder.write_precomputed(finished, segmentation, plan.terminology, **options),
    ]


def _write_exports(plan: _Plan, owner: Owner, running: Scheduler, progress: Progress | None, folder: Uri) -> None:
    """Write the NIfTI files that are missing or differ from what this atlas, or another one that has them, records."""
    for key, (kind, level) in plan.exports.items():
        if plan.record.has(key):
            continue
        if (written := plan.record.of_another(key)) is None:
            finished = Finished.at(plan.images[kind].target)
            written = export_nifti(finished, plan.tree.root, key, level, running, progress, folder)
        with plan.tree.changing():
            owner.validate(read=True)
            plan.record.add(key, *written)


def _refuse_wrong_use(
    uris: Sequence[Uri], template_uris: Sequence[Uri], voxel_size: Any, layout: Layout, ome_zarr: str
) -> None:
    if not uris:
        raise InputError("an atlas needs an annotation; give one (--annotation)", code="missing-annotation")
    if voxel_size is not None and max(len(uris), len(template_uris)) > 1:
        raise InputError(
            "a voxel size is that of all volumes, but several annotations or templates are given, one for each "
            "resolution; correct the sizes in their headers instead of --voxel-size",
            code="one-voxel-size",
        )
    if layout.brainglobe and not template_uris:
        raise InputError("BrainGlobe needs a template; give one (--template)", code="missing-template")
    if layout.has_annotation_set:
        if ome_zarr != "0.5":
            reader = "BrainGlobe" if layout.brainglobe else "the standard"
            raise InputError(f"{reader} needs OME-Zarr 0.5, not {ome_zarr}; leave --ome-zarr out", code="not-supported")
        surfaces.check_libraries()


def _refuse_other_image(image: ImageJob, kind: str) -> None:
    """Refuse to overwrite an image that another atlas has too, unless it stays the same.

    Raises
    ------
    InputError
    """
    try:
        image.read_state(overwrite=False)
    except InputError:
        raise InputError(
            f"{image.target.url} belongs to another atlas of the tree too, and would be replaced; give "
            f"--{kind}-name or --{kind}-version",
            code="different-options",
        ) from None


def _make_way(plan: _Plan, overwrite: bool, read: Sequence[Uri]) -> list[str]:
    """Validate that nothing is in the way of the atlas; the paths of an earlier one that it does not make.

    Raises
    ------
    InputError
        If a folder is a link, or a source lies in a file that will be written, or in a path of the earlier atlas that
        will be removed.
    """
    tree = plan.tree
    files = [*plan.tables, *plan.documents, *plan.exports, *tree.volume_tables]
    refuse_overlaps(read, [below(tree.root, key) for key in files])
    folders = [*(tree.images[kind] for kind in plan.images), *tree.derived]
    keys = [*(f"{folder}/" for folder in folders), *files, plan.record.key]
    second_root = [f"{tree.second_name}/zarr.json"] if tree.second_name else []
    stale = plan.record.leftovers([*keys, *second_root]) if overwrite else []
    refuse_overlaps(read, [below(tree.root, path) for path in stale])
    tree.root.make_way(keys, overwrite)
    return stale


def _images(
    levels: Mapping[str, Levels],
    tree: Tree,
    terminology: Terminology,
    labels: Sequence[int],
    ome_zarr: str,
    credit: Credit,
) -> dict[str, ImageJob]:
    """The jobs of the images of an atlas: annotation, template if there is one, and hemispheres."""
    annotation = levels["annotation"]
    targets = {kind: below(tree.root, folder) for kind, folder in tree.images.items()}
    images = {"annotation": annotation_image(annotation, targets["annotation"], terminology, labels, ome_zarr, credit)}
    if "template" in levels:
        images["template"] = template_image(levels["template"], targets["template"], ome_zarr, credit)
    if "hemispheres" in targets:
        layers = annotation.pyramid, annotation.geometry
        images["hemispheres"] = hemispheres_image(*layers, targets["hemispheres"], ome_zarr, credit)
    return images


def _volumes(annotation: Target, terminology: Terminology) -> DataFrame:
    """The volumes of all regions, also by hemisphere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtlaszarrWarning)  # on labels without a structure: a remark names them
        options: dict[str, Any] = {"storage_options": json.loads(annotation.storage_options), "allow_unknown": True}
        return region_volumes(annotation.url, terminology, by_hemisphere=True, **options)
