"""The levels of a reference volume: those of the published atlas, from the resolution of the finest volume on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from ..engine.ome import Geometry
from ..engine.pyramid import Factor, Pyramid
from ..errors import InputError
from ..geometry.spaces import ORIENTATION, reference_space
from ..reference_volumes import ReferenceVolume, strided_factor

#: Voxel sizes of the published CCFv3, in um: download.alleninstitute.org, informatics-archive, mouse_ccf.
PUBLISHED = (10.0, 25.0, 50.0, 100.0)
#: Voxel size of the finest volume, in um; the physical origin is the centre of its first voxel.
_ANCHOR = reference_space(9).anchor
#: Sides of a chunk, in voxels: with 80 at 10 um and 64 at 25 um a block is 160 voxels wide, with 64 at both 320.
_CHUNK, _CHUNK_BEFORE_2_5 = 64, 80


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
    volumes: Sequence[ReferenceVolume], chunk: int | Sequence[int] | None, shard: int | None, sides: str
) -> Levels:
    """Lay out the pyramid over one reference volume at several resolutions.

    A finest voxel of 10, 25, 50 or 100 um gives the published levels from there on; any other halves the resolution
    until a level fits a chunk. A coarser volume replaces the level that would be made from the finer ones.

    Parameters
    ----------
    volumes : sequence of ReferenceVolume
        In any order.
    chunk, shard
        See `Pyramid.over`; the default chunk is 64 voxels wide, 80 at 10 um.
    sides : str
        Orientation of x.

    Raises
    ------
    InputError
        If two volumes have the same resolution, or one has not the resolution or shape of a level.
    """
    ordered = sorted(volumes, key=lambda volume: volume.voxel_size)
    finest = ordered[0]
    sizes = [size for size in PUBLISHED if (size,) * 3 > finest.voxel_size]
    published = len(set(finest.voxel_size)) == 1 and finest.voxel_size[0] in PUBLISHED
    factors = [Fraction(b) / Fraction(a) for a, b in pairwise([finest.voxel_size[0], *sizes])] if published else []
    if isinstance(chunk, int) and not 8 <= chunk <= 1024:
        raise InputError(f"chunk {chunk} must be between 8 and 1024 voxels", code="out-of-range")
    if chunk is None:
        chunk = [_CHUNK_BEFORE_2_5, _CHUNK] if factors[:1] == [Fraction(5, 2)] else _CHUNK

    def pyramid(given: Sequence[int]) -> Pyramid:
        levels = len(factors) + 1 if published else None
        return Pyramid.over(finest.array.shape, chunk, levels, factors, shard, given)

    without_volumes = pyramid(())
    by_level: dict[int, ReferenceVolume] = {}
    for volume in ordered:
        level = _level(without_volumes, finest, volume)
        if level in by_level:
            raise InputError(
                f"{volume.uri} and {by_level[level].uri} both have voxels of {_um(volume.voxel_size)}; give one",
                code="duplicate-resolution",
            )
        by_level[level] = volume
    with_volumes = pyramid(sorted(by_level))
    levels = list(with_volumes.levels)
    for level, first in _firsts(with_volumes, by_level).items():
        levels[level] = replace(levels[level], first=first)
    scale, translation = _mm(finest.voxel_size, 0.0), _mm(finest.voxel_size, _ANCHOR, 2)
    return Levels(
        by_level, Pyramid(tuple(levels)), Geometry(scale, translation, "millimeter", {**ORIENTATION, "x": sides})
    )


def check_extent(template: Levels, annotation: Levels) -> None:
    """Refuse a template that does not have the extent of the annotation.

    Raises
    ------
    InputError
        If the extents differ along an axis by at least one of the larger voxels.
    """
    volumes = template.volumes[0], annotation.volumes[0]
    one, other = ([n * s for n, s in zip(v.array.shape, v.voxel_size, strict=True)] for v in volumes)
    coarser = map(max, *(volume.voxel_size for volume in volumes))
    if any(abs(a - b) >= size for a, b, size in zip(one, other, coarser, strict=True)):
        raise InputError(
            f"{volumes[0].uri} has an extent of {_um(one)}, but {volumes[1].uri} of {_um(other)}; give volumes of one "
            "space",
            code="extent-mismatch",
        )


def _level(pyramid: Pyramid, finest: ReferenceVolume, volume: ReferenceVolume) -> int:
    """The level with the resolution of a volume."""
    sizes = []
    for level, at in enumerate(pyramid.levels):
        size = tuple(s * float(f) for s, f in zip(finest.voxel_size, pyramid.scale(level), strict=True))
        sizes.append(f"{size[0]:g}")
        if all(abs(a / b - 1) < 1e-6 for a, b in zip(size, volume.voxel_size, strict=True)):
            if volume.array.shape != at.shape:
                raise InputError(
                    f"{volume.uri} has {_shape(volume.array.shape)} voxels of {_um(volume.voxel_size)}, but "
                    f"{finest.uri} needs {_shape(at.shape)}; give volumes of one space",
                    code="shape-mismatch",
                )
            return level
    raise InputError(
        f"{volume.uri} has voxels of {_um(volume.voxel_size)}, but the levels of {finest.uri} have "
        f"{', '.join(sizes)} um; give a volume of one of these",
        code="resolution-mismatch",
    )


def _firsts(pyramid: Pyramid, by_level: dict[int, ReferenceVolume]) -> dict[int, Factor]:
    """The first position of each level whose volume is a strided copy of a finer one: that of the finer level."""
    firsts: dict[int, Factor] = {}
    for level, volume in sorted(by_level.items()):
        for finer in range(level):
            if finer in by_level and strided_factor(volume, by_level[finer]) is not None:
                firsts[level] = firsts.get(finer, pyramid.first(finer))
                break
    return firsts


def _mm(lengths: Sequence[float], subtracted: float, divisor: int = 1) -> tuple[float, float, float]:
    """(length - subtracted) / divisor, from um to mm, each rounded once."""
    z, y, x = (float((Fraction(repr(n)) - Fraction(repr(subtracted))) / (1000 * divisor)) for n in map(float, lengths))
    return z, y, x


def _um(lengths: Sequence[float]) -> str:
    distinct = lengths[:1] if len(set(lengths)) == 1 else lengths
    return " x ".join(f"{length:g}" for length in distinct) + " um"


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))
