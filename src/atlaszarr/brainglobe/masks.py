"""Masks of all structures with their descendants, as one sparse 4-D image: what it holds, and how a block is made.

A block of an annotation is read once; each structure that occurs in it gets a chunk, and all others none. An object
holds one structure, since BrainGlobe's reader takes the folder of a structure for the sign that its mask is there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index
from ..engine.codecs import ArrayLayout, Encoding
from ..engine.multiscale import ArraySpec, Multiscale
from ..engine.pyramid import Level, Occupancy, Pyramid
from ..stores.target import Target
from .structure_order import PostOrder

#: Voxels along an axis of a chunk, about: half of a published one, so that a small region costs little to read.
_CHUNK = 128
#: The array that tells which structure each channel is of, and its only object.
VALUES = "annotation_values"
VALUES_KEY = f"{VALUES}/c/0"


@dataclass(frozen=True, kw_only=True)
class Masks(Multiscale):
    """One array (c, z, y, x) a level; chunks of one channel, most of which hold nothing and are not written.

    Attributes
    ----------
    order : PostOrder
        What the channels are of.
    """

    order: PostOrder

    @classmethod
    def over(cls, target: Target, pyramid: Pyramid, order: PostOrder) -> Masks:
        """The masks of an annotation with such levels."""
        array = ArraySpec("", "uint8", ("c", "z", "y", "x"), len(order), rule="nearest")
        return cls(target, (array,), Occupancy(layers(pyramid)), Encoding(), order=order)

    @classmethod
    def of(cls, target: Target, described: Mapping[str, Any], written: Container[str]) -> Masks:
        """The inverse of `to_json`; which chunks are there is for the annotation to say."""
        order = PostOrder(*(tuple(described["masks"][name]) for name in ("identifiers", "firsts")))
        known = cls.recorded(target, described, written, order=order)
        return replace(known, occupancy=Occupancy(known.pyramid))

    def to_json(self) -> dict[str, Any]:
        """As of `Multiscale`, with the structures."""
        return {**super().to_json(), "masks": {"identifiers": self.order.identifiers, "firsts": self.order.firsts}}

    def documents(self) -> dict[str, bytes]:
        """The metadata of every array, by key."""
        own = self._values.documents(("c",))
        return super().documents() | {f"{VALUES}/{name}": body for name, body in own.items()}

    def layout(self, spec: ArraySpec, level: int) -> ArrayLayout:
        """Same as in `Multiscale`, in chunks (1, z, y, x)."""
        chunk = (1, *self.pyramid.levels[level].unit)
        return replace(super().layout(spec, level), chunk=chunk, unit=chunk)

    def values(self) -> bytes:
        """The object of the array that tells which structure each channel is of."""
        return self._values.encode(np.array(self.order.identifiers))

    @property
    def _values(self) -> ArrayLayout:
        length = (len(self.order),)
        return self.encoding.layout(length, length, "uint32")

    def channel_key(self, level: int, index: Index, channel: int) -> str:
        """The key of a chunk."""
        return f"{level}/c/{channel}/" + "/".join(map(str, index))

    def bodies(self, level: int, index: Index, labels: NDArray[Any]) -> Iterator[tuple[str, bytes]]:
        """The chunks of a block by their keys.

        Parameters
        ----------
        level : int
        index : tuple of int
            Of the block.
        labels : ndarray, integers, shape (z, y, x)
            The annotation in it; 0 where no structure is.

        Raises
        ------
        InputError
            If it has a label that no structure has.
        """
        from .structure_index import indices_of, within

        unit = self.pyramid.levels[level].unit
        indices, present = indices_of(labels, self.order, unit)
        mask = np.empty((1, *unit), np.uint8)
        layout = self.layout(self.arrays[0], level)
        for channel in self._channels(index, present):
            within(indices, self.order, channel, out=mask[0].view(np.bool_))
            yield self.channel_key(level, index, channel), layout.encode(mask)

    def _channels(self, index: Index, present: NDArray[np.bool_]) -> Iterable[int]:
        """The channels that a block has a chunk of: all in the first one, so that every structure has its folder."""
        if index == (0, 0, 0):
            return range(len(self.order))
        counts = np.concatenate([[0], np.cumsum(present)])
        firsts = np.array(self.order.firsts)
        return map(int, np.flatnonzero(counts[1:] > counts[firsts]))


def layers(annotation: Pyramid) -> Pyramid:
    """The levels of an annotation, none made from another, in chunks of whole objects of it: each is read once."""
    levels = []
    for level in annotation.levels:
        z, y, x = (n * max(1, round(_CHUNK / n)) for n in level.unit)
        levels.append(Level(level.shape, (z, y, x), (z, y, x), level.factor, given=True, first=level.first))
    return Pyramid(tuple(levels))
