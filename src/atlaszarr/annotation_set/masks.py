"""Masks of all structures with their descendants, as one sparse 4-D image: its layout, and how it is written.

An object is a shard with the mask of one structure, in chunks that are absent where the structure is not. A task is a
run of structures at one level: it reads each block of the annotation that holds any of them once, encodes a chunk for
each structure in it, and then writes one shard after another. Its memory is that of a block and of the encoded chunks
of the run.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..assets.names import ANNOTATION_VALUES, COMPRESSED
from ..boxes import Index, Region, Shape, cells, within
from ..engine.array_layout import ArrayLayout, Encoding
from ..engine.blocks import Block, BlockSource, Done, Made, naming, put
from ..engine.finished_image import Finished
from ..engine.job import ImageJob
from ..engine.label_index import LabelIndex
from ..engine.ledger import Defect, Ledger, Task, Written, digest
from ..engine.multiscale import ArraySpec, Multiscale
from ..engine.ome import DEFAULT_VERSION, multiscales
from ..engine.pyramid import NonEmptyChunks, Pass, Pyramid
from ..engine.schedulers import Future, Scheduler, SchedulerLike, resolve_scheduler, scheduler_for
from ..engine.target_state import REMOVING, Root, read_root, read_state
from ..engine.task_windows import in_window
from ..engine.writer import Progress, WriteReport, write
from ..errors import InputError, TargetError, brief
from ..stores.target import Target
from ..terminology.rows import LARGEST_LABEL
from .occurrence import layers, occurrence, occurring_labels
from .structure_order import MOST_STRUCTURES, PostOrder

#: The most chunks of a run, unless one structure has more. With fewer, blocks are read more often; with more, workers
#: have no task. The CCF at 25 um has 4562 chunks of 4 kB: computing them takes 5.6 s in runs of 256, 4.3 s in 9 runs of
#: 512, and 4.0 s in runs of 1024. Even chunks of noise, of 1 bit a voxel, are only 134 MB of one run.
_CHUNKS = 512
#: The only object of the array with the annotation value of each channel.
VALUES_KEY = f"{ANNOTATION_VALUES}/c/0"


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
    run_chunks : int
        The most chunks of a run; see `runs`.
    """

    order: PostOrder
    run_chunks: int = _CHUNKS
    sparse = True

    @classmethod
    def over(cls, target: Target, pyramid: Pyramid, order: PostOrder) -> Masks:
        """The masks of an annotation with this pyramid."""
        array = ArraySpec("", "uint8", ("c", "z", "y", "x"), len(order), rule="nearest")
        return cls(target, (array,), NonEmptyChunks(layers(pyramid)), Encoding(), order=order)

    @classmethod
    def recorded(cls, target: Target, described: Mapping[str, Any], written: Collection[str], **own: Any) -> Self:
        """The inverse of `to_json`; the annotation determines which chunks exist."""
        values, firsts, most = (described["masks"][name] for name in ("values", "firsts", "run_chunks"))
        order = PostOrder(tuple(values), tuple(firsts))
        known = super().recorded(target, described, written, order=order, run_chunks=most, **own)
        if (
            not 0 < len(order) == len(order.firsts) == known.arrays[0].channels <= MOST_STRUCTURES
            or not all(type(value) is int and 0 < value <= LARGEST_LABEL for value in order.values)
            or not all(type(first) is int and 0 <= first <= index for index, first in enumerate(order.firsts))
            or type(most) is not int
        ):
            raise ValueError(f"{len(order)} structures with the first descendants {brief(firsts)}")
        return replace(known, non_empty=NonEmptyChunks(known.pyramid))

    def to_json(self) -> dict[str, Any]:
        """Same as in `Multiscale`, with the structures."""
        own = {"values": self.order.values, "firsts": self.order.firsts, "run_chunks": self.run_chunks}
        return {**super().to_json(), "masks": own}

    def documents(self) -> dict[str, bytes]:
        """The metadata of every array, by key."""
        own = self._values.documents(("c",))
        return super().documents() | {f"{ANNOTATION_VALUES}/{name}": body for name, body in own.items()}

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
        """Divide the structures that occur in an annotation into runs of at most `run_chunks` chunks, by their tasks.

        Parameters
        ----------
        annotation : Pyramid
        labels : LabelIndex
            Of the annotation.
        level : int
        """
        rows, grid = self._rows(labels, level), self.pyramid.levels[level].grid
        blocks = np.ravel_multi_index(tuple(self._blocks_of(annotation, level, rows).T), grid)
        groups: list[list[int]] = []
        chunks = 0
        for structure in self._occurring(labels):
            own = max(1, len(np.unique(blocks[self._below(rows, [structure])])))
            if not groups or chunks + own > self.run_chunks:
                groups.append([])
                chunks = 0
            groups[-1].append(structure)
            chunks += own
        runs = (self._run(annotation, rows, level, group) for group in groups)
        return {run.task: run for run in runs}

    def _run(self, annotation: Pyramid, rows: NDArray[np.int64], level: int, structures: Sequence[int]) -> Run:
        """The run of some structures, given `_rows`."""
        own, at = rows[self._below(rows, structures)], annotation.levels[level]
        found, block_of = np.unique(self._blocks_of(annotation, level, own), axis=0, return_inverse=True)
        lowest, highest = np.full(found.shape, 2**62), np.full(found.shape, -1)
        np.minimum.at(lowest, block_of.reshape(-1), own[:, :3])
        np.maximum.at(highest, block_of.reshape(-1), own[:, :3])
        ends = np.minimum((highest + 1) * at.unit, at.shape)
        regions: dict[Index, Region] = {}
        for block, low, high in zip(found.tolist(), (lowest * at.unit).tolist(), ends.tolist(), strict=True):
            z, y, x = map(slice, low, high)
            regions[block[0], block[1], block[2]] = z, y, x
        return Run(level, tuple(structures), regions)

    def _occurring(self, labels: LabelIndex) -> list[int]:
        """The indices of the structures that occur at any level, or have descendants that do."""
        indices, _ = self._indices(labels)
        before = np.zeros(len(self.order) + 1, np.int64)
        before[1 + np.unique(indices)] = 1
        before = np.cumsum(before)
        found: list[int] = np.flatnonzero(before[1:] > before[np.array(self.order.firsts)]).tolist()
        return found

    def _rows(self, labels: LabelIndex, level: int) -> NDArray[np.int64]:
        """(z, y, x) of each object of a level of the annotation and the index of each structure in it, by index."""
        indices, known = self._indices(labels)
        positions = [labels.columns[name][known] for name in "zyx"]
        here = labels.columns["level"][known] == level
        rows: NDArray[np.int64] = np.stack([*positions, indices], axis=-1).astype(np.int64)[here]
        return rows[np.argsort(rows[:, 3], kind="stable")]

    def _indices(self, labels: LabelIndex) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The index of each known label of a label index, and which labels are known."""
        values, wanted = np.array(self.order.values, np.uint64), labels.columns["label"].astype(np.uint64)
        position = np.argsort(values)
        found = position[np.searchsorted(values[position], wanted).clip(max=len(values) - 1)]
        known = values[found] == wanted
        return found[known], known

    def _below(self, rows: NDArray[np.int64], structures: Sequence[int]) -> slice:
        """The rows from the first descendant of any of some structures to the last of them."""
        first = min((self.order.firsts[structure] for structure in structures), default=0)
        start, stop = np.searchsorted(rows[:, 3], [first, max(structures, default=-1) + 1])
        return slice(int(start), int(stop))

    def _blocks_of(self, annotation: Pyramid, level: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of the block of each row."""
        blocks: NDArray[np.int64] = rows[:, :3] * annotation.levels[level].unit // self.pyramid.levels[level].unit
        return blocks

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
            indices, present = structure_index.indices_of(labels, self.order)
            counts = np.concatenate([[0], np.cumsum(present)])
            inside = mask[0][within(region, at.region(block))]
            for here in np.flatnonzero(counts[np.array(run.structures) + 1] > counts[firsts]):
                structure = run.structures[here]
                structure_index.within(indices, self.order, structure, out=inside.view(np.bool_))
                chunks[structure][0, *block] = layout.encode_chunk(mask)
            inside[...] = 0
        for structure in run.structures:
            yield self.shard_key(run.level, structure), layout.join(chunks.pop(structure))

    def contents(
        self, request: Mapping[str, Any], found: Ledger, tasks: Sequence[Task], most: int | None
    ) -> Iterator[Defect]:
        """The objects that differ from the masks of the annotation; none if no annotation is next to the masks."""
        above = next(self.target.above(), None)
        try:
            annotation = Finished.at(Target(f"{above.url}/{COMPRESSED}", above.storage_options)) if above else None
        except InputError:
            return
        if annotation is None:
            return
        if annotation.digest != request["masks_of"] or layers(annotation.multiscale.pyramid) != self.pyramid:
            yield Defect("inconsistent", "zarr.json", f"was made from an annotation other than {COMPRESSED}")
            return
        with scheduler_for("threads", None) as threads:
            try:
                labels = occurrence(annotation, threads)
            except TargetError:
                return  # the validation of the annotation names it
            for level in range(len(self.pyramid.levels)):
                yield from self._missing(annotation, labels, level, found)
                occurring = {self.shard_key(level, structure): structure for structure in self._occurring(labels)}
                differing = partial(threads.compute, self._differing, annotation, occurring, self._rows(labels, level))
                written = {task: found.done[task].written for task in tasks if task[0] == level}
                chosen = _sample([key for objects in written.values() for key in objects], most)
                parts = {
                    task: {key: objects[key] for key in objects.keys() & chosen} for task, objects in written.items()
                }
                starts = (partial(differing, task, part) for task, part in parts.items() if part)
                defects = chain.from_iterable(in_window(threads, starts, 2 * threads.workers))
                yield from sorted(defects, key=lambda defect: defect.key)

    def _missing(self, annotation: Finished, labels: LabelIndex, level: int, found: Ledger) -> Iterator[Defect]:
        """Objects of structures that occur in the annotation, which no entry of the ledger has."""
        written = {key for task, entry in found.done.items() if task[0] == level for key in entry.written}
        for task, run in self.runs(annotation.multiscale.pyramid, labels, level).items():
            for key in (self.shard_key(level, structure) for structure in run.structures):
                if key not in written:
                    yield Defect("missing", key, "is missing, although the annotation has the structure", task)

    def _differing(
        self, annotation: Finished, occurring: Mapping[str, int], rows: NDArray[np.int64], task: Task, written: Written
    ) -> list[Defect]:
        """Objects of a task that are not the masks of the annotation; `occurring` has the structures by their keys."""
        level, _ = task
        own = sorted(occurring[key] for key in written if key in occurring)
        try:
            expected = dict(self.shards(self._run(annotation.multiscale.pyramid, rows, level, own), annotation.read))
        except TargetError:
            return []  # the validation of the annotation names it
        defects = []
        for key in written:
            if key not in expected:
                defects.append(Defect("inconsistent", key, "has a structure that the annotation does not have", task))
            elif digest(expected[key]) != written[key][1] and not self._same(level, key, expected[key]):
                defects.append(Defect("inconsistent", key, "differs from the annotation", task))
        return defects

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


