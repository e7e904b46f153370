"""The geometry of a pyramid: its levels, their chunks and shards, and the blocks that are computed one at a time.

For any image with two or three spatial dimensions; a 2-D image has a z axis of length 1. Nothing is computed or stored
here. All lengths are in voxels, along (z, y, x). A unit is a shard, or a chunk if there are no shards: one object.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeVar

from ..boxes import Index, Region, Shape, cells, everywhere
from ..errors import InputError

_T = TypeVar("_T")

#: Largest block in voxels, so that a few fit into memory.
_LARGEST = 2**30
#: The most levels of a pyramid that is read: halving the largest length that an array can have, 2**63, gives 64.
MOST_LEVELS = 64
#: The greatest length of a recorded level: a brain of 1 m in voxels of 1 pm.
_LONGEST = 10**12
#: The most units of a recorded level: 16 times those of level 0 of the largest build, a million.
_MOST_UNITS = 2**24
_ONE: Factor = (Fraction(1), Fraction(1), Fraction(1))


@dataclass(frozen=True)
class Level:
    """A level of a pyramid.

    Attributes
    ----------
    shape : tuple of int
    chunk : tuple of int
        Shape of a chunk.
    unit : tuple of int
        Shape of a shard, or of a chunk if there are no shards.
    factor : tuple of Fraction
        Size of a voxel, in voxels of the parent level, which is the next finer one. 1 for the first level.
    given : bool
        Whether the level has its own source, as the first always has. Otherwise it is made from its parent.
    first : tuple of Fraction, optional
        Centre of the first voxel, in voxels of level 0, from the centre of the first voxel of level 0. Default:
        (f - 1)/2 for a level with f times longer voxels. A given level may differ, for example if it takes every
        second voxel of its parent.
    """

    shape: Shape
    chunk: Shape
    unit: Shape
    factor: Factor = _ONE
    given: bool = False
    first: Factor | None = None

    @property
    def grid(self) -> Shape:
        """Number of units along each axis."""
        return _three(-(-n // u) for n, u in zip(self.shape, self.unit, strict=True))

    def region(self, index: Index) -> Region:
        """The region of a unit."""
        return _region(index, self.unit, self.shape)

    def units(self, region: Region) -> Iterator[Index]:
        """Indices of the units that a region touches."""
        return cells(region, self.unit)


@dataclass(frozen=True)
class Pass:
    """A pass over the blocks of a level, each of which makes whole units of that level and of coarser ones.

    Attributes
    ----------
    source : int
        The level that is divided into blocks. The pass computes it if it writes it, else it reads it.
    writes : tuple of int
        The levels that the pass writes.
    block : tuple of int
        Shape of a block, in voxels of the source level.
    """

    source: int
    writes: tuple[int, ...]
    block: Shape

    @property
    def computes(self) -> bool:
        """Whether its blocks are computed, not read from what another pass wrote."""
        return self.source in self.writes


@dataclass(frozen=True)
class Pyramid:
    """The levels of an image, each made from its parent unless it is given.

    Attributes
    ----------
    levels : tuple of Level
    """

    levels: tuple[Level, ...]

    @classmethod
    def over(
        cls,
        shape: Sequence[int],
        chunk: int | Sequence[int | Sequence[int]] = 64,
        levels: int | None = None,
        factors: Sequence[float | Fraction | Sequence[float | Fraction]] = (),
        shard: int | Sequence[int] | None = None,
        given: Iterable[int] = (),
    ) -> Pyramid:
        """Make the pyramid of an image.

        Parameters
        ----------
        shape : sequence of int
            Shape of level 0.
        chunk : int, or sequence with one entry per level
            Chunk length, for all axes or for each; the last entry is used for all coarser levels.
        levels : int, optional
            Number of levels, including level 0. Default: until a level fits into one chunk, and at least one more
            than `factors`.
        factors : sequence
            Factor from each level to the next, for all axes or for each; 2 for the levels beyond. It is 1 for an axis
            of length 1.
        shard : int or sequence of int, optional
            Shard length of level 0, a multiple of the chunk length. Shards of coarser levels shrink with the factors,
            so that a block makes whole shards of several levels.
        given : iterable of int
            Levels that have their own source; the first always has.

        Raises
        ------
        InputError
            If a parameter is invalid, or does not fit the others.
        """
        top = lengths("shape", shape)
        chunks = list(chunk) if isinstance(chunk, Sequence) else [chunk]
        if not chunks or not isinstance(factors, Sequence) or not isinstance(levels, int | None):
            raise InputError(
                f"chunk {chunk!r}, factors {factors!r} or levels {levels!r} has the wrong type", code="wrong-type"
            )
        steps = [factor_of(factor) for factor in factors]
        most = max(top).bit_length() + len(steps)
        if levels is not None and not 1 <= levels <= most:
            raise InputError(
                f"levels {levels} must be between 1 and {most} for {' x '.join(map(str, top))} voxels",
                code="out-of-range",
            )
        first = lengths("chunk", chunks[0])
        unit = first if shard is None else lengths("shard", shard)
        if any(map(operator.mod, unit, first)):
            raise InputError(f"shard {shard!r} must be a multiple of the chunk {first}", code="invalid-shard")
        made = [Level(top, first, unit)]
        wanted = levels if levels is not None else len(steps) + 1
        while len(made) < wanted or (levels is None and any(map(operator.gt, made[-1].shape, made[-1].chunk))):
            factor = steps[len(made) - 1] if len(made) <= len(steps) else factor_of(2)
            made.append(_coarser(made[-1], factor, lengths("chunk", chunks[min(len(made), len(chunks) - 1)])))
        pyramid = cls(tuple(replace(level, given=position in {0, *given}) for position, level in enumerate(made)))
        for step in pyramid.passes:
            if math.prod(map(min, step.block, pyramid.levels[step.source].shape)) > _LARGEST:
                raise InputError(
                    f"factors {factors!r} and chunk {chunk!r} need blocks of {step.block} voxels; choose smaller ones",
                    code="blocks-too-large",
                )
        return pyramid

    @property
    def shape(self) -> Shape:
        """Shape of level 0."""
        return self.levels[0].shape

    def scale(self, level: int) -> Factor:
        """Size of a voxel of a level, in voxels of level 0."""
        return _three(math.prod(axis) for axis in zip(*(at.factor for at in self.levels[: level + 1]), strict=True))

    def first(self, level: int) -> Factor:
        """Centre of the first voxel of a level, in voxels of level 0, from the centre of the first voxel of level 0."""
        z, y, x = ((f - 1) / 2 for f in self.scale(level))
        return self.levels[level].first or (z, y, x)

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """The passes that make all levels; each writes as many levels as its blocks have whole units of, or one."""
        passes = [self._pass(0, computes=True)]
        while (reached := passes[-1].writes[-1]) < len(self.levels) - 1:
            computes = self.levels[reached + 1].given
            passes.append(self._pass(reached + computes, computes))
        return tuple(passes)

    @cached_property
    def read_again(self) -> frozenset[int]:
        """The levels that a pass reads, after the pass that wrote them."""
        return frozenset(step.source for step in self.passes if not step.computes)

    def _pass(self, source: int, computes: bool) -> Pass:
        """The pass from a level: its block grows to hold whole units of the next level; coarser ones must fit it."""
        level, block, scale = self.levels[source], self.levels[source].unit, _ONE
        writes = [source] if computes else []
        for position, coarser in enumerate(self.levels[source + 1 :], source + 1):
            if coarser.given:
                break
            scale = _multiplied(scale, coarser.factor)
            # A block as long as the level fits whole units of every coarser level.
            fitting = _three(
                b if b >= n else _common(b, f * u)
                for b, n, f, u in zip(block, level.shape, scale, coarser.unit, strict=True)
            )
            if fitting != block and position > source + 1:
                break
            block = fitting
            writes.append(position)
        return Pass(source, tuple(writes), block)

    def to_json(self) -> list[dict[str, Any]]:
        """The levels as JSON types."""
        return [
            {
                **asdict(level),
                "factor": list(map(str, level.factor)),
                "first": None if level.first is None else list(map(str, level.first)),
            }
            for level in self.levels
        ]

    @classmethod
    def from_json(cls, levels: Iterable[Mapping[str, Any]]) -> Pyramid:
        """The pyramid with the levels of `to_json`.

        Raises
        ------
        ValueError, KeyError, TypeError
            If they are not levels of `to_json`.
        """

        def level(entry: Mapping[str, Any]) -> Level:
            shape, chunk, unit = (lengths(name, entry[name]) for name in ("shape", "chunk", "unit"))
            if any(map(operator.mod, unit, chunk)) or max(*shape, *unit) > _LONGEST:
                raise ValueError(f"shape {shape}, shard {unit} and chunk {chunk} do not fit")
            factor, first = factor_of([_fraction(f) for f in entry["factor"]]), entry["first"]
            first = None if first is None else _three(map(_fraction, first))
            return Level(shape, chunk, unit, factor, bool(entry["given"]), first)

        entries = list(levels)
        if not 0 < len(entries) <= MOST_LEVELS:
            raise ValueError(f"{len(entries)} levels")
        pyramid = cls(tuple(map(level, entries)))
        for parent, coarser in itertools.pairwise(pyramid.levels):
            if any(map(operator.gt, coarser.shape, parent.shape)):
                raise ValueError(f"a level of {coarser.shape} voxels after one of {parent.shape}")
        for step in pyramid.passes:
            if math.prod(map(min, step.block, pyramid.levels[step.source].shape)) > _LARGEST:
                raise ValueError(f"blocks of {step.block} voxels")
        return pyramid

    def dependents(self, step: Pass, index: Index, after: Pass) -> Iterator[Index]:
        """Indices of the blocks of pass `after` that read what a block of pass `step` writes."""
        region = self.region(step, index, after.source)
        return cells(region, after.block)

    def blocks(self, step: Pass) -> Shape:
        """Number of blocks of a pass along each axis."""
        return _three(-(-n // b) for n, b in zip(self.levels[step.source].shape, step.block, strict=True))

    def region(self, step: Pass, index: Index, level: int | None = None) -> Region:
        """The region of a block in the source level of its pass, or in a level that it writes."""
        region = _region(index, step.block, self.levels[step.source].shape)
        if level is None or level == step.source:
            return region
        source, coarser = self.levels[step.source], self.levels[level]
        scale = _ONE
        for between in self.levels[step.source + 1 : level + 1]:
            scale = _multiplied(scale, between.factor)
        z, y, x = (
            slice(int(axis.start / f), m if axis.stop == n else int(axis.stop / f))
            for axis, f, n, m in zip(region, scale, source.shape, coarser.shape, strict=True)
        )
        return z, y, x


def _coarser(parent: Level, factor: Factor, chunk: Shape) -> Level:
    z, y, x = (f if n > 1 else Fraction(1) for f, n in zip(factor, parent.shape, strict=True))
    factor = (z, y, x)
    unit = chunk
    if parent.unit != parent.chunk:
        # Shards shrink as fast as the image, so that they have as many chunks as those of the parent.
        unit = _three(c * max(1, int(u / f / c)) for c, u, f in zip(chunk, parent.unit, factor, strict=True))
    return Level(_three(math.ceil(n / f) for n, f in zip(parent.shape, factor, strict=True)), chunk, unit, factor)


def _common(whole: int, other: Fraction) -> int:
    """The least common multiple of an integer and a fraction."""
    return math.lcm(whole * other.denominator, other.numerator) // other.denominator


def _multiplied(one: Factor, other: Factor) -> Factor:
    return _three(a * b for a, b in zip(one, other, strict=True))


def _region(index: Index, size: Shape, shape: Shape) -> Region:
    return _three(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(index, size, shape, strict=True))


def _fraction(text: Any) -> Fraction:
    """A fraction as `Pyramid.to_json` writes it; a longer text, such as ``1e999999999``, may take minutes to parse."""
    if not isinstance(text, str) or len(text) > 40 or "e" in text.lower():
        raise ValueError(f"{text!r} is not a fraction")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f"{text!r} is not a fraction") from None


def _three(values: Iterable[_T]) -> tuple[_T, _T, _T]:
    z, y, x = values
    return z, y, x


Factor = tuple[Fraction, Fraction, Fraction]


def lengths(name: str, given: int | Sequence[int]) -> Shape:
    """Three positive lengths along (z, y, x), from three numbers or one for all axes."""
    try:
        z, y, x = map(operator.index, given if isinstance(given, Sequence) else (given,) * 3)
    except (TypeError, ValueError):
        z = y = x = 0
    if min(z, y, x) < 1:
        raise InputError(f"{name} {given!r} must be one positive whole number or three", code="invalid-length")
    return z, y, x


def factor_of(given: float | Fraction | Sequence[float | Fraction]) -> Factor:
    """Three exact factors along (z, y, x), from three numbers or one for all axes."""
    factors = tuple(given) if isinstance(given, Sequence) else (given,) * 3
    try:
        exact = tuple(Fraction(factor).limit_denominator(1000) for factor in factors)
    except (TypeError, ValueError, OverflowError):
        exact = ()
    if len(exact) != 3 or any(f < 1 or abs(f - Fraction(g)) > 1e-9 for f, g in zip(exact, factors, strict=True)):
        raise InputError(
            f"factor {given!r} must be one number from 1 up or three, with denominators up to 1000",
            code="invalid-factor",
        )
    if math.prod(f.numerator for f in exact) > 2**30:
        raise InputError(f"factor {given!r} is too large; make more levels", code="invalid-factor")
    z, y, x = exact
    return z, y, x


@dataclass(frozen=True)
class NonEmptyChunks:
    """The units of every level that are not empty.

    Attributes
    ----------
    pyramid : Pyramid
    base : frozenset of tuple of int, or None
        Indices of the units of level 0 that are not empty; None for all.
    """

    pyramid: Pyramid
    base: frozenset[Index] | None = None

    def validate(self) -> None:
        """Raise a ValueError if a level has more units than any image; see `_MOST_UNITS`."""
        count = len(self.base or ())
        for parent, level in itertools.pairwise(self.pyramid.levels):
            sizes = zip(parent.unit, level.factor, level.unit, strict=True)
            count = min(count * math.prod(math.ceil(u / f / v) + 1 for u, f, v in sizes), math.prod(level.grid))
            if count > _MOST_UNITS:
                raise ValueError(f"a level of {level.shape} voxels in objects of {level.unit} has too many objects")

    @cached_property
    def levels(self) -> tuple[frozenset[Index] | None, ...]:
        """The units of each level that overlap a unit of the parent level that is not empty; None for all."""
        if self.base is None:
            return (None,) * len(self.pyramid.levels)
        levels = [self.base]
        for parent, level in itertools.pairwise(self.pyramid.levels):
            z, y, x = (overlapped(parent, level, axis, {unit[axis] for unit in levels[-1]}) for axis in range(3))
            units = (itertools.product(z[i], y[j], x[k]) for i, j, k in levels[-1])
            levels.append(frozenset(itertools.chain.from_iterable(units)))
        return tuple(levels)

    def holds(self, level: int, unit: Index) -> bool:
        """Whether a unit of a level is not empty."""
        units = self.levels[level]
        return units is None or unit in units

    def units(self, level: int) -> Iterable[Index]:
        """Indices of the units of a level that are not empty."""
        units = self.levels[level]
        at = self.pyramid.levels[level]
        return at.units(everywhere(at.shape)) if units is None else units

    def count(self, level: int) -> int:
        """Number of units of a level that are not empty."""
        units = self.levels[level]
        return math.prod(self.pyramid.levels[level].grid) if units is None else len(units)

    def blocks(self, step: Pass) -> Iterable[Index]:
        """Indices of the blocks of a pass that are not empty."""
        level = self.pyramid.levels[step.source]
        if self.base is None:
            return cells(everywhere(level.shape), step.block)
        return {block for unit in self.units(step.source) for block in cells(level.region(unit), step.block)}


def overlapped(parent: Level, level: Level, axis: int, indices: Iterable[int]) -> dict[int, range]:
    """For units of the parent along an axis, the units of a level that overlap each."""
    length, unit = parent.shape[axis], parent.unit[axis]
    factor, shape, size = level.factor[axis], level.shape[axis], level.unit[axis]
    overlapped = {}
    for index in indices:
        start = index * unit
        end = min(math.ceil(min(start + unit, length) / factor), shape)
        overlapped[index] = range(int(start / factor) // size, -(-end // size))
    return overlapped
