"""`preview` draws the sections of a dataset in the reference space into a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..allen.client import AllenClient
from ..allen.images import MissingImage
from ..allen.records import SectionDataset
from ..assets.locate import Located, locate
from ..engine.notebook import table_html
from ..engine.writer import Progress
from ..errors import AtlaszarrError, AtlaszarrWarning, InputError
from ..geometry.spaces import reference_space
from ..sections.alignment import align_sections, plane_of
from ..sections.fields import Fields, fields_of
from ..sections.options import REMOVED_OPTIONS
from ..sections.planes import section_planes
from ..stores.local import write_whole
from ..stores.locations import normalize, options_for, output_file, overlap, shown
from ..terminology.terminology import Terminology, terminology_of
from .annotation_borders import LabelPlane
from .annotation_planes import label_planes
from .draw import draw_page, thumbnail_resolution
from .paper import FORMATS
from .thumbnails import make_thumbnails


@dataclass(frozen=True)
class PreviewReport:
    """The result of `preview`.

    Attributes
    ----------
    dataset : int
    path : str
    plane : str
        Plane of the thumbnails.
    reference_space : int
    view : str
    resolution : float
        Pixel size of the thumbnails, in um.
    annotation : str or None
        Annotation of the borders.
    coordinates : mapping of int to float
        Slice coordinate of each thumbnail by section number, in um along the axis across the plane.
    missing_numbers : tuple of int
        Section numbers of the regular sampling that the dataset lacks.
    failures : tuple of MissingImage
        Missing images, drawn as crossed frames.
    """

    dataset: int
    path: str
    plane: str
    reference_space: int
    view: str
    resolution: float
    annotation: str | None
    coordinates: Mapping[int, float]
    missing_numbers: tuple[int, ...]
    failures: tuple[MissingImage, ...]

    @property
    def ok(self) -> bool:
        """Whether all images are present."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "dataset": self.dataset,
            "path": self.path,
            "ok": self.ok,
            "plane": self.plane,
            "reference_space": self.reference_space,
            "view": self.view,
            "resolution_um": self.resolution,
            "annotation": self.annotation,
            "sections": [{"section_number": n, "coordinate_um": at} for n, at in self.coordinates.items()],
            "missing_numbers": list(self.missing_numbers),
            "failures": [{"image_id": f.request.image_id, "url": f.url, "reason": f.reason} for f in self.failures],
        }

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        reasons = [f"section image {failure.request.image_id}: {failure.reason}" for failure in self.failures]
        rows: list[tuple[str, object]] = [
            ("picture", self.path),
            ("sections", f"{len(self.coordinates)}, {self.plane}"),
            ("reference space", self.reference_space),
            *([("annotation", self.annotation)] if self.annotation else []),
            *([("missing images", reasons)] if reasons else []),
        ]
        return table_html(f"Preview of section dataset {self.dataset}", rows)


