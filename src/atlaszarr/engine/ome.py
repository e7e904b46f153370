"""Make the metadata documents of OME-Zarr 0.4, 0.5 and 0.6. The tests validate them with the schemas of other readers.

0.4 uses zarr v2 groups; 0.5 and 0.6 use v3 groups, with the metadata under the key ``ome``. 0.6 names its coordinate
system and puts the transformations of a level into a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from ..errors import InputError
from ..stores.documents import json_bytes
from .pyramid import Pyramid

VERSIONS = ("0.4", "0.5", "0.6")
DEFAULT_VERSION = "0.5"
_SYSTEM = "intrinsic"
#: Micrometres in each unit of length, by the names that occur in files.
_MICRONS = {
    **dict.fromkeys(("um", "µm", "μm", "micron", "micrometer", "micrometre"), Fraction(1)),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), Fraction(10**3)),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), Fraction(10**4)),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), Fraction(1, 10**3)),
    **dict.fromkeys(("m", "meter", "metre"), Fraction(10**6)),
}


@dataclass(frozen=True)
class Geometry:
    """Scale and translation of a level.

    Attributes
    ----------
    scale : tuple of float
        Size of a voxel along (z, y, x), in `unit`.
    translation : tuple of float
        Centre of the first voxel along (z, y, x), in `unit`.
    unit : str
        A unit of OME-Zarr: ``millimeter``.
    orientation : mapping of str to str
        The RFC-4 orientation of each axis: ``{"z": "anterior-to-posterior"}``; empty if it is not known.

    Raises
    ------
    InputError
        If `scale` or `translation` is not three finite lengths, or `scale` is not positive.
    """

    scale: tuple[float, float, float]
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    unit: str | None = "millimeter"
    orientation: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("scale", "translation"):
            lengths = tuple(map(float, getattr(self, name)))
            if len(lengths) != 3 or not all(map(math.isfinite, lengths)) or (name == "scale" and min(lengths) <= 0):
                raise InputError(
                    f"{name} {getattr(self, name)!r} must be three lengths along z, y, x", code="invalid-geometry"
                )
            object.__setattr__(self, name, lengths)

    @property
    def micron(self) -> Fraction | None:
        """Length of `unit` in micrometres; None if it is not a known unit of length."""
        return microns_in(self.unit)


def microns_in(unit: str | None) -> Fraction | None:
    """Micrometres in a unit of length, by any of its names, in the plural too; None if it is not known."""
    name = "" if unit is None else unit.strip().lower()
    return _MICRONS.get(name) or _MICRONS.get(name[:-1] if len(name) > 3 and name.endswith("s") else "")


def zarr_format(version: str) -> int:
    """The zarr format of a version of OME-Zarr.

    Raises
    ------
    InputError
        If the version is not known.
    """
    if version not in VERSIONS:
        raise InputError(f"ome_zarr {version!r} is not known; choose from {', '.join(VERSIONS)}", code="unknown-value")
    return 2 if version == "0.4" else 3


def multiscales(
    version: str, name: str, axes: Sequence[str], geometry: Geometry, pyramid: Pyramid, method: str
) -> dict[str, Any]:
    """One entry of ``multiscales``.

    Parameters
    ----------
    version : str
    name : str
    axes : sequence of str
        ``z``, ``y``, ``x`` or ``y``, ``x``, after ``c`` if there are channels.
    geometry : Geometry
        Geometry of level 0.
    pyramid : Pyramid
        A level with f times longer voxels is translated by (f - 1)/2 voxels of level 0, unless it sets `Level.first`.
    method : str
        The method of downsampling.
    """
    described = [_axis(axis, geometry) for axis in axes]
    datasets = []
    for level in range(len(pyramid.levels)):
        at = geometry_of_level(geometry, pyramid, level)
        scale = [1.0 if axis == "c" else at.scale["zyx".index(axis)] for axis in axes]
        translation = [0.0 if axis == "c" else at.translation["zyx".index(axis)] for axis in axes]
        path = str(level)
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
        if version == "0.6":
            whole = {"type": "sequence", "input": {"path": path}, "output": {"name": _SYSTEM}, "transformations": steps}
            datasets.append({"path": path, "coordinateTransformations": [whole]})
        else:
            datasets.append({"path": path, "coordinateTransformations": steps})
    system = {"coordinateSystems": [{"name": _SYSTEM, "axes": described}]} if version == "0.6" else {"axes": described}
    versioned = {"version": version} if version == "0.4" else {}
    return {**versioned, "name": name, **system, "datasets": datasets, "metadata": {"method": method}}


def geometry_of_level(geometry: Geometry, pyramid: Pyramid, level: int) -> Geometry:
    """The geometry of a level, each number rounded once, given that of level 0."""
    z, y, x = (float(exact(size) * factor) for size, factor in zip(geometry.scale, pyramid.scale(level), strict=True))
    lengths = zip(geometry.scale, geometry.translation, pyramid.first(level), strict=True)
    c, b, a = (float(exact(start) + exact(size) * first) for size, start, first in lengths)
    return replace(geometry, scale=(z, y, x), translation=(c, b, a))


def displacement_field(
    version: str, name: str, axes: Sequence[str], geometry: Geometry, pyramid: Pyramid
) -> dict[str, Any]:
    """The metadata of a displacement field with one level. Displacements along the spatial axes are in `geometry.unit`.

    In 0.6 it has the transformation ``displacements`` of RFC-5 from the coordinate system ``reference`` to ``image``.
    """
    entry = multiscales(version, name, axes, geometry, Pyramid(pyramid.levels[:1]), "one level")
    if version != "0.6":
        entry["axes"][0]["type"] = "displacement"
        return {"multiscales": [entry]}
    (intrinsic,) = entry["coordinateSystems"]
    intrinsic["axes"][0]["type"] = "displacement"
    spaces = [{"name": name, "axes": intrinsic["axes"][1:]} for name in ("reference", "image")]
    field = {
        "type": "displacements",
        "path": "0",
        "interpolation": "linear",
        "input": {"name": "reference"},
        "output": {"name": "image"},
    }
    entry |= {"coordinateSystems": [intrinsic, *spaces], "coordinateTransformations": [field]}
    return {"multiscales": [entry]}


def attributes(version: str, ome: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a group: those of OME-Zarr, if any, and those of atlaszarr."""
    if not ome or version == "0.4":
        return {**ome, **own}
    return {"ome": {"version": version, **ome}, **own}


def group(version: str, attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """The documents of a zarr group, by name; the last one holds the attributes."""
    if zarr_format(version) == 2:
        return {".zgroup": json_bytes({"zarr_format": 2}), ".zattrs": json_bytes(attributes)}
    return {"zarr.json": json_bytes({"zarr_format": 3, "node_type": "group", "attributes": attributes})}


def _axis(name: str, geometry: Geometry) -> dict[str, Any]:
    if name == "c":
        return {"name": "c", "type": "channel"}
    axis: dict[str, Any] = {"name": name, "type": "space"}
    if geometry.unit is not None:
        axis["unit"] = geometry.unit
    if name in geometry.orientation:
        axis["orientation"] = {"type": "anatomical", "value": geometry.orientation[name]}
    return axis


def exact(length: float) -> Fraction:
    """A length as an exact fraction of its decimal digits, so that a result is rounded once."""
    return Fraction(repr(float(length)))