def _sample(keys: Sequence[str], most: int | None) -> set[str]:
    """At most `most` of the keys, the same in every call; all of them for None."""
    return set(keys if most is None or len(keys) <= most else random.Random(0).sample(sorted(keys), most))


@dataclass(kw_only=True)
class _MaskJob(ImageJob):
    """The masks of an annotation; a task is a run of structures."""

    annotation: Finished
    allow_unknown: bool
    _found: list[dict[Task, Run]] | None = field(default=None, init=False)

    def read_state(self, overwrite: bool) -> str | None:
        """Same as in `ImageJob`; masks of versions that wrote an object for each chunk are refused."""
        own = None if overwrite else read_root(self.target)
        if own and own["state"] != REMOVING and "masks_of" in own["request"] and "run_chunks" not in own["request"]:
            raise InputError(
                f"target {self.target.url} has the masks of an earlier version of atlaszarr, in one object for each "
                "chunk; build it again with --overwrite, or choose another target",
                code="different-layout",
            )
        return super().read_state(overwrite)

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


def refuse_other(target: Target) -> None:
    """Refuse a target that is neither empty nor an image of atlaszarr.

    Raises
    ------
    InputError
    """
    if read_root(target) is None:
        read_state(target, {}, overwrite=False)


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
    request = {
        "masks_of": annotation.digest,
        "masks": digest(described.encode()),
        "structures": len(order),
        "run_chunks": masks.run_chunks,
    }
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

    with naming(masks, lambda: run.task):
        return put(masks.target, [Made(run.task, masks.shards(run, read))])
