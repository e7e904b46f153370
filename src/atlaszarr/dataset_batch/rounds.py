"""Run a job for every dataset: a bounded window of tasks, and further rounds for what may succeed later."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from ..allen.records import SectionDataset
from ..engine.schedulers import Future, Scheduler
from ..engine.task_windows import in_window
from ..errors import AtlaszarrError, TargetError
from .dataset_task import failed_row
from .journal import PASSING, Journal, Row

#: The least futures that are unfinished at a time: so many workers an adaptive cluster may start at once, and the
#: window grows with them.
_LEAST_WINDOW = 64
#: Unfinished futures for each thread of the cluster: the next dataset is there when one ends.
_PER_THREAD = 2
#: Datasets that fail one after another with the same code, and seconds that they last, before the batch ends: the
#: stores and the services retry for half a minute each.
_STREAK = 20
_STREAK_SECONDS = 120.0
#: The code of a task whose workers ended again and again.
_KILLED = "worker-killed"
#: Seconds to wait before each further try of the datasets whose store did not answer: together more than the lease of
#: the batch lasts, so that a store may be gone for a minute.
_PAUSES = (1.0, 4.0, 16.0, 48.0)


def itself(dataset: SectionDataset | int) -> Any:
    """The dataset, for a job that is called with it."""
    return dataset


def run(
    scheduler: Scheduler,
    job: Callable[[Any], Row],
    datasets: Sequence[SectionDataset | int],
    journal: Journal,
    described: Callable[[SectionDataset | int], Any] = itself,
    streak_seconds: float = _STREAK_SECONDS,
) -> Generator[Row]:
    """Run a job for every dataset, and yield the rows in the order of their ends, after they are in the journal.

    A dataset that fails for a reason that may pass runs once more after all others, and several times, after growing
    pauses, if a store did not answer. Datasets whose workers ended run one at a time then. The rows of the earlier
    tries are in the journal, and are not yielded.

    Parameters
    ----------
    scheduler : Scheduler
    job : callable
        Called on a worker with a dataset; what it raises ends the batch.
    datasets : sequence of SectionDataset or int
    journal : Journal
    described : callable
        Returns what the job is called with instead of a dataset; called in this process, when the task starts.
    streak_seconds : float
        Time during which every dataset fails with the same passing fault before the batch ends.

    Raises
    ------
    TargetError
        If many datasets fail one after another with the same passing fault.
    """
    started: WeakKeyDictionary[Future, int] = WeakKeyDictionary()
    streak = _Streak(streak_seconds)

    def start(dataset: SectionDataset | int) -> Future:
        future = scheduler.compute(job, described(dataset))
        started[future] = id_of(dataset)
        return future

    def failed(future: Future, error: Exception) -> Row:
        if isinstance(error, AtlaszarrError) and error.code == _KILLED:
            return failed_row(started[future], error)
        raise error

    def window() -> int:
        return max(_PER_THREAD * scheduler.workers, _LEAST_WINDOW)

    by_id = {id_of(dataset): dataset for dataset in datasets}
    pauses = iter(_PAUSES)
    try:
        left, suspects, tried, pause = [*by_id], list[int](), False, 0.0
        while left or suspects:  # at first all datasets, then those that may succeed now
            time.sleep(pause)
            again: list[int] = []
            killed: list[int] = []
            pause = next(pauses, 0.0)  # before the next round; 0 in the last one
            # What a killed worker was given may include innocent datasets: one by one, each answers for itself.
            for ids, at_once in ((left, window), (suspects, 1)):
                for row in in_window(scheduler, (partial(start, by_id[id]) for id in ids), at_once, failed=failed):
                    journal.add(row)
                    streak.add(row)
                    if row.passing and (pause if row.code in PASSING else not tried):
                        (killed if row.code == _KILLED else again).append(row.dataset)
                    else:
                        yield row
            left, suspects, tried = again, killed, True
    except BaseException:  # also where the caller leaves the loop
        with suppress(TargetError):
            journal.close(patient=False)
        raise
    journal.close()


class _Streak:
    """Passing faults with the same code one after another."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._code, self._count, self._since = "", 0, 0.0

    def add(self, row: Row) -> None:
        """Raise a TargetError if too many datasets have failed with the same fault for too long."""
        if not row.passing:
            self._code = ""
        elif row.code != self._code:
            self._code, self._count, self._since = row.code, 1, time.monotonic()
        else:
            self._count += 1
            if self._count >= _STREAK and time.monotonic() - self._since >= self._seconds:
                raise TargetError(
                    f"the last {self._count} tries failed in the same way, the last with: {row.message}; run the same "
                    "command to resume",
                    code=row.code,
                )


def id_of(dataset: SectionDataset | int) -> int:
    """The id of a dataset."""
    return dataset.id if isinstance(dataset, SectionDataset) else dataset
