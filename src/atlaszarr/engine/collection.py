"""Write a stack of planes of equal shape as a collection of images, each in its own group.

Plane k of a stack (c, k, rows, columns) is stored as the image ``k`` with the axes z, y, x, one of which has length 1.
Blocks, passes and the ledger refer to the stack; only keys and stored shapes refer to the images.
"""

from __future__ import annotations

from collections.abc import Collection as Keys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self, TypeVar

from ..boxes import Index, Shape
from ..stores.target import Target
from .multiscale import DIGITS, ArraySpec, Multiscale
from .pyramid import Level, Pyramid

_T = TypeVar("_T")
#: The most images of a recorded collection: a hundred times the sections of the largest dataset of the Allen API.
_MOST_IMAGES = 2**16


@dataclass(frozen=True, kw_only=True)
class Collection(Multiscale, kind="collection"):
    """A stack of planes whose first axis is the index of the image. A block must not span several planes.

    Attributes
    ----------
    fixed : int
        Index among (z, y, x) of the axis along which an image has length 1.
    """

    fixed: int

    @classmethod
    def recorded(cls, target: Target, described: Mapping[str, Any], written: Keys[str], **own: Any) -> Self:
        """Same as `Multiscale.recorded`."""
        fixed = described["collection"]["fixed"]
        if type(fixed) is not int or not 0 <= fixed < 3:
            raise ValueError(f"fixed axis {fixed!r}")
        known = super().recorded(target, described, written, fixed=fixed, **own)
        if (images := known.pyramid.shape[0]) > _MOST_IMAGES:
            raise ValueError(f"{images} images")
        return known

    def to_json(self) -> dict[str, Any]:
        """Same as `Multiscale.to_json`, with the fixed axis."""
        return {**super().to_json(), "collection": {"fixed": self.fixed}}

    def paths(self) -> Iterator[tuple[ArraySpec, int, str]]:
        """The spec, level and path of every array of every image."""
        for member in range(self.pyramid.shape[0]):
            for spec, level, path in super().paths():
                yield spec, level, f"{member}/{path}"

    def group(self, spec: ArraySpec, block: Index, /) -> str:
        """The path of the group of the image that holds a block."""
        return f"{block[0]}/{spec.path}".rstrip("/")

    def key(self, spec: ArraySpec, level: int, unit: Index) -> str:
        """The key of an object."""
        return f"{unit[0]}/{super().key(spec, level, _along_zyx(self.fixed, 0, unit))}"

    def unit_of(self, spec: ArraySpec, key: str) -> Index | None:
        """Same as in `Multiscale`."""
        image, _, inner = key.partition("/")
        numbers = inner.rsplit("/", 3)[1:]
        if not all(number.isdecimal() and len(number) < DIGITS for number in (image, *numbers)) or len(numbers) < 3:
            return None
        del numbers[self.fixed]
        k, rows, columns = map(int, (image, *numbers))
        return self._existing(spec, key, (k, rows, columns))

    def stored(self, spec: ArraySpec, lengths: Shape) -> tuple[int, ...]:
        """The stored shape of a part of an image, given its lengths in the stack."""
        return spec.shape(_along_zyx(self.fixed, 1, lengths))


def member_pyramid(stack: Pyramid, fixed: int) -> Pyramid:
    """The pyramid of an image along (z, y, x), from that of its stack."""

    def member(level: Level) -> Level:
        shape, chunk, unit = (_along_zyx(fixed, 1, lengths) for lengths in (level.shape, level.chunk, level.unit))
        return Level(shape, chunk, unit, _along_zyx(fixed, Fraction(1), level.factor), level.given)

    return Pyramid(tuple(map(member, stack.levels)))


def _along_zyx(fixed: int, across: _T, stacked: tuple[_T, _T, _T]) -> tuple[_T, _T, _T]:
    """Values along (z, y, x) of an image, from those along (k, rows, columns) of its stack: `across` along `fixed`."""
    _, *plane = stacked
    plane.insert(fixed, across)
    z, y, x = plane
    return z, y, x
