"""The tasks of a build, as they run on a worker: write a block at all levels it makes, then record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import ledger
from .ledger import Entry, Task
from .multiscale import Blocks, Multiscale
from .pyramid import Index, Pass


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
    """

    task: Task
    entry: Entry
    lacked: tuple[Any, ...] = ()


def store_block(
    multiscale: Multiscale,
    step: Pass,
    index: Index,
    values: Blocks,
    origin: Mapping[str, Any],
    lacked: tuple[Any, ...] = (),
) -> Done:
    """Write a block of a pass, and record what it was made from."""
    task = (step.source, index)
    entry = Entry.of(task, multiscale.write(step, index, values), origin)
    ledger.record(multiscale.target, task, entry)
    return Done(task, entry, lacked)


def coarsen_block(multiscale: Multiscale, step: Pass, index: Index) -> Done:
    """Read a block of a pass after the first, and write the coarser levels that it makes."""
    values = multiscale.read(step.source, multiscale.pyramid.region(step, index))
    return store_block(multiscale, step, index, values, {})
