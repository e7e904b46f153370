"""Open a finished image of atlaszarr: its voxels, geometry and the digest of its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ..boxes import Region, within
from ..errors import InputError
from ..stores.documents import parse_object
from ..stores.target import Target
from . import ledger
from .multiscale import Multiscale, multiscale_of
from .ome import Geometry
from .ome_reader import StoredImage
from .target_state import FINISHED, read_root, validate_layout


@dataclass(frozen=True)
class Finished:
    """A finished image along (z, y, x), in millimetres.

    Attributes
    ----------
    multiscale : Multiscale
        Its first array is the image.
    geometry : Geometry
        Geometry of level 0.
    digest : str
        Digest of the ledger; images with the same digest have the same voxels.
    credit : mapping of str to str
        The citation and the terms in the metadata of the image.
    """

    multiscale: Multiscale
    geometry: Geometry
    digest: str
    credit: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, target: Target) -> Finished:
        """Open the image in a target, as its ledger describes it.

        Raises
        ------
        InputError
            If the target is not a finished image, another layout version of atlaszarr wrote it, or it is not an
            OME-Zarr 0.5 with the axes z, y, x in millimetres.
        """
        root = read_root(target)
        if root is None or root["state"] != FINISHED:
            raise InputError(
                f"{target.url} is not a finished image of atlaszarr; build it first", code="not-a-finished-image"
            )
        validate_layout(target, root["request"])
        recorded = ledger.read(target, finished=True)
        try:
            multiscale = multiscale_of(target, recorded)
            image = StoredImage.of(target, parse_object((recorded.header or {})["root"]["zarr.json"])["attributes"])
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{target.url} is not an intact OME-Zarr 0.5 of atlaszarr; verify it", code="damaged-metadata"
            ) from None
        if [(axis.name, axis.unit) for axis in image.axes] != [(name, "millimeter") for name in "zyx"]:
            raise InputError(f"{target.url} must have the axes z, y, x in millimetres", code="wrong-axes")
        credit = {name: str(image.own[name]) for name in ("citation", "terms") if name in image.own}
        return cls(multiscale, image.geometries[0], str(recorded.digest), credit)

    @property
    def resolutions(self) -> tuple[tuple[float, float, float], ...]:
        """Size of a voxel of every level along (z, y, x), in um."""
        pyramid = self.multiscale.pyramid

        def resolution(level: int) -> tuple[float, float, float]:
            z, y, x = (1000 * s * float(f) for s, f in zip(self.geometry.scale, pyramid.scale(level), strict=True))
            return round(z, 6), round(y, 6), round(x, 6)

        return tuple(map(resolution, range(len(pyramid.levels))))

    def read(self, level: int, region: Region) -> NDArray[Any]:
        """Read a region of a level, shape (z, y, x).

        Raises
        ------
        TargetError
            If a chunk is missing or damaged.
        """
        at = self.multiscale.pyramid.levels[level]
        z, y, x = (
            slice(axis.start // u * u, min(-(-axis.stop // u) * u, n))
            for axis, u, n in zip(region, at.unit, at.shape, strict=True)
        )
        whole = next(iter(self.multiscale.read(level, (z, y, x)).values()))
        return whole[within(region, (z, y, x))]
