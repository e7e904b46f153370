"""The levels of a reference volume: those of the published atlas, from the finest that is given on."""

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

#: Voxel sizes of the CCFv3 as it is published, in um: download.alleninstitute.org, informatics-archive, mouse_ccf.
PUBLISHED = (10.0, 25.0, 50.0, 100.0)
#: Voxel size of the finest of them, whose first voxel's centre is the physical origin.
_ANCHOR = reference_space(9).anchor
#: Sides of a chunk: with 80 at 10 um and 64 at 25 um a block is 160 voxels wide, with 64 at both it is 320.
_CHUNK, _CHUNK_BEFORE_2_5 = 64, 80


@dataclass(frozen=True)
class Levels:
    """How a reference volume is laid out.

    Attributes
    ----------
    volumes : dict of int to ReferenceVolume
        What is given, by its level; level 0 always is.
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
    """Lay out the pyramid over volumes of one thing at several resolutions.

    A finest voxel of 10, 25, 50 or 100 um makes the published levels from there on, any other halves the resolution
    until a level fits a chunk. Coarser volumes take the place of what would be made of the finer ones.

    Parameters
    ----------
    volumes : sequence of ReferenceVolume
        In any order.
    chunk, shard
        See `Pyramid.over`; the default chunk is 64 voxels wide, at 10 um 80.
    sides : str
        Orientation of x.

    Raises
    ------
    InputError
        If two are of one resolution, one is of no level, or not of the shape of its level.
    """
    ordered = sorted(volumes, key=lambda volume: volume.voxel_size)
    finest = ordered[0]
    sizes = [size for size in PUBLISHED if (size,) * 3 > finest.voxel_size]
    published = len(set(finest.voxel_size)) == 1 and finest.voxel_size[0] in PUBLISHED
    factors = [Fraction(b) / Fraction(a) for a, b in pairwise([finest.voxel_size[0], *sizes])] if published else []
    if isinstance(chunk, int) and not 8 <= chunk <= 1024:
        raise InputError(f"chunk {chunk} must be between 8 and 1024 voxels")
    if chunk is None:
        chunk = [_CHUNK_BEFORE_2_5, _CHUNK] if factors[:1] == [Fraction(5, 2)] else _CHUNK

    def pyramid(given: Sequence[int]) -> Pyramid:
        levels = len(factors) + 1 if published else None
        return Pyramid.over(finest.array.shape, chunk, levels, factors, shard, given)

    plain = pyramid(())
    placed: dict[int, ReferenceVolume] = {}
    for volume in ordered:
        level = _level(plain, finest, volume)
        if level in placed:
            raise InputError(f"{volume.uri} and {placed[level].uri} are both of {_um(volume)}; give one of them")
        placed[level] = volume
    laid = pyramid(sorted(placed))
    for level, first in _firsts(laid, placed).items():
        levels = list(laid.levels)
        levels[level] = replace(levels[level], first=first)
        laid = Pyramid(tuple(levels))
    scale, translation = _mm(finest.voxel_size, 0.0), _mm(finest.voxel_size, _ANCHOR, 2)
    return Levels(placed, laid, Geometry(scale, translation, "millimeter", {**ORIENTATION, "x": sides}))


def check_extent(template: Levels, annotation: Levels) -> None:
    """Refuse a template that does not lie over the annotation.

    Raises
    ------
    InputError
        If it is longer or shorter along an axis by a voxel of either, or more.
    """
    one, other = (levels.volumes[0] for levels in (template, annotation))
    mine, theirs = ([n * s for n, s in zip(v.array.shape, v.voxel_size, strict=True)] for v in (one, other))
    coarser = map(max, one.voxel_size, other.voxel_size)
    if any(abs(a - b) >= size for a, b, size in zip(mine, theirs, coarser, strict=True)):
        raise InputError(
            f"{one.uri} covers {_um_long(mine)}, where {other.uri} covers {_um_long(theirs)}; give volumes of one space"
        )


def _level(pyramid: Pyramid, finest: ReferenceVolume, volume: ReferenceVolume) -> int:
    """The level that a volume is of."""
    found = []
    for level, at in enumerate(pyramid.levels):
        size = tuple(s * float(f) for s, f in zip(finest.voxel_size, pyramid.scale(level), strict=True))
        found.append(f"{size[0]:g}")
        if all(abs(a / b - 1) < 1e-6 for a, b in zip(size, volume.voxel_size, strict=True)):
            if volume.array.shape != at.shape:
                raise InputError(
                    f"{volume.uri} has {_shape(volume.array.shape)} voxels of {_um(volume)}, where those of "
                    f"{finest.uri} make {_shape(at.shape)}; give volumes over the same space"
                )
            return level
    raise InputError(
        f"{volume.uri} has voxels of {_um(volume)}, which is no level of {finest.uri}: {', '.join(found)} um"
    )


def _firsts(pyramid: Pyramid, placed: dict[int, ReferenceVolume]) -> dict[int, Factor]:
    """Where levels begin that are every n-th voxel of a finer one that is given: where that one does."""
    found: dict[int, Factor] = {}
    for level, volume in sorted(placed.items()):
        finer = [one for one in sorted(placed) if one < level]
        kept = next((one for one in finer if strided_factor(volume, placed[one]) is not None), None)
        if kept is not None:
            found[level] = found.get(kept, pyramid.first(kept))
    return found


def _mm(lengths: Sequence[float], less: float, by: int = 1) -> tuple[float, float, float]:
    """Lengths in um, less something, divided: in mm, each rounded once."""
    z, y, x = (float((Fraction(repr(n)) - Fraction(repr(less))) / (1000 * by)) for n in map(float, lengths))
    return z, y, x


def _um(volume: ReferenceVolume) -> str:
    lengths = sorted(set(volume.voxel_size))
    return " x ".join(f"{length:g}" for length in lengths) + " um"


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _um_long(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:g}" for length in lengths) + " um"
