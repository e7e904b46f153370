"""Create, resume or repair a target: lock it, list the tasks that are left, run them, commit.

`write` runs in the process of the build, `blocks.write_blocks` on the workers. After a ``kill -9`` the same call
resumes:

1. `lock.owning` takes the lock of the dead build: at once on the same machine, else a minute after its last renewal.
2. `Job.read_state` returns the state of the root: ``unfinished``, None if the build died before the first root, or
   ``removing``, whose removal `Job.clear` completes.
3. `Job.read_ledger` returns the entries of the finished tasks, `Job.defects` the recorded objects that differ from what
   was written, and `Job.redo` the recorded tasks to run again because of them.
4. `Job.begin` writes the ledger without these tasks, then the root as unfinished; then they and all tasks without an
   entry are run.
5. `Job.commit` writes the sidecars and, unless images are missing, removes temporary files and unrecorded objects,
   compacts the ledger and writes the finished root, last.

A finished target is repaired in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .job import Job
from .ledger import Defect, Entry, Ledger, Task
from .lock import owning, tidy
from .notebook import table_html
from .schedulers import Scheduler
from .target_state import FINISHED, REMOVING
from .task_windows import in_window

#: Called with the number finished, the total, and the word for them: ``images``, ``blocks``, ``level 1``.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class WriteReport:
    """The result of writing a target.

    Attributes
    ----------
    target : str
    state : str
        ``built``, ``resumed``, ``already finished``, or ``unfinished`` if images are missing.
    tasks_done : int
    """

    target: str
    state: str
    tasks_done: int

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = [("target", self.target), ("blocks written by this run", f"{self.tasks_done:,}")]
        return table_html(f"Image: {self.state}", rows)


def write(
    job: Job,
    scheduler: Scheduler,
    *,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> WriteReport:
    """Write the missing blocks of a target and finish it; validate a finished target, and repair it if it is damaged.

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
        If the target holds something else, or another build owns it; nothing is written.
    TargetError
        If the target cannot be written.
    """
    report = progress or (lambda *_: None)
    state = job.read_state(overwrite)
    if state == FINISHED and _left_to_do(job, scheduler, state) is None:
        tidy(job.target)
        return WriteReport(job.target.url, "already finished", 0)
    with owning(job.target, take_over) as owner:
        try:
            state = job.read_state(overwrite)
            if state == REMOVING:
                job.clear()
                state = None
            left = _left_to_do(job, scheduler, state)
            if left is None:  # another build has finished the target meanwhile
                return WriteReport(job.target.url, "already finished", 0)
            done, tasks, defects = left
            job.begin(done, defects)
            shared = job.share(scheduler)
            for number, step_tasks in enumerate(tasks):
                word, count = job.word(number), 0
                starts = job.start(scheduler, shared, number, step_tasks)
                if step_tasks:
                    report(0, len(step_tasks), word)
                for outcomes in in_window(scheduler, starts, job.window(scheduler), job.fetches, job.fetched):
                    for outcome in outcomes:
                        done[outcome.task] = outcome.entry
                        job.take(outcome)
                    count += len(outcomes)
                    report(count, len(step_tasks), word)
                    owner.validate()
            finished = job.commit(done, owner)
        except BaseException:
            # No task may write after the lock is released.
            scheduler.stop()
            raise
    outcome_word = "unfinished" if not finished else "resumed" if state else "built"
    return WriteReport(job.target.url, outcome_word, sum(map(len, tasks)))


def _left_to_do(
    job: Job, scheduler: Scheduler, state: str | None
) -> tuple[dict[Task, Entry], list[list[Task]], list[Defect]] | None:
    """The valid entries of the ledger, the tasks to run, and the defects; None if a finished target has none."""
    recorded = job.read_ledger(state) if state else Ledger()
    defects = job.defects(state, recorded) if state else []
    redo = job.redo(state, recorded, defects)
    if state == FINISHED and not defects and not redo:
        return None
    tasks = job.tasks(scheduler)
    valid = (task for step_tasks in tasks for task in step_tasks if task in recorded.done and task not in redo)
    done = {task: recorded.done[task] for task in valid}
    return done, [[task for task in step_tasks if task not in done] for step_tasks in tasks], defects
