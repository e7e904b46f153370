"""Bringing a target to its end: from nothing, from where another run stopped, or from what has come to harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import ledger
from .ledger import Ledger
from .lock import owning, tidy
from .schedulers import SchedulerLike, resolve_scheduler, scheduler_for
from .target_state import FINISHED, REMOVING, clear, examine
from .verify import tasks_to_redo, unsound
from .writer import Assembly, Beside, Computing, Progress


@dataclass(frozen=True)
class WriteReport:
    """What came of writing a target.

    Attributes
    ----------
    target : str
    state : str
        ``built``, ``resumed`` or ``already finished``.
    tasks_done : int
    """

    target: str
    state: str
    tasks_done: int


def complete(
    assembly: Assembly,
    computing: Callable[..., Computing],
    *,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
    noted: Callable[[Mapping[str, Any]], None] = lambda _: None,
    beside: Beside = lambda _: (),
) -> WriteReport:
    """Do what a target lacks, and make it an image; a finished one is checked, and mended where it is not sound.

    Parameters
    ----------
    assembly : Assembly
    computing : callable
        Given the scheduler, what starts the passes that compute their blocks.
    scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.
    noted : callable
        Given, task by task, what was noted of the objects that it wrote.
    beside : callable
        Writes what lies beside the arrays, once all tasks are done; see `Assembly.commit`.

    Raises
    ------
    InputError
        If the target holds something else; nothing is written.
    TargetError
        If the target cannot be written.
    """
    place, request = assembly.multiscale.target, assembly.root.request
    scheduler = resolve_scheduler(scheduler, place.url)
    state = examine(place, request, overwrite)
    if state == FINISHED and not unsound(place, state, ledger.read(place, finished=True)):
        tidy(place)
        return WriteReport(place.url, "already finished", 0)
    # Let go only after the scheduler has stopped: nothing may be written by a build that no longer owns the target.
    with owning(place, take_over) as owner, scheduler_for(scheduler, workers) as where:
        state = examine(place, request, overwrite)
        if state == REMOVING:
            clear(place, request)
            state = None
        recorded = ledger.read(place, state == FINISHED) if state else Ledger()
        redo = tasks_to_redo(unsound(place, state, recorded), assembly)
        done = {task: entry for task, entry in recorded.done.items() if task not in redo}
        tasks = [[task for task in some if task not in done] for some in assembly.tasks()]
        assembly.begin(done)
        for outcome in assembly.run(where, tasks, computing(where), progress or (lambda *_: None), owner):
            done[outcome.task] = outcome.entry
            noted(outcome.noted)
        assembly.commit(done, beside, owner)
    return WriteReport(place.url, "resumed" if state else "built", sum(map(len, tasks)))
