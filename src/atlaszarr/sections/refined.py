"""The refined registration of a section dataset in a folder: displacement fields, and corrected depths.

The folder FIELDS holds ``<image_id>.ome.zarr`` for each section whose registration was refined within its plane, and
``atlaszarr/refinement.json``, which is written last. The fields of a FIELDS of 25 um serve builds of all resolutions.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..allen.records import Section, SectionDataset
from ..displacement.displacement import Displacement
from ..displacement.fields import Chunks, Coordinates, Shape, between, grid_points, regular
from ..engine import ome
from ..engine.array_layout import Encoding
from ..engine.kept import Kept
from ..engine.pyramid import Pyramid
from ..engine.target_state import FINISHED, read_root
from ..engine.zarr_reader import StoredArray
from ..errors import AtlaszarrError, InputError, NotFoundError, TargetError, reason_of
from ..geometry.grid import Grid
from ..geometry.plane import PLANES, Plane
from ..geometry.spaces import ORIENTATION, reference_space
from ..stores.documents import LARGEST, json_bytes, parse_object
from ..stores.locations import shown
from ..stores.target import Target
from ..transforms import Affine, compose
from .fields import PlaneGrid, SectionFields

#: The key of the document of FIELDS, which is written last.
DOCUMENT = "atlaszarr/refinement.json"
#: The key of the table of FIELDS.
TABLE = "refinement.csv"
_VERSION = "0.6"
#: Largest side of a chunk of a field: a plane of 10 um has up to 1320 pixels a side.
_CHUNK = 1024
_UM_IN_MM = 1000
#: The most pixels of a field: a sagittal plane of 3 um has 11.7 million.
MOST_PIXELS = 2**24
#: Bytes of the fields that a process keeps: 110 coronal planes of 25 um.
KEPT = 2**27
#: What to do about damage.
_REPAIR = "run the same `refine` command to repair it"
_kept = Kept(KEPT)


@dataclass(frozen=True)
class RefinedRegistration:
    """What a refinement found for a section.

    Attributes
    ----------
    correction : float
        What is added to the recorded depth of the section, in um.
    alignment : str
        SHA-256 of the alignment that was refined, see `alignment_digest`.
    field : str or None
        SHA-256 of the values of its field; None if the section keeps its registration within the plane.
    """

    correction: float
    alignment: str
    field: str | None


@dataclass(frozen=True, eq=False)
class RefinedFields(SectionFields):
    """The refined registration of a section dataset. Small and picklable: fields are read when they are evaluated.

    Attributes
    ----------
    target : Target
        The folder FIELDS.
    dataset_id : int
    pixels : PlaneGrid
        The pixels of the fields.
    sections : mapping of int to RefinedRegistration
        By SectionImage id.
    """

    target: Target
    dataset_id: int
    pixels: PlaneGrid
    sections: Mapping[int, RefinedRegistration]

    follows_tilt = True

    @classmethod
    def open(cls, path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> RefinedFields:
        """Open a finished refinement.

        Parameters
        ----------
        path : str or path-like
            The folder FIELDS: a local path, or any URL that fsspec opens.
        storage_options : mapping, optional
            Options for fsspec, for a URL.

        Raises
        ------
        NotFoundError
            If there is no refinement.
        InputError
            If it is unfinished or damaged.
        TargetError
            If it cannot be read.
        """
        target = Target.of(path, storage_options)
        name = shown(target.url)
        absent = NotFoundError(
            f"{name} holds no refinement (no {DOCUMENT}); give the FIELDS that `refine` wrote",
            code="refinement-not-found",
        )
        body = target.read(DOCUMENT, LARGEST)
        if body is not None:
            target = target.public()
        try:
            root = read_root(target) if target.read("zarr.json", LARGEST) is not None else None
        except InputError:  # another program wrote it, or it is damaged
            if body is None:
                raise absent from None
            raise InputError(f"{name}/zarr.json is damaged; {_REPAIR}", code="damaged-metadata") from None
        unfinished = InputError(
            f"refinement {name} is unfinished; run the same `refine` command to resume it", code="refinement-unfinished"
        )
        if root is not None and root["state"] != FINISHED:
            raise unfinished
        if body is None:
            raise absent
        try:
            document = parse_object(body)
            is_finished, mirror = _boolean(document["finished"]), _boolean(document["mirror"])
            plane, resolution = PLANES[document["plane"]], document["resolution_um"]
            grid = Grid(reference_space(document["reference_space"]).frame, float(resolution))
            sections = {
                int(id): _registration_of(section, max(grid.space.extent))
                for id, section in document["sections"].items()
            }
            found = cls(target, operator.index(document["dataset"]), PlaneGrid(plane, grid, mirror), sections)
            size, digest = math.prod(found.pixels.shape), document["sha256"]
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise InputError(
                f"{name}/{DOCUMENT} is damaged ({reason_of(error)}); {_REPAIR}", code="damaged-metadata"
            ) from None
        if not is_finished:
            raise unfinished
        if size > MOST_PIXELS:
            raise InputError(
                f"refinement {name} has fields at {grid.resolution:g} um, of more than {MOST_PIXELS} pixels; refine "
                "the dataset at a coarser resolution",
                code="field-too-large",
            )
        if digest != found.digest:
            raise InputError(
                f"{name}/{DOCUMENT} has other depths or fields than were written; {_REPAIR}", code="damaged-metadata"
            )
        return found

    @cached_property
    def corrections(self) -> Mapping[int, float]:
        """See `SectionFields`."""
        return {id: section.correction for id, section in self.sections.items()}

    @property
    def locations(self) -> Sequence[str]:
        """See `SectionFields`."""
        return (self.target.url,)

    @property
    def memory(self) -> int:
        """See `SectionFields`."""
        rows, columns = self.pixels.shape
        size = 2 * 4 * rows * columns  # float32
        return min(size * sum(section.field is not None for section in self.sections.values()), KEPT)

    def working(self, resolution: float) -> float:
        """See `SectionFields`; also the part of the field, in float64."""
        return super().working(resolution) + 2 * 8 * (resolution / self.pixels.grid.resolution) ** 2

    @cached_property
    def digest(self) -> str:
        """See `SectionFields`: of depths, alignments, values and pixels of the fields."""
        return _digest_of_all(self.dataset_id, self.pixels, self.sections)

    @property
    def provenance(self) -> dict[str, Any]:
        """See `SectionFields`."""
        return {
            "location": shown(self.target.url),
            "sha256": self.digest,
            "resolution_um": self.pixels.grid.resolution,
            "depth_corrections_um": {str(id): um for id, um in sorted(self.corrections.items())},
            "refined": sorted(id for id, section in self.sections.items() if section.field),
        }

    def corrected(self, dataset: SectionDataset) -> SectionDataset:
        """See `SectionFields`; a section that the refinement lacks keeps its depth."""
        if dataset.id != self.dataset_id:
            raise InputError(
                f"refinement {shown(self.target.url)} is of section dataset {self.dataset_id}, not {dataset.id}; give "
                "the fields of this dataset",
                code="wrong-dataset",
            )
        for section in dataset.sections:
            refined = self.sections.get(section.image_id)
            if refined is not None and refined.alignment != alignment_digest(dataset, section):
                raise InputError(
                    f"the alignment or the depth of section image {section.image_id} is not the one that "
                    f"{shown(self.target.url)} refines; give dataset {dataset.id} as it is recorded, or refine it",
                    code="alignment-changed",
                )
        return super().corrected(dataset)

    def validate(self, dataset: SectionDataset, pixels: PlaneGrid) -> None:
        """See `SectionFields`; `corrected` validates the dataset."""
        own = self.pixels
        if own.grid.space != pixels.grid.space or own.plane.name != pixels.plane.name:
            raise InputError(
                f"refinement {shown(self.target.url)} is of the {own.plane.name} plane of reference space "
                f"{own.grid.space.id}, not of the {pixels.plane.name} plane of space {pixels.grid.space.id}; refine "
                "the dataset in this plane, or leave the fields out",
                code="wrong-plane",
            )

    def registration(self, image_id: int) -> str:
        """See `SectionFields`."""
        section = self.sections.get(image_id)
        return "recorded" if section is None else "depth only" if section.field is None else "refined"

    def displacement(self, image_id: int, pixels: PlaneGrid, recorded: Affine) -> Displacement | None:
        """See `SectionFields`.

        Notes
        -----
        With A the recorded alignment, B the affine from pixels of the plane to pixels of the stored field, and F the
        stored field, the result is A B^-1 F B. Without displacement it is A.
        """
        section = self.sections.get(image_id)
        if section is None or section.field is None:
            return None
        to_field = self._from_pixels(pixels)
        field = Displacement(_StoredField(self.target, image_id, section.field, self.pixels))
        linear = np.linalg.inv(to_field[:, :2])
        back = np.hstack([linear, -linear @ to_field[:, 2:]])
        to_tier = Displacement.from_affine(field.shape, compose(recorded, back))
        return to_tier.compose(field).compose(Displacement.from_affine(pixels.shape, to_field))

    def _from_pixels(self, pixels: PlaneGrid) -> Affine:
        """The affine from pixels (column, row) of planes to those of the fields: float64, shape (2, 3)."""
        own = self.pixels
        pir = pixels.plane.to_reference(pixels.grid, 0.0)
        if own.mirror != pixels.mirror:
            pir = compose(own.grid.space.mirror, pir)
        to_field = pir[[own.plane.columns, own.plane.rows]] / own.grid.resolution
        to_field[:, 2] -= 0.5
        return np.asarray(to_field)


def alignment_digest(dataset: SectionDataset, section: Section) -> str:
    """SHA-256 of the alignment of a section: its 3-D and 2-D alignments and its recorded depth."""
    values = [dataset.tvr, dataset.trv, section.tsv, section.tvs, section.depth]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def field_objects(image_id: int, field: ArrayLike, pixels: PlaneGrid) -> tuple[dict[str, bytes], str]:
    """The objects of the refined field of a section, and its digest.

    Parameters
    ----------
    image_id : int
    field : array_like, real, shape (2, rows, columns)
        Displacements in um along columns, then rows (x first), of a plane with superior up and anterior left or up,
        as in `atlaszarr.open_sections`: the recorded registration, at the corrected depth, shows the tissue of point q
        of the plane at q + field(q).
    pixels : PlaneGrid

    Returns
    -------
    objects : dict of str to bytes
        By key in FIELDS; the document that makes them an image is the last one.
    digest : str
        SHA-256 of the values, for `refinement_document`.

    Raises
    ------
    InputError
        If the field does not have the shape of the plane, or a value is not finite.

    Notes
    -----
    An OME-Zarr 0.6 displacement field (RFC-5) in micrometres: float32, components along rows, then columns. Its axes
    have the names, the orientation and, in micrometres, the position of those of the images that `build` writes.
    """
    given, plane, grid = np.asarray(field), pixels.plane, pixels.grid
    is_whole = given.dtype.kind in "iuf" and given.shape == (2, *pixels.shape)
    with np.errstate(over="ignore"):  # what float32 does not hold is not finite
        values = np.ascontiguousarray(given[::-1], dtype="<f4") if is_whole else np.array(np.nan)
    if not np.isfinite(values).all():
        raise InputError(
            f"field of section image {image_id} has dtype {given.dtype} and shape {given.shape}; give finite "
            f"displacements over {pixels}",
            code="invalid-array",
        )
    axes = ("c", "zyx"[plane.rows], "zyx"[plane.columns])
    layout = Encoding().layout(values.shape, (2, *(min(n, _CHUNK) for n in pixels.shape)), "float32", fill=np.nan)
    objects = {f"0/{name}": body for name, body in layout.documents(axes).items()}
    for unit in np.ndindex(*layout.grid):
        objects[f"0/{layout.key(unit)}"] = layout.encode(values[layout.region(unit)])
    geometry = ome.Geometry((grid.resolution,) * 3, (grid.first * _UM_IN_MM,) * 3, "micrometer", ORIENTATION)
    levels = Pyramid.over((1, *pixels.shape), max(pixels.shape), levels=1)
    content = ome.displacement_field(_VERSION, f"section image {image_id}, refinement", axes, geometry, levels)
    objects |= ome.group(_VERSION, ome.attributes(_VERSION, content, {}))
    return {f"{image_id}.ome.zarr/{key}": body for key, body in objects.items()}, _digest(values)


def write_field(target: Target, image_id: int, field: ArrayLike, pixels: PlaneGrid) -> str:
    """Write the refined field of a section to FIELDS, and return its digest; see `field_objects`."""
    objects, digest = field_objects(image_id, field, pixels)
    target.write_all(objects.items())
    return digest


def refinement_document(
    dataset: SectionDataset,
    pixels: PlaneGrid,
    corrections: Mapping[int, float],
    fields: Mapping[int, str],
    made_of: Mapping[str, Any] | None = None,
) -> bytes:
    """The document of FIELDS, which `RefinedFields.open` reads; to be written last, to `DOCUMENT`.

    Parameters
    ----------
    dataset : SectionDataset
        The dataset with its recorded depths.
    pixels : PlaneGrid
        The pixels of the fields; the plane has superior up and anterior left or up.
    corrections : mapping of int to float
        By SectionImage id, what is added to the recorded depth, in um; a section that is not in it is not listed.
    fields : mapping of int to str
        By SectionImage id, the digests of `field_objects`; a section without a field keeps its registration.
    made_of : mapping, optional
        What the refinement was made of, as JSON values: options, inputs with their digests, versions, credit.
    """
    refined = {
        section.image_id: RefinedRegistration(
            float(corrections[section.image_id]), alignment_digest(dataset, section), fields.get(section.image_id)
        )
        for section in dataset.sections
        if section.image_id in corrections
    }
    sections = {
        str(section.image_id): {
            "section_number": section.section_number,
            "depth_recorded_um": section.depth,
            "depth_correction_um": refined[section.image_id].correction,
            "alignment_sha256": refined[section.image_id].alignment,
            "field_sha256": refined[section.image_id].field,
        }
        for section in dataset.sections
        if section.image_id in refined
    }
    document = {
        "finished": True,
        "sha256": _digest_of_all(dataset.id, pixels, refined),
        "dataset": dataset.id,
        "reference_space": pixels.grid.space.id,
        "plane": pixels.plane.name,
        "resolution_um": pixels.grid.resolution,
        "mirror": pixels.mirror,
        "sections": sections,
        **(made_of or {}),
    }
    return json_bytes(document)


def pixels_of(plane: Plane, grid: Grid, mirror: bool = False) -> PlaneGrid:
    """The pixels of fields over a plane of section of a grid, with superior up and anterior left or up."""
    return PlaneGrid(PLANES[plane.name], grid, mirror)


@dataclass(frozen=True)
class _StoredField:
    """A field of FIELDS, in pixels of its grid; read when it is evaluated, and kept in the process.

    Attributes
    ----------
    target : Target
        The folder FIELDS.
    image_id : int
    sha256 : str
        Of its values.
    pixels : PlaneGrid
    """

    target: Target
    image_id: int
    sha256: str
    pixels: PlaneGrid

    @property
    def shape(self) -> Shape:
        """See `Field`."""
        return self.pixels.shape

    @property
    def chunks(self) -> Chunks:
        """See `Field`."""
        return regular(self.shape, _CHUNK)

    @property
    def locations(self) -> Sequence[str]:
        """The path or URL that the field is read from."""
        return (self.target.url,)

    def coordinates(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        return self.displacements(rows, columns) + grid_points(rows, columns)

    def displacements(self, rows: slice, columns: slice) -> Coordinates:
        """See `Field`."""
        part = self._values()[::-1, rows, columns].astype(np.float64)
        part /= self.pixels.grid.resolution
        return part

    def at(self, points: Coordinates) -> Coordinates:
        """See `Field`."""
        return between(self, points)

    def _values(self) -> NDArray[np.float32]:
        """Displacements in um as they are stored, along rows, then columns."""
        if not (found := _kept.get([self.sha256])):
            with _kept.making(self.sha256):
                if not (found := _kept.get([self.sha256])):
                    found = {self.sha256: self._read()}
                    _kept.add(found)
        return np.asarray(found[self.sha256])

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return "atlaszarr.RefinedField", self.sha256, str(self.pixels)

    def _read(self) -> NDArray[np.float32]:
        name = f"field of section image {self.image_id} in {shown(self.target.url)}"
        try:
            array = StoredArray.at(self.target, f"{self.image_id}.ome.zarr/0")
            if array.shape != (2, *self.shape) or array.dtype != np.float32:
                raise InputError(f"it has dtype {array.dtype} and shape {array.shape}", code="shape-mismatch")
            values = array[...]
        except AtlaszarrError as error:
            if isinstance(error, TargetError) and error.code != "damaged-chunk":
                raise  # the store has failed
            if error.code == "array-not-found":
                raise InputError(
                    f"the {name} is missing; {_REPAIR} or, on a cluster, give fields that all workers reach",
                    code="field-damaged",
                ) from None
            raise InputError(
                f"the {name} cannot be read ({str(error).partition('; ')[0]}); {_REPAIR}", code="field-damaged"
            ) from None
        if _digest(values) != self.sha256:
            raise InputError(
                f"the {name} is damaged, or was written again since the fields were opened; open them again or, if "
                f"they are still refused, {_REPAIR}",
                code="field-damaged",
            )
        return values


def _digest(values: NDArray[np.float32]) -> str:
    """SHA-256 of displacements in um along rows, then columns."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").data.cast("B")).hexdigest()


def _digest_of_all(dataset_id: int, pixels: PlaneGrid, sections: Mapping[int, RefinedRegistration]) -> str:
    """SHA-256 of all that the registration of the sections of a dataset depends on."""
    content = {
        "dataset": dataset_id,
        "pixels": [pixels.grid.space.id, pixels.plane.name, pixels.grid.resolution, pixels.mirror],
        "sections": {id: [s.correction, s.alignment, s.field] for id, s in sorted(sections.items())},
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _registration_of(section: Mapping[str, Any], longest: float) -> RefinedRegistration:
    """What the document lists for a section; ValueError if it lies further off than the longest side of the space."""
    correction, field = float(section["depth_correction_um"]), section["field_sha256"]
    if not abs(correction) <= longest:
        raise ValueError(f"a depth is corrected by {correction:g} um")
    return RefinedRegistration(correction, str(section["alignment_sha256"]), None if field is None else str(field))


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value
