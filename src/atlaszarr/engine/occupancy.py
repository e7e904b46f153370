"""Which objects of a pyramid hold anything: the others are empty by geometry and are not written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from .pyramid import Index, Level, Pass, Pyramid, cells, everywhere


@dataclass(frozen=True)
class Occupancy:
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
