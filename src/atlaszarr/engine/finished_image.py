"""A finished image of atlaszarr: its voxels, where they lie, and the digest of its ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..boxes import Region, within
from ..errors import InputError
from ..stores.target import Target
from . import ledger
from .multiscale import Multiscale, multiscale_of
from .ome import Geometry
from .ome_reader import StoredImage
from .target_state import FINISHED, read_root, validate_layout


@dataclass(frozen=True)
class Finished:
    """An image of three spatial axes, in millimetres.

    Attributes
    ----------
    multiscale : Multiscale
        Its first array is the image.
    geometry : Geometry
    digest : str
        Of its ledger; images with the same digest have the same voxels.
    """

    multiscale: Multiscale
    geometry: Geometry
    digest: str

    @classmethod
    def at(cls, place: Target) -> Finished:
        """The image in a target, by its ledger.

        Raises
        ------
        InputError
            If there is no image that atlaszarr finished by its present rules, or it is not OME-Zarr 0.5 over z, y, x in
            millimetres.
        """
        root = read_root(place)
        if root is None or root["state"] != FINISHED:
            raise InputError(f"{place.url} is not a finished image of atlaszarr; build it first")
        validate_layout(place, root["request"])
        found = ledger.read(place, finished=True)
        try:
            multiscale = multiscale_of(place, found)
            image = StoredImage.of(place, json.loads((found.header or {})["root"]["zarr.json"])["attributes"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{place.url} is not an intact OME-Zarr 0.5 of atlaszarr; verify it") from None
        if [(axis.name, axis.unit) for axis in image.axes] != [(name, "millimeter") for name in "zyx"]:
            raise InputError(f"{place.url} must have the axes z, y, x in millimetres")
        return cls(multiscale, image.geometries[0], str(found.digest))

    @property
    def resolutions(self) -> tuple[tuple[float, float, float], ...]:
        """Size of a voxel of every level along (z, y, x), in um."""
        found = []
        for level in range(len(self.multiscale.pyramid.levels)):
            factors = self.multiscale.pyramid.scale(level)
            z, y, x = (round(1000 * s * float(f), 6) for s, f in zip(self.geometry.scale, factors, strict=True))
            found.append((z, y, x))
        return tuple(found)

    def read(self, level: int, region: Region) -> NDArray[Any]:
        """Read a region of a level, (z, y, x).

        Raises
        ------
        TargetError
            If an object is missing, or is not what was written.
        """
        at = self.multiscale.pyramid.levels[level]
        z, y, x = (
            slice(axis.start // u * u, min(-(-axis.stop // u) * u, n))
            for axis, u, n in zip(region, at.unit, at.shape, strict=True)
        )
        whole = next(iter(self.multiscale.read(level, (z, y, x)).values()))
        return whole[within(region, (z, y, x))]
