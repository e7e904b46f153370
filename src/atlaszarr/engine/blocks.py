"""The tasks of a build, as they run on a worker: write a block at all levels it makes, then record it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from numpy.typing import NDArray

from . import ledger
from .ledger import Entry, Task
from .multiscale import ArraySpec, Blocks, Multiscale
from .pyramid import Index, Pass
from .schedulers import Future, Scheduler

#: What is noted of an object, given its level, which it is, and its voxels without padding.
Note = Callable[[Multiscale, int, Index, NDArray[Any]], Any]


@dataclass(frozen=True)
class Done:
    """The outcome of one task.

    Attributes
    ----------
    task : tuple
    entry : Entry
        What the ledger got.
    lacked : tuple
        What the block's source could not be had of, as the source has it.
    noted : mapping
        What was noted of its objects, by key.
    """

    task: Task
    entry: Entry
    lacked: tuple[Any, ...] = ()
    noted: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def making(multiscale: Multiscale, level: int, index: Index) -> Iterator[None]:
    """Add to whatever error a block raises, its type and message unchanged, a note that says which block it is."""
    try:
        yield
    except Exception as error:
        z, y, x = index
        note = f"while making block {z}, {y}, {x} (z, y, x) of level {level} of {multiscale.target.url}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


def store_block(
    multiscale: Multiscale,
    step: Pass,
    index: Index,
    values: Blocks,
    origin: Mapping[str, Any],
    lacked: tuple[Any, ...] = (),
    note: Note | None = None,
) -> Done:
    """Write a block of a pass, record what it was made from, and note what there is to note of its objects."""
    task = (step.source, index)
    noted: dict[str, Any] = {}

    def observe(spec: ArraySpec, level: int, unit: Index, values: NDArray[Any]) -> None:
        if note is not None:
            noted[multiscale.key(spec, level, unit)] = note(multiscale, level, unit, values)

    entry = Entry.of(task, multiscale.write(step, index, values, observe), origin)
    ledger.record(multiscale.target, task, entry)
    return Done(task, entry, lacked, noted)


def coarsen_block(multiscale: Multiscale, step: Pass, index: Index) -> Done:
    """Read a block of a pass after the first, and write the coarser levels that it makes."""
    with making(multiscale, step.source, index):
        values = multiscale.read(step.source, multiscale.pyramid.region(step, index))
        return store_block(multiscale, step, index, values, {})


def starting(
    scheduler: Scheduler, function: Callable[..., Done], args: Sequence[Any], blocks: Sequence[Index]
) -> Iterator[Callable[[], Future]]:
    """Tasks for blocks, each a callable that starts one: a call of a function with its arguments, block by block.

    Parameters
    ----------
    scheduler : Scheduler
    function : callable
        Given `args` and a block, does it.
    args : sequence
        Values, or what the scheduler shares of them.
    blocks : sequence of tuple of int
        Done in this order; several by one task where a task costs much, but so that every worker gets some.
    """
    size = max(1, min(scheduler.batch, len(blocks) // (4 * scheduler.workers)))
    batches = (blocks[start : start + size] for start in range(0, len(blocks), size))
    return (partial(scheduler.compute, do_blocks, function, batch, *args) for batch in batches)


def do_blocks(function: Callable[..., Done], blocks: Sequence[Index], *args: Any) -> list[Done]:
    """Do blocks one after another."""
    return [function(*args, block) for block in blocks]
