"""Planes of section: how they lie in a reference space, which one a dataset was cut in, what fits them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .allen.records import SectionDataset
from .displacement import Displacement
from .errors import InputError
from .grid import Grid

#: Least cosine between the normal of the sections and the axis across their plane: 45 degrees.
_LEAST_COSINE = 0.5**0.5


@dataclass(frozen=True)
class Plane:
    """How a plane of section lies in the reference space; axes are 0 p, 1 i, 2 r.

    Attributes
    ----------
    name : str
    fixed : int
        The axis across the plane, along which the slice coordinates lie.
    rows, columns : int
        The axes that run down and across. In the field's orientation superior is up and anterior left.
    """

    name: str
    fixed: int
    rows: int
    columns: int

    @property
    def as_stored(self) -> Plane:
        """The same with its rows and columns in the order of an array (z, y, x)."""
        return replace(self, rows=min(self.rows, self.columns), columns=max(self.rows, self.columns))


PLANES = {
    plane.name: plane for plane in (Plane("coronal", 0, 1, 2), Plane("sagittal", 2, 1, 0), Plane("transverse", 1, 0, 2))
}


def plane_of(dataset: SectionDataset, plane: str = "auto") -> Plane:
    """The plane that the sections of a dataset stand for.

    Parameters
    ----------
    dataset : SectionDataset
        With a 3-D alignment.
    plane : str
        ``auto`` for that of its record or, where this names none, the one that its alignment comes nearest to.

    Raises
    ------
    InputError
        If a plane is asked for that the sections are more than 45 degrees away from.
    """
    if plane != "auto" and plane not in PLANES:
        raise InputError(f"plane {plane!r} is not known; choose from auto, {', '.join(PLANES)}")
    normal = np.abs(np.asarray(dataset.trv)[2, :3])
    normal /= np.linalg.norm(normal)
    nearest = next(one for one in PLANES.values() if one.fixed == int(normal.argmax()))
    found = (
        nearest
        if plane == "auto" and dataset.plane not in PLANES
        else PLANES[plane if plane != "auto" else dataset.plane]
    )
    if normal[found.fixed] < _LEAST_COSINE:
        angle = np.degrees(np.arccos(normal[found.fixed]))
        raise InputError(
            f"the sections of dataset {dataset.id} lie {angle:.0f} degrees off the {found.name} plane; "
            f"ask for the plane {nearest.name}"
        )
    return found


def check_fields(fields: Mapping[int, Displacement], dataset: SectionDataset, plane: Plane, grid: Grid) -> None:
    """Refuse fields that are not for the sections of a dataset as planes of a grid.

    Parameters
    ----------
    fields : mapping of int to Displacement
        By SectionImage id.
    dataset : SectionDataset
    plane : Plane
    grid : Grid

    Raises
    ------
    InputError
        If they are no mapping, a section is none of the dataset's, or a field is not over the grid of the plane.
    """
    if not isinstance(fields, Mapping):
        raise InputError(f"displacement is of type {type(fields).__name__}; give fields by SectionImage id")
    known = {section.image_id for section in dataset.sections}
    if unknown := sorted(set(fields) - known, key=str):
        raise InputError(
            f"displacement is given for section image {unknown[0]}, which is none of those that dataset "
            f"{dataset.id} can register"
        )
    shape = (grid.shape[plane.rows], grid.shape[plane.columns])
    for image_id, field in fields.items():
        if not isinstance(field, Displacement):
            raise InputError(f"displacement of section image {image_id} is no Displacement but {type(field).__name__}")
        if field.shape != shape:
            raise InputError(
                f"displacement of section image {image_id} is over {' x '.join(map(str, field.shape))} pixels, but the "
                f"{plane.name} plane at {grid.resolution:g} um has {shape[0]} x {shape[1]}"
            )
