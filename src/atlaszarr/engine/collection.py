"""Planes of one shape as a collection of images, each a group of its own. Serves any stack of planes.

Plane k of a stack (c, k, rows, columns) is stored as image ``k`` with three axes of space, of which one has a single
voxel. Blocks, passes and the ledger see the stack; only keys and shapes in the store tell the images apart.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from ..boxes import Index, Shape
from ..stores.target import Target
from .kinds import Kind
from .multiscale import ArraySpec, Multiscale
from .pyramid import Level, Pyramid

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Collection(Multiscale):
    """A stack of planes whose first axis runs through the images. No block may reach over several planes.

    Attributes
    ----------
    fixed : int
        The axis among (z, y, x) along which an image has a single voxel.
    """

    fixed: int

    @classmethod
    def of(cls, target: Target, described: Mapping[str, Any], written: Container[str]) -> Collection:
        """The inverse of `to_json`."""
        return cls.recorded(target, described, written, fixed=int(described["collection"]["fixed"]))

    @property
    def members(self) -> int:
        """How many images there are."""
        return self.pyramid.shape[0]

    def to_json(self) -> dict[str, Any]:
        """As of `Multiscale`, with the axis across the planes."""
        return {**super().to_json(), "collection": {"fixed": self.fixed}}

    def paths(self) -> Iterator[tuple[ArraySpec, int, str]]:
        """Every array of every image."""
        for member in range(self.members):
            for spec, level, path in super().paths():
                yield spec, level, f"{member}/{path}"

    def group(self, spec: ArraySpec, block: Index, /) -> str:
        """The path of the group that a block of an array lies in."""
        return f"{block[0]}/{spec.path}".rstrip("/")

    def key(self, spec: ArraySpec, level: int, unit: Index) -> str:
        """The key of an object."""
        return f"{unit[0]}/{super().key(spec, level, _placed(self.fixed, 0, unit))}"

    def stored(self, spec: ArraySpec, lengths: Shape) -> tuple[int, ...]:
        """The shape of a part of an image with such lengths along its rows and columns."""
        return spec.shape(_placed(self.fixed, 1, lengths))


def member_pyramid(stack: Pyramid, fixed: int) -> Pyramid:
    """The levels of one image, along (z, y, x), of those of a stack of planes that lie across the axis `fixed`."""

    def one(level: Level) -> Level:
        shape, chunk, unit = (_placed(fixed, 1, lengths) for lengths in (level.shape, level.chunk, level.unit))
        return Level(shape, chunk, unit, _placed(fixed, Fraction(1), level.factor), level.given)

    return Pyramid(tuple(map(one, stack.levels)))


def _placed(fixed: int, across: _T, stacked: tuple[_T, _T, _T]) -> tuple[_T, _T, _T]:
    """What holds along the rows and columns of a stack, in the order (z, y, x), and what holds across them."""
    _, *plane = stacked
    plane.insert(fixed, across)
    z, y, x = plane
    return z, y, x


KIND = Kind(Collection.of)
