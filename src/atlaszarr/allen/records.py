"""Section datasets and their sections, validated and converted from the JSON of the Allen API.

A section that cannot be registered is skipped, with a reason. An invalid dataset record is an error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import RecordError
from ..transforms import apply
from .slide_places import SlidePlace

Record = Mapping[str, Any]
Matrix = tuple[tuple[float, ...], ...]
Number = TypeVar("Number", int, float)

#: Planes of section by `plane_of_section_id`: all PlaneOfSection records of the API. Datasets are registered by their
#: alignment, whatever their plane.
PLANE_NAMES = {
    1: "coronal",
    2: "sagittal",
    4: "variable",
    5: "n/a",
    6: "transverse",
    7: "Lateral to Medial",
    8: "Medial to Lateral",
    9: "Ventral to Dorsal",
    10: "Dorsal to Ventral",
    11: "Coronal (Caudal to Rostral)",
    531107579: "Coronal (Rostral to Caudal)",
    1082279372: "Tangential",
}
#: Other names of planes of section.
_SYNONYMS = {"horizontal": "transverse", "axial": "transverse"}

#: Tolerance for an alignment followed by its inverse. The API rounds both to six digits: an error of up to 0.12 um on
#: real records, and of 0.5 um on the largest sections.
_ROUND_TRIP_UM = 5.0
#: Condition number of the linear part of an alignment from which on it is singular.
_MOST_SKEW = 1e6
#: Longest side of a JPEG, in pixels.
LONGEST_SIDE = 65500
#: Larger than any number of the API (ids are the largest), and exact in float64.
_LARGEST = 2**40
#: Tiers of the longest side: one more would be less than a pixel.
MOST_TIERS = 17
#: Image ids are written as uint32 labels, where 0 means no image.
IMAGE_IDS = range(1, 2**32)
#: Most section images of a dataset: every section of a whole human brain, 18 cm long and 20 um each.
MOST_SECTIONS = 10_000
#: Largest section number: 25 um apart, so many sections are a stack of 2.5 m.
LARGEST_SECTION_NUMBER = 100_000
#: Thickest section in um: the slabs into which whole human brains are cut are 1 cm thick.
THICKEST_UM = 10_000.0
#: Largest pixel in um: as long as the thickest section.
LARGEST_PIXEL_UM = 10_000.0


@dataclass(frozen=True)
class Section:
    """A section image that can be registered.

    Attributes
    ----------
    image_id : int
        The SectionImage record's id.
    section_number : int
        Position in the stack of sections cut, whether sampled or not.
    depth : float
        Section number times section thickness, in um: the third coordinate of the 3-D alignment. Refined fields correct
        it, see `atlaszarr.sections.fields.SectionFields.corrected`.
    x, y : int
        Corner of the image on its slide, in full-resolution pixels: the origin of the 2-D alignment.
    width, height : int
        Size of the full-resolution image, in pixels.
    resolution : float
        Size of a full-resolution pixel, in um.
    tier_count : int
        Number of tiers of the image service; each tier halves the size.
    expression : bool
        Whether the image has an expression mask (``view=expression``).
    tsv, tvs : tuple of tuple of float, shape (2, 3)
        2-D alignment: pixels to um in the section plane, and back.
    slide : SlidePlace or None
        Where the pixels lie in the image source of the client; None if they come from the API.
    """

    image_id: int
    section_number: int
    depth: float
    x: int
    y: int
    width: int
    height: int
    resolution: float
    tier_count: int
    expression: bool
    tsv: Matrix
    tvs: Matrix
    slide: SlidePlace | None = None


@dataclass(frozen=True)
class SkippedSection:
    """A section image that cannot be registered, with the reason."""

    image_id: int
    section_number: int | None
    reason: str


@dataclass(frozen=True)
class SectionDataset:
    """A section dataset: one specimen cut, stained, imaged and aligned to a reference space.

    Attributes
    ----------
    id : int
        The SectionDataSet record's id.
    plane : str
        Plane of section: one of `PLANE_NAMES`, ``unknown (ID)`` for another id, "" for none.
    reference_space_id : int or None
        Reference space of the 3-D alignment; None if the record has none, as for human and primate brains.
    section_thickness : float or None
        In um; None if the record has none.
    genes, products : tuple of str
        Acronyms of the genes, abbreviations of the products.
    specimen_id : int or None
    age : str
        Name of the donor's age in the API, or "".
    failed : bool
        Whether the Allen Institute marked the experiment as failed.
    tvr, trv : tuple of tuple of float, shape (3, 4), or None
        3-D alignment: (x um, y um, depth um) to (p, i, r) um, and back; None if the dataset is not aligned.
    sections : tuple of Section
        In order of depth, one per section number.
    skipped : tuple of SkippedSection
        Section images that cannot be registered.
    """

    id: int
    plane: str
    reference_space_id: int | None
    section_thickness: float | None
    genes: tuple[str, ...]
    products: tuple[str, ...]
    specimen_id: int | None
    age: str
    failed: bool
    tvr: Matrix | None
    trv: Matrix | None
    sections: tuple[Section, ...]
    skipped: tuple[SkippedSection, ...] = field(default=())

    @classmethod
    def from_json(cls, dataset: Record, images: Iterable[Record]) -> SectionDataset:
        """Validate and convert records of the API.

        Parameters
        ----------
        dataset : mapping
            A SectionDataSet record with ``alignment3d`` (and, optionally, genes, products, specimen). The plane of
            section, reference space, thickness and alignment may be null: such a dataset is read, but cannot be
            registered, see `validate_registration`.
        images : iterable of mapping
            Its SectionImage records with ``alignment2d``.

        Raises
        ------
        RecordError
            If a value is invalid, or if the 3-D alignment is singular or does not match its inverse.
        """
        id = number_of(dataset, "id", int, "section dataset")
        label = f"section dataset {id}"
        plane_id = optional_number(dataset, "plane_of_section_id", int, label)
        thickness = optional_number(dataset, "section_thickness", float, label)
        if thickness is not None and not 0 < thickness <= THICKEST_UM:
            raise RecordError(
                f"{label} has a section thickness of {thickness} um, not within 0 to {THICKEST_UM:g}",
                code="invalid-record",
            )
        donor = record_of(record_of(dataset, "specimen", label), "donor", label)
        age = record_of(donor, "age", label).get("name") or dataset.get("age") or ""
        tvr = trv = None
        if alignment := record_of(dataset, "alignment3d", label):
            tvr, trv = (_affine(alignment, name, 3, label) for name in ("tvr", "trv"))
            _validate_inverse(tvr, trv, np.array([[0.0, 0.0, 0.0], [1e4, 0, 0], [0, 1e4, 0], [0, 0, 1e4]]), label)
        sections, skipped = _sections(images, thickness, label)
        return cls(
            id=id,
            plane=plane_of_section(plane_id),
            reference_space_id=optional_number(dataset, "reference_space_id", int, label),
            section_thickness=thickness,
            genes=names_of(dataset, "genes", "acronym", label),
            products=names_of(dataset, "products", "abbreviation", label),
            specimen_id=optional_number(dataset, "specimen_id", int, label),
            age=str(age),
            failed=bool(dataset.get("failed")),
            tvr=tvr,
            trv=trv,
            sections=sections,
            skipped=skipped,
        )

    @property
    def alignment(self) -> tuple[Matrix, Matrix]:
        """`tvr` and `trv`; RecordError if the dataset has no 3-D alignment."""
        if self.tvr is None or self.trv is None:
            raise self._unregistered("no 3-D alignment", "missing-alignment")
        return self.tvr, self.trv

    @property
    def space(self) -> int:
        """`reference_space_id`; RecordError if the dataset has no reference space."""
        if self.reference_space_id is None:
            raise self._unregistered("no reference space", "missing-reference-space")
        return self.reference_space_id

    @property
    def thickness(self) -> float:
        """`section_thickness`; RecordError if the dataset has no section thickness."""
        if self.section_thickness is None:
            raise self._unregistered("no section thickness", "missing-thickness")
        return self.section_thickness

    def validate_registration(self) -> None:
        """Raise RecordError if the dataset cannot be registered to its reference space, with all that it lacks.

        Human, primate and many developing datasets of the Allen Institute have no alignment. Their images and records
        can be read all the same.
        """
        lacks = {
            "missing-alignment": self.tvr is None and "3-D alignment",
            "missing-reference-space": self.reference_space_id is None and "reference space",
            "missing-thickness": self.section_thickness is None and "section thickness",
            "no-sections": not self.sections and self.section_thickness is not None and "section with a 2-D alignment",
        }
        missing = [(code, name) for code, name in lacks.items() if name]
        if missing:
            raise self._unregistered(", ".join(f"no {name}" for _, name in missing), missing[0][0])
        if self.plane not in PLANE_NAMES.values():
            raise self._unregistered(f"plane of section {self.plane or 'null'}", "unknown-plane")

    def _unregistered(self, lacks: str, code: str) -> RecordError:
        return RecordError(f"section dataset {self.id} has {lacks}, so it cannot be registered", code=code)

    @property
    def step(self) -> int:
        """The most common step between neighbouring section numbers (the smallest one on a tie)."""
        steps = Counter(b - a for a, b in pairwise(self._numbers))
        return max(steps, key=lambda step: (steps[step], -step), default=1)

    @property
    def nominal_interval(self) -> float:
        """The most common distance between neighbouring sections, in um; RecordError without a thickness."""
        return self.thickness * self.step

    @property
    def missing_numbers(self) -> tuple[int, ...]:
        """Section numbers that a regular sampling would have and the dataset does not."""
        step = self.step
        missing: list[int] = []
        for a, b in pairwise(self._numbers):
            missing.extend(range(a + step, b - step // 2, step))
        return tuple(missing)

    @property
    def _numbers(self) -> list[int]:
        """The section numbers in the order in which the sections were cut, whatever their depths."""
        return sorted(section.section_number for section in self.sections)

    def to_dict(self) -> dict[str, Any]:
        """All attributes as a dict that JSON can hold; `slide` of a section only if it has one."""
        record = asdict(self)
        for section in record["sections"]:
            if section["slide"] is None:
                del section["slide"]
        return record

    @classmethod
    def from_dict(cls, record: Record) -> SectionDataset:
        """The inverse of `to_dict`, also after a round trip through JSON."""

        def frozen(value: Any) -> Any:
            return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value

        values = {key: frozen(value) for key, value in record.items() if key not in ("sections", "skipped")}
        sections = (_section_of(section, frozen) for section in record["sections"])
        skipped = (SkippedSection(**section) for section in record["skipped"])
        return cls(sections=tuple(sections), skipped=tuple(skipped), **values)


def _section_of(section: Record, frozen: Callable[[Any], Any]) -> Section:
    values = {key: frozen(value) for key, value in section.items() if key != "slide"}
    slide = section.get("slide")
    return Section(**values, slide=None if slide is None else SlidePlace.from_dict(slide))


def _sections(
    images: Iterable[Record], thickness: float | None, label: str
) -> tuple[tuple[Section, ...], tuple[SkippedSection, ...]]:
    sections: dict[int, Section] = {}
    skipped: list[SkippedSection] = []
    ids: set[int] = set()
    for image in sorted(images, key=lambda image: number_of(image, "id", int, f"section image of {label}")):
        image_id = int(image["id"])
        number = image.get("section_number")
        try:
            name = f"section image {image_id} of {label}"
            if image_id in ids:
                raise RecordError(f"{name} has two records; the first is used", code="duplicate-section")
            ids.add(image_id)
            section = _section(image, thickness, name)
            if (other := sections.get(section.section_number)) is not None:
                raise RecordError(
                    f"{name} has the section number {other.section_number} of image {other.image_id} too",
                    code="duplicate-section",
                )
            sections[section.section_number] = section
        except RecordError as error:
            skipped.append(SkippedSection(image_id, number if isinstance(number, int) else None, str(error)))
    return tuple(sections[number] for number in sorted(sections)), tuple(skipped)


def _section(image: Record, thickness: float | None, label: str) -> Section:
    if image.get("failed"):
        raise RecordError(f"{label} is marked as failed at the source", code="failed-section")
    if not (alignment := record_of(image, "alignment2d", label)):
        raise RecordError(f"{label} has no 2-D alignment", code="missing-alignment")
    if (image_id := int(image["id"])) not in IMAGE_IDS:
        raise RecordError(f"{label} has an id that is not within 1 to {IMAGE_IDS[-1]}", code="invalid-record")
    number = number_of(image, "section_number", int, label)
    if abs(number) > LARGEST_SECTION_NUMBER:
        raise RecordError(
            f"{label} has section_number {number}, beyond {LARGEST_SECTION_NUMBER}", code="invalid-record"
        )
    if thickness is None:
        raise RecordError(f"{label} has no depth, since the dataset has no section thickness", code="missing-thickness")
    x, y, width, height = image_box(image, label)
    resolution = number_of(image, "resolution", float, label)
    if not 0 < resolution <= LARGEST_PIXEL_UM:
        raise RecordError(f"{label} has a resolution of {resolution} um", code="invalid-record")
    tsv, tvs = (_affine(alignment, name, 2, label) for name in ("tsv", "tvs"))
    _validate_inverse(tvs, tsv, apply(tsv, [[0, 0], [width, 0], [0, height]]), label)
    tiers = number_of(image, "tier_count", int, label) if image.get("tier_count") else 0
    if not 0 <= tiers <= MOST_TIERS:
        raise RecordError(f"{label} has a tier_count of {tiers}", code="invalid-record")
    return Section(
        image_id=image_id,
        section_number=number,
        depth=number * thickness,
        x=x,
        y=y,
        width=width,
        height=height,
        resolution=resolution,
        # Records without a tier count: the API's formula.
        tier_count=tiers or 1 + max(0, math.ceil(math.log2(max(width, height) / 256))),
        expression=bool(image.get("expression_path")),
        tsv=tsv,
        tvs=tvs,
    )


def image_box(image: Record, label: str) -> tuple[int, int, int, int]:
    """Left, top, width and height of a section image on its slide, in full-resolution pixels.

    Raises
    ------
    RecordError
        If the size is impossible; `label` names the image in the message.
    """
    left, top = (number_of(image, side, int, label) if image.get(side) else 0 for side in ("x", "y"))
    width, height = (number_of(image, side, int, label) for side in ("width", "height"))
    if not (0 < width <= LONGEST_SIDE and 0 < height <= LONGEST_SIDE):
        raise RecordError(f"{label} has a size of {width} x {height} pixels", code="invalid-record")
    return left, top, width, height


def plane_of_section(id: int | None) -> str:
    """The name of a plane of section by its id: ``unknown (ID)`` for an unknown one, "" for none."""
    return "" if id is None else PLANE_NAMES.get(id, f"unknown ({id})")


def plane_name(name: str) -> str:
    """The Allen API's name for a plane of section: ``transverse`` for ``horizontal`` and ``axial``."""
    return _SYNONYMS.get(name, name)


