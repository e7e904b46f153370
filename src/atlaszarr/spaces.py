"""The Allen reference spaces: extent, finest published grid, and the mirror between spaces 9 and 10.

Coordinates are PIR microns: p from anterior to posterior, i from superior to inferior, r across.
Pure data and arithmetic; nothing here reads or writes anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

#: Names of the axes of a reference space.
AXES = "pir"
#: RFC-4 orientations of the axes z, y, x = p, i, r as the Allen Institute publishes its atlas.
ORIENTATION = {"z": "anterior-to-posterior", "y": "superior-to-inferior", "x": "right-to-left"}


@dataclass(frozen=True)
class ReferenceSpace:
    """A three-dimensional coordinate frame of the Allen Institute, in PIR microns.

    Attributes
    ----------
    id : int
        The ReferenceSpace record's id.
    name : str
        The ReferenceSpace record's name.
    extent : tuple of float
        Size along (p, i, r) in um.
    anchor : float
        Voxel size of the finest published grid, in um. The centre of that grid's first voxel,
        at (anchor/2, anchor/2, anchor/2) um, is the physical origin of every OME-Zarr of the space.
    """

    id: int
    name: str
    extent: tuple[float, float, float]
    anchor: float

    @property
    def is_adult(self) -> bool:
        """Whether this is P56, whose two spaces mirror each other."""
        return self.id in (9, 10)

    def to(self, target: ReferenceSpace, r_extent: float | None = None) -> NDArray[np.float64]:
        """Affine from this space to another one, both in um.

        Parameters
        ----------
        target : ReferenceSpace
            This space itself, or its left-right mirror (9 and 10).
        r_extent : float, optional
            The r (um) onto which r = 0 falls when mirrored; default the extent, 11400. The Allen
            API's own transform between spaces 10 and 9 says 11350, its structure centres 11400.

        Returns
        -------
        ndarray, float64, shape (3, 4)
            Maps (p, i, r, 1) in this space to (p, i, r) in `target`.

        Raises
        ------
        InputError
            If no transform between the two is known.
        """
        affine = np.eye(3, 4)
        if self.id != target.id:
            if not (self.is_adult and target.is_adult):
                raise InputError(
                    f"no transform is known from reference space {self.id} ({self.name}) to {target.id} "
                    f"({target.name}); use --space native"
                )
            affine[2, 2] = -1.0
            affine[2, 3] = self.extent[2] if r_extent is None else r_extent
        return affine


def _published(id: int, name: str, shape: tuple[int, int, int], spacing: float) -> ReferenceSpace:
    p, i, r = shape
    return ReferenceSpace(id, name, (p * spacing, i * spacing, r * spacing), spacing)


# Grids (p, i, r at um) as the Allen Developing Mouse Brain Atlas and CCFv3 publish them. Space 4
# (E16.5 head) has no published grid, so nothing can be registered onto it.
_SPACES = {
    space.id: space
    for space in (
        _published(1, "E11.5 Embryo", (70, 75, 40), 80.0),
        _published(2, "E13.5 Embryo", (89, 109, 69), 100.0),
        _published(3, "E15.5 Embryo", (94, 132, 65), 120.0),
        _published(5, "E18.5 Brain", (67, 43, 40), 140.0),
        _published(6, "P4 Brain", (77, 43, 50), 160.0),
        _published(7, "P14 Brain", (68, 40, 50), 200.0),
        _published(8, "P28 Brain", (73, 41, 53), 200.0),
        _published(9, "P56 Brain", (1320, 800, 1140), 10.0),
        _published(10, "P56 Brain (L/R Flipped)", (1320, 800, 1140), 10.0),
    )
}


def reference_space(id: int) -> ReferenceSpace:
    """The reference space of an id.

    Parameters
    ----------
    id : int
        1 to 3 and 5 to 8 (developing ages), 9 or 10 (P56).

    Raises
    ------
    InputError
        If the space has no published grid.
    """
    try:
        return _SPACES[id]
    except KeyError:
        known = ", ".join(map(str, _SPACES))
        raise InputError(f"reference space {id} has no published grid; the known ones are {known}") from None


def output_space(name: str | int, native: ReferenceSpace) -> ReferenceSpace:
    """The space that a dataset is registered to.

    Parameters
    ----------
    name : str or int
        ``auto`` (9 for P56 data, else the dataset's own), ``native``, 9 or 10.
    native : ReferenceSpace
        The dataset's own.

    Raises
    ------
    InputError
        If the name is not known.
    """
    if str(name) == "native" or (str(name) == "auto" and not native.is_adult):
        return native
    if str(name) not in ("auto", "9", "10"):
        raise InputError(f"space {name!r} is not known; choose from auto, 9, 10, native")
    return reference_space(9 if str(name) == "auto" else int(name))
