"""Masks of all structures with their descendants, as one sparse 4-D image: its layout, and how it is written.

An object is a shard with the mask of one structure, in chunks that are absent where the structure is not. A task is a
run of structures at one level: it reads each block of the annotation that holds any of them once, encodes a chunk for
each structure in it, and then writes one shard after another. Its memory is that of a block and of the encoded chunks
of the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..assets.names import COMPRESSED
from ..boxes import Index, Region, Shape, cells, within
from ..engine import ledger
from ..engine.blocks import Block, BlockSource, Done, naming
from ..engine.codecs import ArrayLayout, Encoding
from ..engine.finished_image import Finished
from ..engine.job import ImageJob
from ..engine.label_index import LabelIndex
from ..engine.ledger import Defect, Entry, Ledger, Task, digest
from ..engine.multiscale import ArraySpec, Multiscale
from ..engine.ome import DEFAULT_VERSION, multiscales
from ..engine.pyramid import NonEmptyChunks, Pass, Pyramid
from ..engine.schedulers import Future, Scheduler, SchedulerLike, resolve_scheduler, scheduler_for
from ..engine.target_state import Root
from ..engine.writer import Progress, WriteReport, write
from ..errors import InputError, TargetError
from ..stores.target import Target
from .occurrence import layers, occurrence, occurring_labels
from .structure_order import PostOrder

#: The most chunks of a run, unless one structure has more. Fewer make every block be read more often, more leave
#: workers without a task: of the CCF at 25 um, 4562 chunks, XXX.
_CHUNKS = 256
#: The array with the annotation value of each channel, and its only object.
VALUES = "annotation_values"
VALUES_KEY = f"{VALUES}/c/0"


@dataclass(frozen=True)
class Run:
    """Structures that follow each other in post-order, whose masks at a level one task makes.

    Attributes
    ----------
    level : int
    structures : tuple of int
        Indices of the structures that occur at any level of the annotation: those that have an object.
    regions : mapping of tuple of int to tuple of slice
        By the index of each block that holds any of them: the smallest box of objects of the annotation in it that do.
    """

    level: int
    structures: tuple[int, ...]
    regions: Mapping[Index, Region]

    @property
    def task(self) -> Task:
        """The task."""
        return self.level, (0, 0, self.structures[0])


@dataclass(frozen=True, kw_only=True)
class Masks(Multiscale, kind="masks"):
    """One array (c, z, y, x) per level, with a shard for each structure that occurs in the annotation.

    Attributes
    ----------
    order : PostOrder
        The structures of the channels.
    """

    order: PostOrder
    sparse = True

    @classmethod
    def over(cls, target: Target, pyramid: Pyramid, order: PostOrder) -> Masks:
        """The masks of an annotation with this pyramid."""
        array = ArraySpec("", "uint8", ("c", "z", "y", "x"), len(order), rule="nearest")
        return cls(target, (array,), NonEmptyChunks(layers(pyramid)), Encoding(), order=order)

    @classmethod
    def recorded(cls, target: Target, described: Mapping[str, Any], written: Collection[str], **own: Any) -> Self:
        """The inverse of `to_json`; the annotation determines which chunks exist."""
        order = PostOrder(*(tuple(described["masks"][name]) for name in ("values", "firsts")))
        known = super().recorded(target, described, written, order=order, **own)
        return replace(known, non_empty=NonEmptyChunks(known.pyramid))

    def to_json(self) -> dict[str, Any]:
        """Same as in `Multiscale`, with the structures."""
        return {**super().to_json(), "masks": {"values": self.order.values, "firsts": self.order.firsts}}

    def documents(self) -> dict[str, bytes]:
        """The metadata of every array, by key."""
        own = self._values.documents(("c",))
        return super().documents() | {f"{VALUES}/{name}": body for name, body in own.items()}

    def layout(self, spec: ArraySpec, level: int) -> ArrayLayout:
        """Same as in `Multiscale`: a chunk is a block of one structure, a shard all its blocks."""
        at = self.pyramid.levels[level]
        shard = (n * u for n, u in zip(at.grid, at.unit, strict=True))
        return replace(super().layout(spec, level), chunk=(1, *at.unit), unit=(1, *shard))

    def blocks(self, step: Pass) -> Shape:
        """One for each structure: the index of a task is that of the first structure of its run."""
        return 1, 1, len(self.order)

    def block_name(self, level: int, index: Index) -> str:
        """The name of a run in messages."""
        return f"the masks of structures from {self.order.values[index[2]]} on at level {level}"

    def values(self) -> bytes:
        """The object of the array with the annotation value of each channel."""
        return self._values.encode(np.array(self.order.values))

    @property
    def _values(self) -> ArrayLayout:
        length = (len(self.order),)
        return self.encoding.layout(length, length, "uint32")

    def shard_key(self, level: int, structure: int) -> str:
        """The key of the mask of a structure, given by its index."""
        return f"{level}/c/{structure}/0/0/0"

    def runs(self, annotation: Pyramid, labels: LabelIndex, level: int) -> dict[Task, Run]:
        """Divide the structures that occur in an annotation into runs.

        Parameters
        ----------
        annotation : Pyramid
        labels : LabelIndex
            Of the annotation.
        level : int

        Returns
        -------
        dict of tuple to Run
            By their tasks.
        """
        structures, rows = self._rows(labels, level)
        at, unit = self.pyramid.levels[level], annotation.levels[level].unit
        blocks = rows[:, :3] * unit // at.unit
        flat = np.ravel_multi_index(tuple(blocks.T), at.grid)
        starts, stops = (
            np.searchsorted(rows[:, 3], [self.order.firsts[k] for k in structures], "left"),
            np.searchsorted(rows[:, 3], structures, "right"),
        )
        groups: list[list[int]] = []
        chunks = 0
        for position, structure in enumerate(structures):
            own = max(1, len(np.unique(flat[starts[position] : stops[position]])))
            if not groups or chunks + own > _CHUNKS:
                groups.append([])
                chunks = 0
            groups[-1].append(structure)
            chunks += own
        runs = {}
        for group in groups:
            some = slice(*np.searchsorted(rows[:, 3], [min(self.order.firsts[k] for k in group), group[-1] + 1]))
            run = Run(level, tuple(group), _regions(rows[some, :3], blocks[some], unit, at.shape))
            runs[run.task] = run
        return runs

    def _rows(self, labels: LabelIndex, level: int) -> tuple[list[int], NDArray[np.int64]]:
        """The indices of all structures that occur at any level, and (z, y, x, index) of objects at one, by index."""
        columns = labels.columns
        values, wanted = np.array(self.order.values, np.uint64), columns["label"].astype(np.uint64)
        position = np.argsort(values)
        found = position[np.searchsorted(values[position], wanted).clip(max=len(values) - 1)]
        known = values[found] == wanted
        occurs = np.zeros(len(values) + 1, np.int64)
        occurs[1:][found[known]] = 1
        before = np.cumsum(occurs)
        structures = np.flatnonzero(before[1:] > before[np.array(self.order.firsts)])
        here = known & (columns["level"] == level)
        rows = np.stack([*(columns[axis][here] for axis in "zyx"), found[here]], axis=-1).astype(np.int64)
        return structures.tolist(), rows[np.argsort(rows[:, 3], kind="stable")]

    def shards(self, run: Run, read: Callable[[int, Region], NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """Make the objects of a run.

        Parameters
        ----------
        run : Run
        read : callable
            Reads a region of a level of the annotation: integers, 0 for no structure.

        Yields
        ------
        tuple of str and bytes
            The key of an object, and the object.
        """
        from . import structure_index

        at, layout = self.pyramid.levels[run.level], self.layout(self.arrays[0], run.level)
        chunks: dict[int, dict[tuple[int, ...], bytes]] = {structure: {} for structure in run.structures}
        firsts = np.array([self.order.firsts[structure] for structure in run.structures])
        mask = np.zeros(layout.chunk, np.uint8)
        for block, region in run.regions.items():
            labels = read(run.level, region)
            indices, present = structure_index.indices_of(labels, self.order, labels.shape)
            counts = np.concatenate([[0], np.cumsum(present)])
            inside = mask[0][within(region, at.region(block))]
            for here in np.flatnonzero(counts[np.array(run.structures) + 1] > counts[firsts]):
                structure = run.structures[here]
                structure_index.within(indices, self.order, structure, out=inside.view(np.bool_))
                chunks[structure][0, *block] = layout.encode_chunk(mask)
            inside[...] = 0
        for structure in run.structures:
            yield self.shard_key(run.level, structure), layout.join(chunks.pop(structure))

    def contents(self, request: Mapping[str, Any], found: Ledger, tasks: Sequence[Task]) -> Iterator[Defect]:
        """The objects that differ from the masks of the annotation; none if no annotation is next to the masks."""
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
        try:
            with scheduler_for("threads", None) as threads:
                labels = occurrence(annotation, threads)
        except TargetError:
            return  # the validation of the annotation names it
        for level in sorted({level for level, _ in tasks}):
            runs = self.runs(annotation.multiscale.pyramid, labels, level)
            for task in (task for task in tasks if task[0] == level):
                written = found.done[task].written
                try:
                    expected = dict(self.shards(runs[task], annotation.read)) if task in runs else {}
                except TargetError:
                    continue  # the validation of the annotation names it
                for key in sorted({*written, *expected}):
                    if key not in written:
                        yield Defect("missing", key, "is missing, although the annotation has the structure", task)
                    elif key not in expected:
                        yield Defect("inconsistent", key, "has a structure that the annotation does not have", task)
                    elif digest(expected[key]) != written[key][1] and not self._same(level, key, expected[key]):
                        yield Defect("inconsistent", key, "differs from the annotation", task)

    def validate(self, spec: ArraySpec, level: int, body: bytes) -> None:
        """Same as in `Multiscale`, one chunk after another."""
        for _ in self._chunks(spec, level, body):
            pass

    def _same(self, level: int, key: str, expected: bytes) -> bool:
        """Whether an object holds the same voxels, even if another version of the compressor wrote it."""
        (spec,) = self.arrays
        body = self.target.read(key, self.layout(spec, level).largest) or b""
        both = zip(self._chunks(spec, level, body), self._chunks(spec, level, expected), strict=True)
        try:
            return all(np.array_equal(one, other) for one, other in both)
        except ValueError:
            return False

    def _chunks(self, spec: ArraySpec, level: int, body: bytes) -> Iterator[NDArray[Any]]:
        """Decode the chunks of an object."""
        layout = self.layout(spec, level)
        for cell in cells([slice(0, n) for n in layout.unit], layout.chunk):
            yield layout.decode(body, [slice(k * n, (k + 1) * n) for k, n in zip(cell, layout.chunk, strict=True)])


def _regions(units: NDArray[np.int64], blocks: NDArray[np.int64], unit: Shape, shape: Shape) -> dict[Index, Region]:
    """The smallest box of objects of the annotation in each block, in voxels, in the order of the blocks.

    Parameters
    ----------
    units, blocks : ndarray, int64, shape (n, 3)
        Indices along (z, y, x) of objects, and of the block of each.
    unit, shape : tuple of int
        Shape of an object and of the level.
    """
    regions: dict[Index, Region] = {}
    found, block_of = np.unique(blocks, axis=0, return_inverse=True)
    lowest, highest = np.full(found.shape, 2**62), np.full(found.shape, -1)
    np.minimum.at(lowest, block_of.reshape(-1), units)
    np.maximum.at(highest, block_of.reshape(-1), units)
    for block, low, high in zip(found.tolist(), lowest * unit, np.minimum((highest + 1) * unit, shape), strict=True):
        z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        regions[block[0], block[1], block[2]] = z, y, x
    return regions


@dataclass(kw_only=True)
class _MaskJob(ImageJob):
    """The masks of an annotation; a task is a run of structures."""

    annotation: Finished
    allow_unknown: bool
    _found: list[dict[Task, Run]] | None = field(default=None, init=False)

    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """A task for every run of every level.

        Raises
        ------
        InputError
            If the annotation has a label without a structure.
        """
        return [list(runs) for runs in self._runs(scheduler)]

    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Start one future for each run."""
        runs = self._runs(scheduler)[number]
        for task in tasks:
            yield partial(scheduler.compute, _write_run, *shared, runs[task])

    def word(self, number: int) -> str:
        """What the tasks are called in progress."""
        return "masks" if number == 0 else super().word(number)

    def _runs(self, scheduler: Scheduler) -> list[dict[Task, Run]]:
        """The runs of every level, by their tasks."""
        if self._found is None:
            labels = occurrence(self.annotation, scheduler)
            masks = self.multiscale
            assert isinstance(masks, Masks)
            if not self.allow_unknown and (unknown := occurring_labels(labels) - set(masks.order.values)):
                raise InputError(
                    f"the annotation has the label {min(unknown)}, which no structure of the terminology has",
                    code="unknown-label",
                )
            annotation = self.annotation.multiscale.pyramid
            self._found = [masks.runs(annotation, labels, level) for level in range(len(annotation.levels))]
        return self._found