def preview(
    dataset: SectionDataset | int,
    out: str | os.PathLike[str],
    *,
    client: AllenClient | None = None,
    annotation: str | os.PathLike[str] | None = None,
    terminology: Terminology | str | os.PathLike[str] | None = None,
    plane: str = "auto",
    mirror: bool = False,
    view: str = "primary",
    fields: Fields = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    space: None = None,
) -> PreviewReport:
    """Draw the positions of a dataset's sections in the reference space.

    The upper part shows the edges of the section images from four sides, the lower part a registered thumbnail of each
    section. Positions are (p, i, r) of the reference space in mm, p = p_um / 1000. A thumbnail is the plane at the
    slice coordinate of the centre of its image. Each image is fetched once, at the coarsest tier whose pixel is not
    larger than that of the thumbnail, and borders are those of the level of the annotation nearest to it. If the
    annotation has a terminology (``terminology.csv`` next to it, or that of its manifest), its acronyms are written
    into the regions that are large enough, and smaller regions are merged.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    out : str or path-like
        A local file ending in ``.png`` or ``.svg``; replaced if it exists. The same picture has the same bytes with
        one version of matplotlib.
    client : AllenClient, optional
        Default: ``AllenClient()``.
    annotation : str or path-like, optional
        Path or URL of an annotation whose borders are drawn over the thumbnails: an OME-Zarr of labels, any other
        file that `build_atlas` accepts, or an annotation set or an atlas as in `region_volumes`.
    terminology : Terminology, str or path-like, optional
        The structures of the annotation, as `Terminology.read` reads them. Default: those of the annotation, if it has
        a terminology.
    plane : str
        ``coronal``, ``sagittal``, ``transverse`` (or ``horizontal``, ``axial``), or ``auto`` for the plane of section
        of the dataset.
    mirror : bool
        Whether to mirror the sections left to right; the annotation is not mirrored.
    space : None
        No longer supported; see `mirror`.
    view : str
        View of the thumbnails: ``primary``, ``expression`` or ``projection``.
    fields : str, path-like or RefinedFields, optional
        The folder FIELDS of a refinement, same as in `build`.
    storage_options : mapping, optional
        Options for fsspec, for an annotation or fields at a URL. Never printed or stored.
    progress : callable, optional
        Called with the number of images done, the number of all images, and the name of the step.

    Returns
    -------
    PreviewReport

    Raises
    ------
    InputError
        If an option is unknown or not valid; nothing is written.
    RecordError
        If the dataset cannot be registered.
    NotFoundError, ServiceError, SourceError
        If metadata or the annotation cannot be read.
    TargetError
        If the file cannot be written.
    """
    if space is not None:
        raise InputError(f"option 'space' no longer exists: {REMOVED_OPTIONS['space']}", code="removed-option")
    path = output_file(out, FORMATS)
    if terminology is not None and annotation is None:
        raise InputError(
            "a terminology needs the annotation that it describes; give it (--annotation URI)",
            code="missing-annotation",
        )
    if annotation is not None and overlap(normalize(annotation), str(path)):
        raise InputError(
            f"output {str(path)!r} overlaps the annotation {shown(annotation)}; choose another file",
            code="target-overlaps-source",
        )
    client = client or AllenClient()
    dataset = client.imaged(dataset)
    across = plane_of(dataset, plane)
    frame = reference_space(dataset.space).frame
    resolution = thumbnail_resolution(len(dataset.sections), across, frame)
    aligned = align_sections(dataset, resolution, mirror=mirror, view=view, fields=fields_of(fields, storage_options))
    dataset = aligned.dataset
    planes = section_planes(aligned, plane=plane, detection_xy="centre")
    coordinates = [float(at) for at in planes.coordinates]
    labels: list[LabelPlane | None] = [None] * len(coordinates)
    structures = None
    if annotation is not None:
        given = options_for(annotation, None, storage_options)
        located = locate(annotation, given)
        labels = label_planes(located, across, coordinates, resolution, frame, given)
        source = terminology if isinstance(terminology, str | os.PathLike) else annotation
        structures = _terminology(terminology, located, options_for(source, None, storage_options))
    thumbnails, failures = make_thumbnails(planes, client, progress)

    if progress is not None:
        progress(len(thumbnails), len(thumbnails), "drawing")
    named = None if annotation is None else shown(annotation)
    sections = planes.imaged.sections
    body = draw_page(
        dataset,
        across,
        frame,
        mirror=mirror,
        resolution=resolution,
        view=view,
        sections=sections,
        coordinates=coordinates,
        images=thumbnails,
        labels=labels,
        annotation=named,
        terminology=structures,
        suffix=path.suffix.lower(),
    )
    write_whole(path, body)
    return PreviewReport(
        dataset=dataset.id,
        path=str(path),
        plane=across.name,
        reference_space=frame.id,
        view=view,
        resolution=resolution,
        annotation=named,
        coordinates={s.section_number: at for s, at in zip(sections, coordinates, strict=True)},
        missing_numbers=dataset.missing_numbers,
        failures=failures,
    )


def _terminology(
    given: Terminology | str | os.PathLike[str] | None, annotation: Located, storage_options: Mapping[str, Any] | None
) -> Terminology | None:
    """The given terminology, or that of an annotation if it has one that can be read: borders need none."""
    try:
        return terminology_of(given, annotation, storage_options)
    except AtlaszarrError as error:
        if given is not None:
            raise
        if error.code != "file-not-found":
            message = f"the regions of the preview have no acronyms: {error}"
            warnings.warn(message, AtlaszarrWarning, stacklevel=3)  # the caller of preview
        return None