def record_of(record: Record, name: str, label: str) -> Record:
    """The record associated under a name, or an empty one; RecordError for any other value."""
    value = record.get(name) or {}
    if not isinstance(value, Mapping):
        raise RecordError(f"{label} has {name} {value!r:.40}, not a record", code="invalid-record")
    return value


def names_of(record: Record, association: str, key: str, label: str) -> tuple[str, ...]:
    """The value of a key in each record of an association; RecordError if the association is not a list of records."""
    rows = record.get(association) or []
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and key in row for row in rows):
        raise RecordError(f"{label} has {association} {rows!r:.40}, not records with {key}", code="invalid-record")
    return tuple(str(row[key]) for row in rows)


def number_of(record: Record, key: str, kind: type[Number], label: str) -> Number:
    """The number under a key of a record; RecordError if it is not of the type, not finite, or too large."""
    value = record.get(key)
    # The comparison is False for NaN and the infinities.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        raise RecordError(
            f"{label} has {key} {value!r:.40}, not a number of magnitude below 2^40", code="invalid-record"
        )
    if kind is int and value != int(value):
        raise RecordError(f"{label} has {key} {value!r}, not a whole number", code="invalid-record")
    return kind(value)


def optional_number(record: Record, key: str, kind: type[Number], label: str) -> Number | None:
    """Same as `number_of`, or None if the number is missing or null."""
    return None if record.get(key) is None else number_of(record, key, kind, label)


