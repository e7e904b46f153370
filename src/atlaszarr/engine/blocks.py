"""The work of the workers, block by block: compute or read, downsample, encode, write, record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index, Region, within
from ..errors import InputError
from ..stores.target import Target
from . import ledger
from .ledger import Entry, Task, Written, digest
from .multiscale import ArraySpec, Blocks, Multiscale
from .pyramid import Pass

#: Returns a note on an object, given its multiscale, level, index and voxels without padding.
Observe = Callable[[Multiscale, int, Index, NDArray[Any]], Any]


@dataclass(frozen=True)
class Block:
    """The voxels of a region at one level.

    Attributes
    ----------
    values : mapping of str to ndarray
        By the path of its array: (c, z, y, x) or (z, y, x).
    origin : mapping
        What the voxels were made from, for the ledger, in JSON's types.
    notes : mapping
        Passed to the job, see `Job.take`.
    observe : callable, optional
        Called with every object that is written; its result is a note under the key of the object.
    """

    values: Blocks
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    observe: Observe | None = None


#: Computes the blocks of the passes that compute. Called on a worker with the level, the region and the inputs of the
#: task.
BlockSource = Callable[[int, Region, Sequence[Any]], Block]


@dataclass(frozen=True)
class Made:
    """The objects of one task, to be written by `put`.

    Attributes
    ----------
    task : tuple
    objects : iterable of tuple
        Key and body of each object; they are made while they are written.
    origin : mapping
        Same as in `Block`.
    notes : mapping
        Same as in `Block`; may be filled while the objects are made.
    """

    task: Task
    objects: Iterable[tuple[str, bytes]]
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """The outcome of one task.

    Attributes
    ----------
    task : tuple
    entry : Entry
        Its entry in the ledger.
    notes : mapping
        Passed to the job, see `Job.take`.
    """

    task: Task
    entry: Entry
    notes: Mapping[str, Any] = field(default_factory=dict)


def write_blocks(
    multiscale: Multiscale,
    source: BlockSource,
    step: Pass,
    groups: Sequence[Sequence[Index]],
    inputs: Sequence[Any] = (),
) -> list[Done]:
    """Compute blocks or read them from the level before; downsample, encode, write and record each.

    Parameters
    ----------
    multiscale : Multiscale
    source : callable
        See `BlockSource`; called in passes that compute.
    step : Pass
    groups : sequence of sequence of tuple of int
        Blocks; those of a group are computed in one call, over the smallest box that contains them.
    inputs : sequence
        Passed to the source: what the blocks are computed from, if the job fetches it.
    """
    block: Index = groups[0][0]

    def made() -> Iterator[Made]:
        nonlocal block
        for blocks in groups:
            block = blocks[0]
            regions = [multiscale.pyramid.region(step, each) for each in blocks]
            box = box_of(regions)
            found = source(step.source, box, inputs) if step.computes else Block(multiscale.read(step.source, box))
            notes: dict[str, Any] = dict(found.notes)
            for block, region in zip(blocks, regions, strict=True):
                values = {path: part[(..., *within(region, box))] for path, part in found.values.items()}
                observe = found.observe and partial(_note, multiscale, found.observe, notes)
                objects = multiscale.encoded(step, block, values, observe)
                yield Made((step.source, block), objects, found.origin, notes)
                notes = {}

    with naming(multiscale, lambda: (step.source, block)):
        return put(multiscale.target, made())


def put(target: Target, made: Iterable[Made]) -> list[Done]:
    """Write the objects of tasks, then one record for all of these tasks."""
    done: list[Done] = []

    def objects() -> Iterator[tuple[str, bytes]]:
        for part in made:
            written: Written = {}
            for key, body in part.objects:
                written[key] = (len(body), digest(body))
                yield key, body
            done.append(Done(part.task, Entry.of(part.task, written, part.origin), part.notes))

    target.write_all(objects())
    ledger.record(target, {one.task: one.entry for one in done})
    return done


def box_of(regions: Sequence[Region]) -> Region:
    """The smallest region that contains some regions."""
    z, y, x = (slice(min(a.start for a in axis), max(a.stop for a in axis)) for axis in zip(*regions, strict=True))
    return z, y, x


def _note(
    multiscale: Multiscale,
    observe: Observe,
    notes: dict[str, Any],
    spec: ArraySpec,
    level: int,
    unit: Index,
    values: NDArray[Any],
) -> None:
    notes[multiscale.key(spec, level, unit)] = observe(multiscale, level, unit, values)


def as_declared(path: str, dtype: Any, part: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Validate the dtype and shape of a block: dask does not validate the result of a mapped function.

    Raises
    ------
    InputError
        If they are not those that the array declares.
    """
    if part.dtype.newbyteorder("=") != np.dtype(dtype).newbyteorder("=") or part.shape != shape:
        raise InputError(
            f"a block of {path or 'the image'} has dtype {part.dtype} and shape {part.shape}, but its array "
            f"declares {np.dtype(dtype)} and {shape}; correct the dtype or meta of the array",
            code="block-mismatch",
        )
    return part


@contextmanager
def naming(multiscale: Multiscale, task: Callable[[], Task]) -> Iterator[None]:
    """Add a note with the block to an error; its type and message stay."""
    try:
        yield
    except Exception as error:
        note = f"while making {multiscale.block_name(*task())} of {multiscale.target.url}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise
