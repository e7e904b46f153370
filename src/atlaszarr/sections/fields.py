"""Fields that register the sections of a dataset beyond their records: what all kinds share, and those of a user."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import Any, TypeAlias

from ..allen.records import SectionDataset
from ..displacement.displacement import Displacement
from ..displacement.fields import blocks, regular, transposed
from ..errors import InputError
from ..geometry.grid import Grid
from ..geometry.plane import PLANES, Plane
from ..stores.locations import options_for
from ..transforms import Affine

#: Bytes per pixel while points are computed: float64, in three arrays at a time.
_POINTS = 3 * 2 * 8
#: Side of the blocks in which the digest of a field is computed.
_BLOCK = 512


@dataclass(frozen=True)
class PlaneGrid:
    """The pixels of the planes of a dataset.

    Attributes
    ----------
    plane : Plane
        With its rows and columns in the order in which they are computed.
    grid : Grid
    mirror : bool
        Whether left and right are mirrored.
    """

    plane: Plane
    grid: Grid
    mirror: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.plane.shape(self.grid)

    def __str__(self) -> str:
        rows, columns = self.shape
        return f"the {self.plane.name} plane at {self.grid.resolution:g} um, {rows} x {columns} pixels"


class SectionFields(ABC):
    """Displacement fields of sections in their planes, and corrections of their depths. Picklable, and small."""

    #: Whether voxels next to the plane of a section follow the tilt of the recorded alignment against the grid.
    follows_tilt: bool

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of all that the registration of the sections depends on."""

    @property
    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What ``build.json`` records of the fields, as JSON values, without secrets."""

    @property
    def corrections(self) -> Mapping[int, float]:
        """What is added to the depths of sections, by SectionImage id, in um; not listed are those that keep theirs."""
        return {}

    @property
    def locations(self) -> Sequence[str]:
        """The paths and URLs that are read when fields are evaluated."""
        return ()

    @property
    def memory(self) -> int:
        """The most bytes of fields that a process keeps in addition to its arrays."""
        return 0

    def working(self, resolution: float) -> float:
        """Bytes for each pixel of a plane of a resolution in um, while the points of a section are computed."""
        return _POINTS

    def corrected(self, dataset: SectionDataset) -> SectionDataset:
        """The dataset with corrected depths of its sections, and the sections in their order.

        The corrected depth alone decides where a section lies: it may pass others. Of two at the same depth, the one
        that was cut first is first.

        Raises
        ------
        InputError
            If the fields do not belong to the dataset.
        """
        if not self.corrections:
            return dataset
        sections = [
            replace(section, depth=section.depth + self.corrections.get(section.image_id, 0.0))
            for section in dataset.sections
        ]
        sections.sort(key=lambda section: (section.depth, section.section_number))
        return replace(dataset, sections=tuple(sections))

    @abstractmethod
    def validate(self, dataset: SectionDataset, pixels: PlaneGrid) -> None:
        """Raise an InputError if the fields do not belong to a dataset, or do not fit its planes."""

    @abstractmethod
    def registration(self, image_id: int) -> str:
        """How a section is registered in its plane.

        Returns
        -------
        str
            ``refined`` or ``own`` by a field; ``depth only`` by its record, at a corrected depth, if a refinement has
            no field for it; ``recorded`` if the fields lack the section.
        """

    @abstractmethod
    def displacement(self, image_id: int, pixels: PlaneGrid, recorded: Affine) -> Displacement | None:
        """The field of a section.

        Parameters
        ----------
        image_id : int
        pixels : PlaneGrid
        recorded : ndarray, float64, shape (2, 3)
            The recorded alignment: pixel (column, row) of the plane to pixel (X, Y) of the tier image.

        Returns
        -------
        Displacement or None
            Pixels of the plane to pixels of the tier image; None if the recorded alignment holds.
        """

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__name__, self.digest


@dataclass(frozen=True, eq=False)
class OwnFields(SectionFields):
    """Fields of a user, which replace the alignment within the planes of their sections.

    Attributes
    ----------
    fields : mapping of int to Displacement
        By SectionImage id: pixels of the plane, superior up and anterior left or up, to pixels of the tier image.
    """

    fields: Mapping[int, Displacement]

    follows_tilt = False

    @property
    def locations(self) -> Sequence[str]:
        """See `SectionFields`."""
        from ..displacement.files import locations_of

        return sorted({at for field in self.fields.values() for at in locations_of(field.field)})

    @cached_property
    def digest(self) -> str:
        """See `SectionFields`; computes the fields."""
        found = hashlib.sha256()
        for image_id, field in sorted(self.fields.items()):
            found.update(f"{image_id} {field.shape}".encode())
            for _, block in blocks(regular(field.shape, _BLOCK)):
                found.update(field.coordinates(*block).astype("<f8").tobytes())
        return found.hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """See `SectionFields`; the digest is in the request."""
        return {"sections": sorted(self.fields)}

    def registration(self, image_id: int) -> str:
        """See `SectionFields`."""
        return "own" if image_id in self.fields else "recorded"

    def validate(self, dataset: SectionDataset, pixels: PlaneGrid) -> None:
        """See `SectionFields`."""
        if unknown := sorted(set(self.fields) - {section.image_id for section in dataset.sections}, key=str):
            raise InputError(
                f"fields has a field for section image {unknown[0]}, which dataset {dataset.id} cannot register",
                code="unknown-section",
            )
        seen = PlaneGrid(PLANES[pixels.plane.name], pixels.grid, pixels.mirror)
        for image_id, field in self.fields.items():
            if not isinstance(field, Displacement):
                raise InputError(
                    f"the field of section image {image_id} has type {type(field).__name__}; give a Displacement",
                    code="wrong-type",
                )
            if field.shape != seen.shape:
                raise InputError(
                    f"the field of section image {image_id} has {' x '.join(map(str, field.shape))} pixels, but a "
                    f"section fills {seen}",
                    code="shape-mismatch",
                )

    def displacement(self, image_id: int, pixels: PlaneGrid, recorded: Affine) -> Displacement | None:
        """See `SectionFields`."""
        field = self.fields.get(image_id)
        if field is None or pixels.plane.rows == PLANES[pixels.plane.name].rows:
            return field
        return Displacement(transposed(field.field))

    def __dask_tokenize__(self) -> tuple[str, str]:
        from dask.base import tokenize

        return "atlaszarr.OwnFields", str(tokenize(sorted(self.fields.items())))


@dataclass(frozen=True, eq=False)
class AppliedFields(SectionFields):
    """Refined fields that the values of a Dataset show already.

    Attributes
    ----------
    recorded : dict
        Their `SectionFields.provenance`.
    """

    recorded: dict[str, Any]

    follows_tilt = True

    @property
    def provenance(self) -> dict[str, Any]:
        """See `SectionFields`."""
        return self.recorded

    @property
    def digest(self) -> str:
        """See `SectionFields`."""
        return str(self.recorded["sha256"])

    @cached_property
    def corrections(self) -> Mapping[int, float]:
        """See `SectionFields`."""
        return {int(id): float(um) for id, um in self.recorded["depth_corrections_um"].items()}

    def validate(self, dataset: SectionDataset, pixels: PlaneGrid) -> None:
        """See `SectionFields`; they were validated when the Dataset was opened."""

    def registration(self, image_id: int) -> str:
        """See `SectionFields`."""
        if image_id not in self.corrections:
            return "recorded"
        return "refined" if image_id in self.recorded["refined"] else "depth only"

    def displacement(self, image_id: int, pixels: PlaneGrid, recorded: Affine) -> Displacement | None:
        """See `SectionFields`; not known."""
        return None


#: What `fields` of `open_volume`, `build` and others may be.
Fields: TypeAlias = str | os.PathLike[str] | SectionFields | Mapping[int, Displacement] | None


def fields_of(
    given: Fields,
    storage_options: Mapping[str, Any] | None = None,
    target: str | os.PathLike[str] | None = None,
) -> SectionFields | None:
    """The fields that are given as `fields`, as in `atlaszarr.open_volume`.

    Parameters
    ----------
    given : str, path-like, RefinedFields, mapping of int to Displacement, or None
    storage_options : mapping, optional
        Options for fsspec, for a URL.
    target : str or path-like, optional
        What is written; the options are not for URLs of another protocol, unless it is a path.

    Raises
    ------
    InputError, NotFoundError, TargetError
        For the reasons of `RefinedFields.open`, or if `given` has another type.
    """
    if given is None or isinstance(given, SectionFields):
        return given
    if isinstance(given, str | os.PathLike):
        from .refined import RefinedFields  # imported here, since most builds do without

        return RefinedFields.open(given, options_for(given, target, storage_options))
    if not isinstance(given, Mapping):
        raise InputError(
            f"fields has type {type(given).__name__}; give the FIELDS that `refine` wrote, or a mapping of "
            "SectionImage ids to displacement fields",
            code="wrong-type",
        )
    fields = {int(id) if isinstance(id, Integral) else id: field for id, field in given.items()}  # also of NumPy
    return OwnFields(fields) if fields else None
