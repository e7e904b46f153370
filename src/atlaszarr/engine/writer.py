"""Writing a target: what is left to do, block by block, then the commit. The one loop of all that atlaszarr builds.

`write` runs where the build was started; `blocks.write_blocks` on the workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .checks import Defect
from .job import Job
from .ledger import Entry, Ledger, Task
from .lock import owning, tidy
from .schedulers import Scheduler, in_window
from .target_state import FINISHED, REMOVING

#: Called with a number of finished things, their total, and a word for them: ``images``, ``blocks``, ``level 1``.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class WriteReport:
    """The outcome of writing a target.

    Attributes
    ----------
    target : str
    state : str
        ``built``, ``resumed``, ``already finished``, or ``unfinished`` if the job lacks something to finish it.
    tasks_done : int
    """

    target: str
    state: str
    tasks_done: int


def write(
    job: Job,
    scheduler: Scheduler,
    *,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> WriteReport:
    """Write what a target lacks and finish it; validate a finished one, and repair it where it is damaged.

    Parameters
    ----------
    job : Job
    scheduler : Scheduler
        Stopped if an error ends the job.
    overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If the target holds something else or another build owns it; nothing is written.
    TargetError
        If the target cannot be written.
    """
    report = progress or (lambda *_: None)
    state = job.examine(overwrite)
    if state == FINISHED and _left_to_do(job, scheduler, state) is None:
        tidy(job.target)
        return WriteReport(job.target.url, "already finished", 0)
    with owning(job.target, take_over) as owner:
        try:
            state = job.examine(overwrite)
            if state == REMOVING:
                job.clear()
                state = None
            left = _left_to_do(job, scheduler, state)
            if left is None:  # another build finished the target in between
                return WriteReport(job.target.url, "already finished", 0)
            done, tasks, defects = left
            job.begin(done, defects)
            shared = job.share(scheduler)
            for number, some in enumerate(tasks):
                word, count = job.word(number), 0
                starts = job.start(scheduler, shared, number, some)
                if some:
                    report(0, len(some), word)
                for outcomes in in_window(scheduler, starts, job.window(scheduler), job.fetches, job.fetched):
                    for outcome in outcomes:
                        done[outcome.task] = outcome.entry
                        job.take(outcome)
                    count += len(outcomes)
                    report(count, len(some), word)
                    owner.check()
            finished = job.commit(done, owner)
        except BaseException:
            # No task may write once the target has no owner.
            scheduler.stop()
            raise
    outcome_word = "unfinished" if not finished else "resumed" if state else "built"
    return WriteReport(job.target.url, outcome_word, sum(map(len, tasks)))


def _left_to_do(
    job: Job, scheduler: Scheduler, state: str | None
) -> tuple[dict[Task, Entry], list[list[Task]], list[Defect]] | None:
    """The entries that stand, the tasks to do, and the defects; None if a finished target needs nothing."""
    recorded = job.recorded(state) if state else Ledger()
    defects = job.defects(state, recorded) if state else []
    redo = job.redo(state, recorded, defects)
    if state == FINISHED and not defects and not redo:
        return None
    tasks = job.tasks(scheduler)
    stand = {task: recorded.done[task] for some in tasks for task in some if task in recorded.done and task not in redo}
    return stand, [[task for task in some if task not in stand] for some in tasks], defects
