"""The side of every voxel of an annotation: 1 left, 2 right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.label_index import columns_before_midline
from ..engine.ome import Geometry
from ..engine.pyramid import Pyramid
from ..geometry.grid import Region
from ..geometry.spaces import BRAINGLOBE_SIDES
from ..stores.target import Target
from .images import AtlasImage, assembly_of, computing_from

LEFT, RIGHT = 1, 2


@dataclass(frozen=True)
class Sides:
    """The sides of one level, as an array that is sliced.

    Attributes
    ----------
    before : int
        Columns along x, from the first on, that are on the low side.
    low, high : int
        `LEFT` or `RIGHT`.
    """

    before: int
    low: int
    high: int

    def __getitem__(self, region: Region) -> NDArray[np.uint8]:
        """The sides in a region."""
        z, y, x = region
        sides = np.where(np.arange(x.start, x.stop) < self.before, self.low, self.high).astype(np.uint8)
        return np.broadcast_to(sides, (z.stop - z.start, y.stop - y.start, len(sides)))


def hemispheres_image(pyramid: Pyramid, geometry: Geometry, target: Target, ome_zarr: str) -> AtlasImage:
    """The sides of an annotation, at its levels and over all of its voxels.

    A voxel is where its centre is, at every level; with its centre on the midline it is on the high side of x.

    Parameters
    ----------
    pyramid : Pyramid
        Of the annotation.
    geometry : Geometry
        Whose orientation of x tells which side is left.
    target : Target
    ome_zarr : str
    """
    levels = Pyramid(tuple(replace(level, given=True) for level in pyramid.levels))
    assembly = assembly_of("hemispheres", levels, geometry, target, "uint8", "nearest", ome_zarr, {}, {})
    low, high = (RIGHT, LEFT) if geometry.orientation.get("x") == BRAINGLOBE_SIDES else (LEFT, RIGHT)
    sources: dict[int, Any] = {
        n: Sides(columns_before_midline(levels, n), low, high) for n in range(len(levels.levels))
    }
    return AtlasImage(assembly, partial(computing_from, sources, None))