def write_masks(
    annotation: Finished,
    target: Target,
    order: PostOrder,
    *,
    allow_unknown: bool = False,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> WriteReport:
    """Write the masks of all structures with their descendants, at every level of an annotation.

    The array of each level is uint8 (c, z, y, x), 1 where this level of the annotation has the structure or one of its
    descendants; ``annotation_values`` (uint32) has the structure of each c. A structure that occurs at any level has a
    shard at every level, whose chunks without a voxel of it are absent; all others have none.

    Parameters
    ----------
    annotation : Finished
        Integers, 0 for no structure.
    target : Target
    order : PostOrder
    allow_unknown : bool
        Whether the annotation may have labels that are not in `order`; their voxels are in no mask.
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

    job = _MaskJob(
        masks,
        Root(DEFAULT_VERSION, request, annotation.credit),
        {"": {"multiscales": [entry]}},
        partial(_read, annotation),
        files=values,
        annotation=annotation,
        allow_unknown=allow_unknown,
    )
    with scheduler_for(resolve_scheduler(scheduler, target.url), workers) as running:
        return write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)


def _read(annotation: Finished, level: int, region: Region, _: Sequence[Any]) -> Block:
    """Read a region of the annotation."""
    return Block({"": annotation.read(level, region)})


def _write_run(masks: Masks, source: BlockSource, run: Run) -> list[Done]:
    """Write the objects of a run, and record them."""

    def read(level: int, region: Region) -> NDArray[Any]:
        return source(level, region, ()).values[""]

    with naming(masks, *run.task):
        entry = Entry.of(run.task, masks.put(masks.shards(run, read)), {})
        ledger.record(masks.target, run.task, entry)
    return [Done(run.task, entry)]
