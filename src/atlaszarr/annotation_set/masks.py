"""Masks of all structures with their descendants, as one sparse 4-D image: its layout, and how it is written.

A block of an annotation is read once; each structure that occurs in it gets a chunk, and all others none. An object
holds one structure, since BrainGlobe's reader takes the folder of a structure as the sign that its mask exists.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..assets.names import COMPRESSED
from ..boxes import Index, Region
from ..engine.blocks import Block
from ..engine.codecs import ArrayLayout, Encoding
from ..engine.finished_image import Finished
from ..engine.job import ImageJob
from ..engine.ledger import Defect, Ledger, Task, digest
from ..engine.multiscale import ArraySpec, Blocks, Multiscale, Observer
from ..engine.ome import DEFAULT_VERSION, multiscales
from ..engine.pyramid import Level, NonEmptyChunks, Pass, Pyramid
from ..engine.schedulers import SchedulerLike, resolve_scheduler, scheduler_for
from ..engine.target_state import Root
from ..engine.writer import Progress, WriteReport, write
from ..errors import InputError, TargetError
from ..stores.target import Target
from .structure_order import PostOrder

#: Approximate voxels along an axis of a chunk: half of a published one, so that a small region is cheap to read.
_CHUNK = 128
#: The array with the structure of each channel, and its only object.
VALUES = "annotation_values"
VALUES_KEY = f"{VALUES}/c/0"


@dataclass(frozen=True, kw_only=True)
class Masks(Multiscale, kind="masks"):
    """One array (c, z, y, x) per level, in chunks of one channel, most of which are empty and not written.

    Attributes
    ----------
    order : PostOrder
        The structures of the channels.
    """

    order: PostOrder

    @classmethod
    def over(cls, target: Target, pyramid: Pyramid, order: PostOrder) -> Masks:
        """The masks of an annotation with this pyramid."""
        array = ArraySpec("", "uint8", ("c", "z", "y", "x"), len(order), rule="nearest")
        return cls(target, (array,), NonEmptyChunks(layers(pyramid)), Encoding(), order=order)

    @classmethod
    def recorded(cls, target: Target, described: Mapping[str, Any], written: Collection[str], **own: Any) -> Self:
        """The inverse of `to_json`; the annotation determines which chunks exist."""
        order = PostOrder(*(tuple(described["masks"][name]) for name in ("identifiers", "firsts")))
        known = super().recorded(target, described, written, order=order, **own)
        return replace(known, non_empty=NonEmptyChunks(known.pyramid))

    def to_json(self) -> dict[str, Any]:
        """Same as in `Multiscale`, with the structures."""
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
        """The object of the array with the structure of each channel."""
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
            Index of the block.
        labels : ndarray, integers, shape (z, y, x)
            The annotation in the block; 0 for no structure.

        Raises
        ------
        InputError
            If a label has no structure.
        """
        from .structure_index import indices_of, within

        unit = self.pyramid.levels[level].unit
        indices, present = indices_of(labels, self.order, unit)
        mask = np.empty((1, *unit), np.uint8)
        layout = self.layout(self.arrays[0], level)
        for channel in self._channels(index, present):
            within(indices, self.order, channel, out=mask[0].view(np.bool_))
            yield self.channel_key(level, index, channel), layout.encode(mask)

    def contents(self, request: Mapping[str, Any], found: Ledger, tasks: Sequence[Task]) -> Iterator[Defect]:
        """The chunks that differ from the masks of the annotation; none if no annotation is next to the masks."""
        above = next(self.target.above(), None)
        try:
            annotation = Finished.at(Target(f"{above.url}/{COMPRESSED}", above.storage_options)) if above else None
        except InputError:
            return
        if annotation is None:
            return
        if annotation.digest != request["masks_of"]:
            yield Defect("inconsistent", "zarr.json", f"was made from an annotation other than {COMPRESSED}")
            return
        for task in tasks:
            level, index = task
            try:
                labels = annotation.read(level, self.pyramid.levels[level].region(index))
            except TargetError:
                continue  # the validation of the annotation names it
            written = found.done[task].written
            expected = dict(self.bodies(level, index, labels))
            for key in sorted({*written, *expected}):
                if key not in written:
                    yield Defect("missing", key, "is missing, although the annotation has the structure", task)
                elif key not in expected:
                    yield Defect("inconsistent", key, "has a structure that the annotation does not have here", task)
                elif digest(expected[key]) != written[key][1] and not self._same(level, key, expected[key]):
                    yield Defect("inconsistent", key, "differs from the annotation", task)

    def _same(self, level: int, key: str, expected: bytes) -> bool:
        """Whether an object holds the same voxels, even if another version of the compressor wrote it."""
        (spec,) = self.arrays
        try:
            found = self.decode(spec, level, self.target.read(key, self.layout(spec, level).largest) or b"")
        except ValueError:
            return False
        return np.array_equal(found, self.decode(spec, level, expected))

    def _encoded(
        self, step: Pass, index: Index, values: Blocks, observe: Observer | None
    ) -> Iterator[tuple[str, bytes]]:
        """The chunks of a block of the annotation."""
        return self.bodies(step.source, index, values[""])

    def _channels(self, index: Index, present: NDArray[np.bool_]) -> Iterable[int]:
        """The channels with a chunk in a block: all in the first block, so that every structure has its folder."""
        if index == (0, 0, 0):
            return range(len(self.order))
        counts = np.concatenate([[0], np.cumsum(present)])
        firsts = np.array(self.order.firsts)
        return map(int, np.flatnonzero(counts[1:] > counts[firsts]))


