"""The ellipsoids that the phantom brain is made of, and the table of its regions.

Geometry and figures only; colours and pictures are `phantom.py`'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..geometry.spaces import reference_space
from .ontology import figures, structures

Array = NDArray[np.float64]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid whose axes lie along p, i and r.

    Attributes
    ----------
    centre, semi_axes : tuple of float
        Along (p, i, r), in um of reference space 9.
    """

    centre: Triple
    semi_axes: Triple

    @property
    def volume_mm3(self) -> float:
        """4/3 pi abc, in mm3."""
        return 4.0 / 3.0 * math.pi * math.prod(self.semi_axes) * 1e-9

    def squared_radius(self, pir: ArrayLike) -> Array:
        """Squared distance from the centre in units of the semi-axes, (..., 3) um to (...): 1 on the surface."""
        scaled = (np.asarray(pir, dtype=np.float64) - self.centre) / self.semi_axes
        return np.asarray(np.square(scaled).sum(axis=-1))

    def distance_to_surface(self, pir: ArrayLike) -> Array:
        """A lower bound (um) of the distance of points (..., 3) to the surface, from inside or outside.

        Shrinking space by the semi-axes shrinks a distance by their smallest at least, and a point as far
        beyond the bounding box along one axis is as far from the ellipsoid: the larger of the two bounds.
        """
        scaled = np.abs(np.sqrt(self.squared_radius(pir)) - 1.0) * min(self.semi_axes)
        beyond = np.abs(np.asarray(pir, dtype=np.float64) - self.centre) - self.semi_axes
        return np.asarray(np.maximum(scaled, beyond.max(axis=-1)))


@dataclass(frozen=True)
class Region(Ellipsoid):
    """One ellipsoid of a structure; a structure of both hemispheres has two.

    Attributes
    ----------
    structure_id : int
        The Allen Institute's structure id.
    acronym : str
        The structure's acronym.
    shift : tuple of float
        Grey levels it adds to the tissue view's red, green and blue.
    expression : float
        0 (none) to 1: the height of its expression at the centre.
    """

    structure_id: int
    acronym: str
    shift: Triple
    expression: float


def standard_regions() -> tuple[Region, ...]:
    """The regions of the table ``figures/phantom_regions.csv``, mirrored where they lie in both hemispheres."""
    across = reference_space(9).extent[2]
    ids = {structure.acronym: structure.id for structure in structures().values()}
    regions = []
    for number, row in enumerate(figures("phantom_regions")):
        p, i, r, semi_p, semi_i, semi_r = (float(row[key]) for key in ("p", "i", "r", "semi_p", "semi_i", "semi_r"))
        # Whole numbers between -18 and 18, different from neighbour to neighbour in the table.
        shift = (float(7 * number % 37 - 18), float(11 * number % 37 - 18), float(13 * number % 37 - 18))
        for centre in (r, across - r) if row["sides"] == "both" else (r,):
            regions.append(
                Region(
                    centre=(p, i, centre),
                    semi_axes=(semi_p, semi_i, semi_r),
                    structure_id=ids[row["acronym"]],
                    acronym=row["acronym"],
                    shift=shift,
                    expression=float(row["expression"]),
                )
            )
    return tuple(regions)