def _affine(record: Record, name: str, size: int, label: str) -> Matrix:
    """An affine of an alignment record, shape (size, size + 1); RecordError if its linear part is singular.

    ``tsv`` and ``tvs`` of an Alignment2d record have size 2, ``tvr`` and ``trv`` of an Alignment3d record size 3.
    """
    values = [number_of(record, f"{name}_{k:02d}", float, label) for k in range(size * (size + 1))]
    linear, shift = np.reshape(values[: size**2], (size, size)), values[size**2 :]
    if not np.linalg.cond(linear) < _MOST_SKEW:
        raise RecordError(f"{label} has a singular alignment {name}: {linear.tolist()}", code="singular-alignment")
    return tuple((*row, end) for row, end in zip(linear.tolist(), shift, strict=True))


def _validate_inverse(forward: Matrix, inverse: Matrix, points: NDArray[np.float64], label: str) -> None:
    """Raise RecordError if an alignment followed by its inverse moves a point (um) by `_ROUND_TRIP_UM` or more."""
    error = float(np.abs(apply(inverse, apply(forward, points)) - points).max())
    if not error < _ROUND_TRIP_UM:
        raise RecordError(
            f"{label} has an alignment and an inverse that differ by {error:.1f} um", code="inconsistent-alignment"
        )


