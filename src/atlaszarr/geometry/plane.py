"""Planes of section: how they lie in a reference space, which one a dataset was cut in. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..allen.records import SectionDataset, plane_name
from ..errors import InputError
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

    def shape(self, grid: Grid) -> tuple[int, int]:
        """Pixels of the plane over a grid: rows and columns."""
        return grid.shape[self.rows], grid.shape[self.columns]

    def to_reference(self, grid: Grid, coordinate: float) -> NDArray[np.float64]:
        """Affine from pixels (column, row) at a slice coordinate to (p, i, r), in um: float64, shape (3, 3)."""
        affine = np.zeros((3, 3))
        affine[self.columns, 0] = affine[self.rows, 1] = grid.resolution
        affine[[self.columns, self.rows], 2] = grid.resolution / 2
        affine[self.fixed, 2] = coordinate
        return affine


PLANES = {
    plane.name: plane for plane in (Plane("coronal", 0, 1, 2), Plane("sagittal", 2, 1, 0), Plane("transverse", 1, 0, 2))
}


def plane_of(dataset: SectionDataset, plane: str = "auto") -> Plane:
    """The plane that the sections of a dataset stand for.

    Parameters
    ----------
    dataset : SectionDataset
    plane : str
        ``coronal``, ``sagittal``, ``transverse`` (or ``horizontal``, ``axial``); ``auto`` for that of its record or,
        where this names none, the one that its alignment comes nearest to.

    Raises
    ------
    InputError
        If a plane is asked for that the sections are more than 45 degrees away from.
    RecordError
        If the dataset has no 3-D alignment.
    """
    _, trv = dataset.alignment
    plane = plane_name(plane)
    if plane != "auto" and plane not in PLANES:
        raise InputError(f"plane {plane!r} is not known; choose from auto, {', '.join(PLANES)}")
    normal = np.abs(np.asarray(trv)[2, :3])
    normal /= np.linalg.norm(normal)
    nearest = next(one for one in PLANES.values() if one.fixed == int(normal.argmax()))
    found = PLANES.get(dataset.plane if plane == "auto" else plane, nearest)
    if normal[found.fixed] < _LEAST_COSINE:
        angle = np.degrees(np.arccos(normal[found.fixed]))
        raise InputError(
            f"the sections of dataset {dataset.id} lie {angle:.0f} degrees off the {found.name} plane; "
            f"ask for the plane {nearest.name}"
        )
    return found
