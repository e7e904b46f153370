"""The levels of a reference volume: those of the published atlas, from the resolution of the finest volume on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from ..engine.ome import Geometry, exact
from ..engine.pyramid import Factor, Pyramid
from ..errors import InputError
from ..geometry.spaces import ORIENTATION, reference_space
from ..geometry.voxel_size import um
from ..reference_volumes import ReferenceVolume, strided_factor

#: Voxel sizes of the published CCFv3, in um: download.alleninstitute.org, informatics-archive, mouse_ccf.
PUBLISHED = (10.0, 25.0, 50.0, 100.0)
#: Voxel size of the finest volume of the CCF, in um; the physical origin is the centre of its first voxel.
_ANCHOR = reference_space(9).anchor
#: Fraction of a voxel up to which two origins are the same: those in files are rounded.
_ROUNDED = 0.1
#: Default side of a chunk, in voxels; of 10 um, before a level with voxels 2.5 times longer, 80. A block of a level has
#: whole chunks of it and of the next level, and 64 voxels of 25 um are 160 of 10 um: so a block of 10 um is 160 voxels
#: wide with chunks of 80, and with chunks of 64 it would be 320.
_CHUNK, _CHUNK_BEFORE_2_5 = 64, 80
#: Relative difference up to which two voxel sizes are the same: those in files are rounded.
SAME_SIZE = 1e-6
#: The outer corner of the first voxel, along (z, y, x), in um.
Corner = tuple[Fraction, Fraction, Fraction]


@dataclass(frozen=True)
class Levels:
    """The layout of a reference volume.

    Attributes
    ----------
    volumes : dict of int to ReferenceVolume
        The volumes by their levels, always with level 0.
    pyramid : Pyramid
    geometry : Geometry
        In mm.
    """

    volumes: dict[int, ReferenceVolume]
    pyramid: Pyramid
    geometry: Geometry


def levels_of(
    volumes: Sequence[ReferenceVolume],
    corner: Corner,
    chunk: int | Sequence[int] | None,
    shard: int | None,
    sides: str,
    factors: Sequence[Factor] | None = None,
) -> Levels:
    """Lay out the pyramid over one reference volume at several resolutions.

    A finest voxel of 10, 25, 50 or 100 um gives the published levels from there on; any other halves the resolution
    until a level fits a chunk. A coarser volume replaces the level that would be made from the finer ones.

    Parameters
    ----------
    volumes : sequence of ReferenceVolume
        In any order.
    corner : tuple of Fraction
        The corner of the atlas, see `corner_of`.
    chunk, shard
        See `Pyramid.over`; the default chunk is 64 voxels wide, 80 at 10 um.
    sides : str
        Orientation of x.
    factors : sequence of Factor, optional
        Factors from each level to the next, of all levels, instead of the published ones.

    Raises
    ------
    InputError
        If two volumes have the same resolution, or one has not the resolution or shape of a level.
    """
    ordered = sorted(volumes, key=lambda volume: volume.voxel_size)
    finest = ordered[0]
    steps: Sequence[Fraction | Factor] | None = factors
    if steps is None and len(set(finest.voxel_size)) == 1 and finest.voxel_size[0] in PUBLISHED:
        sizes = [size for size in PUBLISHED if size >= finest.voxel_size[0]]
        steps = [Fraction(b) / Fraction(a) for a, b in pairwise(sizes)]
    if isinstance(chunk, int) and not 8 <= chunk <= 1024:
        raise InputError(f"chunk {chunk} must be between 8 and 1024 voxels", code="out-of-range")
    if chunk is None:
        chunk = [_CHUNK_BEFORE_2_5, _CHUNK] if steps and steps[0] == Fraction(5, 2) else _CHUNK

    def pyramid(given: Sequence[int]) -> Pyramid:
        levels = None if steps is None else len(steps) + 1
        return Pyramid.over(finest.array.shape, chunk, levels, steps or (), shard, given)

    without_volumes = pyramid(())
    by_level: dict[int, ReferenceVolume] = {}
    for volume in ordered:
        level = _level(without_volumes, finest, volume)
        if level in by_level:
            raise InputError(
                f"{volume.uri} and {by_level[level].uri} both have voxels of {um(volume.voxel_size)}; give one",
                code="duplicate-resolution",
            )
        by_level[level] = volume
    with_volumes = pyramid(sorted(by_level))
    levels = list(with_volumes.levels)
    for level, first in _firsts(with_volumes, by_level).items():
        levels[level] = replace(levels[level], first=first)
    sizes_um = [exact(size) for size in finest.voxel_size]
    scale = _mm(sizes_um)
    translation = _mm([at + size / 2 for at, size in zip(corner, sizes_um, strict=True)])
    return Levels(
        by_level, Pyramid(tuple(levels)), Geometry(scale, translation, "millimeter", {**ORIENTATION, "x": sides})
    )


def corner_of(annotation: Sequence[ReferenceVolume], template: Sequence[ReferenceVolume]) -> Corner:
    """The corner of an atlas, once it is known that all of its volumes lie in one frame.

    The centre of the first voxel of 10 um is the origin of the CCF. Any other atlas has the origin of its headers; if
    they have none, it is the centre of the first voxel of the finest annotation.

    Returns
    -------
    tuple of Fraction
        The outer corner of the first voxel, along (z, y, x), in um.

    Raises
    ------
    InputError
        If annotation and template differ in their extent, or any two volumes in their origin, or in their orientation
        although their files have one layout.
    """
    first, *others = (*sorted(annotation, key=lambda volume: volume.voxel_size), *template)
    if template:
        _check_extent(min(template, key=lambda volume: volume.voxel_size), first)
    for volume in others:
        _check_orientation(volume, first)
    if first.is_ccf:
        half = exact(_ANCHOR) / 2
        return -half, -half, -half
    with_origin = [volume for volume in (first, *others) if volume.position is not None]
    if not with_origin:
        return _corner(first, (0.0, 0.0, 0.0))
    known, *others = with_origin
    corner = _corner(known, known.position or ())
    for volume in others:
        found = _corner(volume, volume.position or ())
        sizes = zip(volume.voxel_size, known.voxel_size, strict=True)
        # Of a strided copy, the first voxel has the same centre and another corner.
        most = [abs(one - other) / 2 + max(one, other) * _ROUNDED for one, other in sizes]
        if any(abs(a - b) > length for a, b, length in zip(found, corner, most, strict=True)):
            raise InputError(
                f"the first voxel of {volume.uri} lies at {um(volume.position or ())} by its header, but that of "
                f"{known.uri} at {um(known.position or ())}; give volumes of one space",
                code="origin-mismatch",
            )
    return corner


def _corner(volume: ReferenceVolume, position: Sequence[float]) -> Corner:
    """The outer corner of the first voxel of a volume, from the position of its centre."""
    z, y, x = (exact(at) - exact(size) / 2 for at, size in zip(position, volume.voxel_size, strict=True))
    return z, y, x


def _check_extent(one: ReferenceVolume, other: ReferenceVolume) -> None:
    """Refuse a volume whose extent differs along an axis by at least one of the larger voxels.

    Grids of the CCF are rounded to whole voxels in several ways.
    """
    if one.is_ccf and other.is_ccf:
        return
    coarser = map(max, one.voxel_size, other.voxel_size)
    if any(abs(a - b) >= size for a, b, size in zip(one.extent, other.extent, coarser, strict=True)):
        raise InputError(
            f"{one.uri} has an extent of {um(one.extent)}, but {other.uri} of {um(other.extent)}; give volumes of one "
            "space",
            code="extent-mismatch",
        )


def _check_orientation(one: ReferenceVolume, other: ReferenceVolume) -> None:
    """Refuse a volume whose file has the layout of the other one, but another orientation: one header is wrong."""
    if one.begins == other.begins:
        return
    coarser = max(*one.voxel_size, *other.voxel_size)
    files = [
        [length for _, length in sorted(zip(volume.orientation.axes, volume.extent, strict=True))]
        for volume in (one, other)
    ]
    if all(abs(a - b) < coarser for a, b in zip(*files, strict=True)):
        raise InputError(
            f"the axes of {one.uri} begin at {one.begins} and those of {other.uri} at "
            f"{other.begins}, although both files have the same extent along each axis; give the "
            "orientation of both (--orientation), or save them with one orientation",
            code="orientation-mismatch",
        )


def _level(pyramid: Pyramid, finest: ReferenceVolume, volume: ReferenceVolume) -> int:
    """The level with the resolution of a volume."""
    sizes = []
    for level, at in enumerate(pyramid.levels):
        size = tuple(s * float(f) for s, f in zip(finest.voxel_size, pyramid.scale(level), strict=True))
        sizes.append(f"{size[0]:g}")
        if all(abs(a / b - 1) < SAME_SIZE for a, b in zip(size, volume.voxel_size, strict=True)):
            if volume.array.shape != at.shape:
                raise InputError(
                    f"{volume.uri} has {_shape(volume.array.shape)} voxels of {um(volume.voxel_size)}, but "
                    f"{finest.uri} needs {_shape(at.shape)}; give volumes of one space",
                    code="shape-mismatch",
                )
            return level
    raise InputError(
        f"{volume.uri} has voxels of {um(volume.voxel_size)}, but the levels of {finest.uri} have "
        f"{', '.join(sizes)} um; give a volume of one of these",
        code="resolution-mismatch",
    )


def _firsts(pyramid: Pyramid, by_level: dict[int, ReferenceVolume]) -> dict[int, Factor]:
    """Where the centre of the first voxel lies, as `Level.first`, for each level whose volume is a strided copy.

    A strided copy takes every n-th voxel of a finer volume, and the first one is the same voxel in both: so it has the
    centre of that of the finer level. An averaged copy has the usual centre, and no entry.
    """
    firsts: dict[int, Factor] = {}
    for level, volume in sorted(by_level.items()):
        for finer in range(level):
            if finer in by_level and strided_factor(volume, by_level[finer]) is not None:
                firsts[level] = firsts.get(finer, pyramid.first(finer))
                break
    return firsts


def _mm(lengths: Sequence[Fraction]) -> tuple[float, float, float]:
    """Lengths from um to mm, each rounded once."""
    z, y, x = (float(length / 1000) for length in lengths)
    return z, y, x


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))
