"""The Allen reference spaces: extents, finest published grids and orientation.

Coordinates are in um: p from anterior to posterior, i from superior to inferior, r from left to right. Sources: the
API documentation of spaces 9 and 10 ("PIR": +x posterior, +y inferior, +z right), the AllenSDK ("Left -> Right") and
the ASL cosines of the corrected CCF volumes. Spaces 9 and 10 are one frame: sagittal datasets are cut from left
hemispheres, and their alignments map them to low r, as in the expression grids of the Allen Institute. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

#: Names of the axes of a reference space.
AXES = "pir"
#: RFC-4 orientation of the axes z, y, x = p, i, r.
ORIENTATION = {"z": "anterior-to-posterior", "y": "superior-to-inferior", "x": "left-to-right"}
#: Other words for the sides of a brain; along the axis of a mouse's brain, dorsal is superior.
_SAME_SIDES = {"dorsal": "superior", "ventral": "inferior", "rostral": "anterior", "caudal": "posterior"}
#: The orientation that BrainGlobe records for x of the same arrays, whose origin it calls ``asr``:
#: brainglobe-atlasapi issue 104.
BRAINGLOBE_SIDES = "right-to-left"


def direction(word: str) -> str:
    """An orientation of RFC-4 in the words of `ORIENTATION`: ``dorsal-to-ventral`` is ``superior-to-inferior``."""
    return "-to-".join(_SAME_SIDES.get(side, side) for side in word.split("-to-"))


@dataclass(frozen=True)
class ReferenceSpace:
    """A three-dimensional coordinate frame of the Allen Institute: (p, i, r) in um.

    Attributes
    ----------
    id : int
        The ReferenceSpace record's id.
    name : str
        The ReferenceSpace record's name.
    extent : tuple of float
        Size along (p, i, r) in um.
    anchor : float
        Voxel size of the finest published grid, in um. The centre of its first voxel, at
        (anchor/2, anchor/2, anchor/2) um, is the physical origin of every OME-Zarr of the space.
    """

    id: int
    name: str
    extent: tuple[float, float, float]
    anchor: float

    @property
    def frame(self) -> ReferenceSpace:
        """The space that data are written in: 9 for both P56 spaces, which are one frame; otherwise the same space."""
        return _SPACES[9] if self.id == 10 else self

    @property
    def mirror(self) -> NDArray[np.float64]:
        """The affine that mirrors left to right, r to extent - r, in um: float64, shape (3, 4)."""
        affine = np.eye(3, 4)
        affine[2] = (0.0, 0.0, -1.0, self.extent[2])
        return affine

    def is_covered(self, shape: Sequence[int], size: Sequence[float]) -> bool:
        """Whether voxels fill the space: as many along each axis as the rounded extent needs, or one more.

        Parameters
        ----------
        shape : sequence of int
            Number of voxels along (p, i, r).
        size : sequence of float
            Voxel size along (p, i, r), in um.
        """
        return all(self._covers(shape, size))

    def lacks_part_of_x(self, shape: Sequence[int], size: Sequence[float]) -> bool:
        """Whether voxels fill the space along p and i, but not along r: a half of it, or another part.

        Parameters
        ----------
        shape, size
            Same as in `is_covered`.
        """
        p, i, r = self._covers(shape, size)
        return p and i and not r and shape[2] * size[2] < self.extent[2]

    def _covers(self, shape: Sequence[int], size: Sequence[float]) -> list[bool]:
        rounded = 1e-6  # of a voxel, since sizes in files are rounded
        return [
            s > 0 and -0.5 - rounded <= n - extent / s <= 1 + rounded
            for n, s, extent in zip(shape, size, self.extent, strict=True)
        ]


def _published(id: int, name: str, shape: tuple[int, int, int], spacing: float) -> ReferenceSpace:
    p, i, r = shape
    return ReferenceSpace(id, name, (p * spacing, i * spacing, r * spacing), spacing)


# Grids (p, i, r at um) as published with the Allen Developing Mouse Brain Atlas and CCFv3. Space 4 (E16.5 head) has no
# published grid, so nothing can be registered to it.
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
    """The reference space with an id.

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
        raise InputError(
            f"reference space {id} has no published grid, so nothing can be registered to it; the spaces with a grid "
            f"are {known}",
            code="unknown-reference-space",
        ) from None