def are_alignments(
    forward: NDArray[np.float64], inverse: NDArray[np.float64], points: Sequence[Sequence[Any]]
) -> NDArray[np.bool_]:
    """Whether many alignments are valid by the rules of `SectionDataset.from_json`.

    Parameters
    ----------
    forward, inverse : ndarray, float64, shape (n, k, k + 1)
    points : sequence of points
        Points that `forward` followed by `inverse` must not move: k coordinates each, numbers or arrays of shape (n,).

    Returns
    -------
    ndarray, bool, shape (n,)
    """
    valid = np.ones(len(forward), np.bool_)
    with np.errstate(all="ignore"):  # infinite values are not valid
        for each in (forward, inverse):
            valid &= (np.abs(each) < _LARGEST).all(axis=(1, 2))
            valid &= _condition(np.where(valid[:, np.newaxis, np.newaxis], each[:, :, :-1], 0.0)) < _MOST_SKEW
        for point in points:
            moved = apply_each(inverse, apply_each(forward, point))
            for coordinate, other in zip(point, moved, strict=True):
                valid &= np.abs(other - coordinate) < _ROUND_TRIP_UM
    return valid


def apply_each(affines: NDArray[np.float64], point: Sequence[Any]) -> list[NDArray[np.float64]]:
    """The coordinates of a point after each of many affines, shape (n, k, k + 1); see `are_alignments`."""
    size = len(point)
    return [sum((affines[:, row, k] * point[k] for k in range(size)), affines[:, row, size]) for row in range(size)]


def _condition(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Condition numbers; those of 2 x 2 matrices from determinant and norm, much faster than `numpy.linalg.cond`."""
    if matrices.shape[-1] != 2:
        return np.asarray(np.linalg.cond(matrices), np.float64)
    a, b, c, d = (matrices[:, row, column] for row in (0, 1) for column in (0, 1))
    determinant = np.abs(a * d - b * c)
    half = (a * a + b * b + c * c + d * d) / 2
    return np.asarray((half + np.sqrt(np.maximum(half * half - determinant * determinant, 0.0))) / determinant)