def layers(annotation: Pyramid) -> Pyramid:
    """The levels of an annotation, all read from it, in chunks of whole objects of it, so that each is read once."""
    levels = []
    for level in annotation.levels:
        z, y, x = (n * max(1, round(_CHUNK / n)) for n in level.unit)
        levels.append(Level(level.shape, (z, y, x), (z, y, x), level.factor, given=True, first=level.first))
    return Pyramid(tuple(levels))


def write_masks(
    annotation: Finished,
    target: Target,
    order: PostOrder,
    *,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> WriteReport:
    """Write the masks of all structures with their descendants, at every level of an annotation.

    The array of each level is uint8 (c, z, y, x), 1 where this level of the annotation has the structure or one of its
    descendants; ``annotation_values`` (uint32) has the structure of each c. A block of a level is read once; structures
    that do not occur in it have no chunk, except in the first block, so that every structure has a folder.

    Parameters
    ----------
    annotation : Finished
        Integers, 0 for no structure.
    target : Target
    order : PostOrder
    scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If the annotation has a label that is not in `order`, or the target holds something else.
    TargetError
        If the target cannot be written.
    """
    masks = Masks.over(target, annotation.multiscale.pyramid, order)
    described = json.dumps(masks.to_json())
    request = {"masks_of": annotation.digest, "masks": digest(described.encode()), "structures": len(order)}
    method = "1 where this level of the annotation has the structure or one below it"
    axes = masks.arrays[0].axes
    entry = multiscales(DEFAULT_VERSION, "masks", axes, annotation.geometry, masks.pyramid, method)

    def values(_: str) -> list[str]:
        target.write(VALUES_KEY, masks.values())
        return [VALUES_KEY]

    job = ImageJob(
        masks,
        Root(DEFAULT_VERSION, request, annotation.credit),
        {"": {"multiscales": [entry]}},
        partial(_read, annotation),
        files=values,
    )
    with scheduler_for(resolve_scheduler(scheduler, target.url), workers) as running:
        return write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)


def _read(annotation: Finished, level: int, region: Region, _: Sequence[Any]) -> Block:
    """Read a region of the annotation."""
    return Block({"": annotation.read(level, region)})
