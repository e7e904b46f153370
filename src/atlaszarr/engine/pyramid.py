"""The geometry of a pyramid: its levels, the objects they are stored in, and the blocks that are made in one go.

Serves any image of two or three spatial dimensions; one of two is a stack of a single plane. Nothing is computed
or stored here. All lengths are in voxels, along (z, y, x).
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

#: Voxels of a block at most, so that a few fit into memory.
_LARGEST = 2**30
_ONE: Factor = (Fraction(1), Fraction(1), Fraction(1))


@dataclass(frozen=True)
class Level:
    """One level of a pyramid.

    Attributes
    ----------
    shape : tuple of int
    chunk : tuple of int
        What a reader gets at least.
    unit : tuple of int
        What one object holds: a chunk, or a shard of several.
    factor : tuple of Fraction
        Size of a voxel by that of the parent level: the one before, which is finer. 1 for the first.
    given : bool
        Whether it has a source of its own, as the first always has, and is not made from its parent.
    first : tuple of Fraction, optional
        Centre of its first voxel, in voxels of level 0 from the centre of theirs. Default: where it covers as many of
        them as it is long; a level that is given may be every second voxel of the one before, say.
    """

    shape: Shape
    chunk: Shape
    unit: Shape
    factor: Factor = _ONE
    given: bool = False
    first: Factor | None = None

    @property
    def grid(self) -> Shape:
        """Units along each axis."""
        return _three(-(-n // u) for n, u in zip(self.shape, self.unit, strict=True))

    def region(self, index: Index) -> Region:
        """The voxels of a unit."""
        return _region(index, self.unit, self.shape)

    def units(self, region: Region) -> Iterator[Index]:
        """The units that a region touches."""
        return cells(region, self.unit)


@dataclass(frozen=True)
class Pass:
    """One way through the pyramid: blocks of one level that make whole objects of it and of coarser ones.

    Attributes
    ----------
    source : int
        The level that its blocks are cut from. A pass that writes it computes it; others read what was written.
    writes : tuple of int
        The levels it writes.
    block : tuple of int
        Voxels of the source level.
    """

    source: int
    writes: tuple[int, ...]
    block: Shape

    @property
    def computes(self) -> bool:
        """Whether its blocks come from a source, and not from what another pass wrote."""
        return self.source in self.writes


@dataclass(frozen=True)
class Pyramid:
    """The levels of an image, each made from the one before unless it is given.

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
        """Lay a pyramid out.

        Parameters
        ----------
        shape : sequence of int
            Of level 0.
        chunk : int, or sequence with one entry a level
            Length of a chunk, one for all axes or one an axis; the last entry holds for all further levels.
        levels : int, optional
            How many, level 0 included; default until the last fits into one chunk, and at least as many as there
            are factors for.
        factors : sequence
            From level to level, one for all axes or one an axis; 2 for the levels beyond. Axes of length 1 keep it.
        shard : int or sequence of int, optional
            Length of a shard of level 0, whole chunks. Those of further levels shrink with the factors, so that a
            block makes whole ones of several levels.
        given : iterable of int
            Levels that have a source of their own; the first always has.

        Raises
        ------
        InputError
            If a number does not fit the others.
        """
        top = lengths("shape", shape)
        chunks = list(chunk) if isinstance(chunk, Sequence) else [chunk]
        if not chunks or not isinstance(factors, Sequence) or not isinstance(levels, int | None):
            raise InputError(f"chunk {chunk!r}, factors {factors!r} or levels {levels!r} is of the wrong kind")
        steps = [factor_of(factor) for factor in factors]
        most = max(top).bit_length() + len(steps)
        if levels is not None and not 1 <= levels <= most:
            raise InputError(f"levels {levels} must be between 1 and {most} for {' x '.join(map(str, top))} voxels")
        first = lengths("chunk", chunks[0])
        made = [Level(top, first, shard_of(shard, first) if shard is not None else first)]
        wanted = levels if levels is not None else len(steps) + 1
        while len(made) < wanted or (levels is None and _exceeds(made[-1])):
            factor = steps[len(made) - 1] if len(made) <= len(steps) else factor_of(2)
            made.append(_coarser(made[-1], factor, lengths("chunk", chunks[min(len(made), len(chunks) - 1)])))
        pyramid = cls(tuple(replace(level, given=position in {0, *given}) for position, level in enumerate(made)))
        for step in pyramid.passes:
            if math.prod(map(min, step.block, pyramid.levels[step.source].shape)) > _LARGEST:
                raise InputError(f"factors {factors!r} and chunk {chunk!r} need blocks of {step.block}; choose others")
        return pyramid

    @property
    def shape(self) -> Shape:
        """Voxels of level 0."""
        return self.levels[0].shape

    def scale(self, level: int) -> Factor:
        """Size of a voxel of a level, in voxels of level 0."""
        return _three(math.prod(axis) for axis in zip(*(one.factor for one in self.levels[: level + 1]), strict=True))

    def first(self, level: int) -> Factor:
        """Centre of the first voxel of a level, in voxels of level 0 from the centre of their first."""
        z, y, x = ((f - 1) / 2 for f in self.scale(level))
        return self.levels[level].first or (z, y, x)

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """How all levels are made: each pass goes as far as its blocks hold whole objects, and at least one level."""
        passes = [self._pass(0, computes=True)]
        while (reached := passes[-1].writes[-1]) < len(self.levels) - 1:
            computes = self.levels[reached + 1].given
            passes.append(self._pass(reached + computes, computes))
        return tuple(passes)

    def _pass(self, source: int, computes: bool) -> Pass:
        """The pass that begins at a level: to the next one whatever it takes, then on for as long as blocks fit."""
        level, block, scale = self.levels[source], self.levels[source].unit, _ONE
        writes = [source] if computes else []
        for position, coarser in enumerate(self.levels[source + 1 :], source + 1):
            if coarser.given:
                break
            scale = _multiplied(scale, coarser.factor)
            # A block that is as long as the level holds whole units of every further one.
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
        """The levels in JSON's types."""

        def stated(first: Factor | None) -> list[str] | None:
            return None if first is None else list(map(str, first))

        return [
            {**asdict(level), "factor": stated(level.factor), "first": stated(level.first)} for level in self.levels
        ]

    @classmethod
    def from_json(cls, levels: Iterable[Mapping[str, Any]]) -> Pyramid:
        """The inverse of `to_json`."""
        return cls(
            tuple(
                Level(
                    _three(level["shape"]),
                    _three(level["chunk"]),
                    _three(level["unit"]),
                    factor_of([Fraction(f) for f in level["factor"]]),
                    bool(level["given"]),
                    None if level["first"] is None else _three(map(Fraction, level["first"])),
                )
                for level in levels
            )
        )

    def dependents(self, step: Pass, index: Index, after: Pass) -> Iterator[Index]:
        """The blocks of the pass after one that read what a block of it writes."""
        region = self.region(step, index, after.source)
        return cells(region, after.block)

    def blocks(self, step: Pass) -> Shape:
        """Blocks of a pass along each axis."""
        return _three(-(-n // b) for n, b in zip(self.levels[step.source].shape, step.block, strict=True))

    def region(self, step: Pass, index: Index, level: int | None = None) -> Region:
        """The voxels of a block: of the level it is cut from, or of one that it writes."""
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
        # As many chunks as lie within a shard of the parent, so that shards shrink as fast as the image does.
        unit = _three(c * max(1, int(u / f / c)) for c, u, f in zip(chunk, parent.unit, factor, strict=True))
    return Level(_three(math.ceil(n / f) for n, f in zip(parent.shape, factor, strict=True)), chunk, unit, factor)


def _exceeds(level: Level) -> bool:
    return any(n > c for n, c in zip(level.shape, level.chunk, strict=True))


def _common(whole: int, other: Fraction) -> int:
    """The least common multiple of a whole and a rational number."""
    return math.lcm(whole * other.denominator, other.numerator) // other.denominator


def _multiplied(one: Factor, other: Factor) -> Factor:
    return _three(a * b for a, b in zip(one, other, strict=True))


def _region(index: Index, size: Shape, shape: Shape) -> Region:
    return _three(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(index, size, shape, strict=True))


def _three(values: Iterable[_T]) -> tuple[_T, _T, _T]:
    z, y, x = values
    return z, y, x


Factor = tuple[Fraction, Fraction, Fraction]


def lengths(name: str, given: int | Sequence[int]) -> Shape:
    """Three positive lengths; of one number, that for every axis."""
    try:
        z, y, x = map(operator.index, given if isinstance(given, Sequence) else (given,) * 3)
    except (TypeError, ValueError):
        z = y = x = 0
    if min(z, y, x) < 1:
        raise InputError(f"{name} {given!r} must be one positive whole number or three")
    return z, y, x


def shard_of(given: int | Sequence[int], chunk: Shape) -> Shape:
    """Lengths of a shard: whole chunks."""
    shard = lengths("shard", given)
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise InputError(f"shard {given!r} must be whole chunks of {chunk}")
    return shard


def factor_of(given: float | Fraction | Sequence[float | Fraction]) -> Factor:
    """Three factors from level to level, exact; of one number, that for every axis."""
    factors = tuple(given) if isinstance(given, Sequence) else (given,) * 3
    try:
        exact = tuple(Fraction(factor).limit_denominator(1000) for factor in factors)
    except (TypeError, ValueError, OverflowError):
        exact = ()
    if len(exact) != 3 or any(f < 1 or abs(f - Fraction(g)) > 1e-9 for f, g in zip(exact, factors, strict=True)):
        raise InputError(f"factor {given!r} must be one number from 1 up or three, with denominators up to 1000")
    if math.prod(f.numerator for f in exact) > 2**30:
        raise InputError(f"factor {given!r} is too large; make more levels")
    z, y, x = exact
    return z, y, x


@dataclass(frozen=True)
class NonEmptyChunks:
    """The units of every level that hold something.

    Attributes
    ----------
    pyramid : Pyramid
    base : frozenset of tuple of int, or None
        Units of level 0 that hold something; None for all.
    """

    pyramid: Pyramid
    base: frozenset[Index] | None = None

    @cached_property
    def levels(self) -> tuple[frozenset[Index] | None, ...]:
        """Units that hold something, for every level: those that overlap one of the level before that does."""
        found: list[frozenset[Index] | None] = [self.base]
        for parent, level in itertools.pairwise(self.pyramid.levels):
            below = found[-1]
            found.append(
                None if below is None else frozenset(u for unit in below for u in _overlapped(parent, level, unit))
            )
        return tuple(found)

    def holds(self, level: int, unit: Index) -> bool:
        """Whether a unit of a level holds anything."""
        units = self.levels[level]
        return units is None or unit in units

    def units(self, level: int) -> Iterable[Index]:
        """The units of a level that hold something."""
        units = self.levels[level]
        at = self.pyramid.levels[level]
        return at.units(everywhere(at.shape)) if units is None else units

    def count(self, level: int) -> int:
        """How many units of a level hold something."""
        units = self.levels[level]
        return math.prod(self.pyramid.levels[level].grid) if units is None else len(units)

    def blocks(self, step: Pass) -> Iterable[Index]:
        """The blocks of a pass that hold something."""
        level = self.pyramid.levels[step.source]
        if self.base is None:
            return cells(everywhere(level.shape), step.block)
        return {block for unit in self.units(step.source) for block in cells(level.region(unit), step.block)}


def _overlapped(parent: Level, level: Level, unit: Index) -> Iterator[Index]:
    """The units of a level that a unit of its parent has a part in."""
    region = parent.region(unit)
    z, y, x = (
        slice(int(axis.start / f), min(math.ceil(axis.stop / f), n))
        for axis, f, n in zip(region, level.factor, level.shape, strict=True)
    )
    return level.units((z, y, x))
