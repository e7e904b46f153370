"""How a plane of section lies in the reference space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .allen.records import SectionDataset
from .errors import InputError

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
