"""The progress of a batch, and the report of its outcomes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from ..engine.notebook import table_html
from .journal import FINISHED, Row

#: The state of a dataset that an earlier run finished.
_BEFORE = "finished before"
#: The states of a report, in this order.
_STATES = (*FINISHED, _BEFORE, "unfinished", "failed")
#: Seconds between two reports of progress.
_REPORT = 1.0
#: Failed datasets that a report lists; the table has all.
_LISTED = 20


@dataclass
class BatchStatus:
    """The progress of a batch; its text is one line.

    Attributes
    ----------
    total : int
        Datasets of the batch.
    finished : int
        Of them, those that an earlier run finished.
    done, failed : int
        Datasets that have ended in this run, and those of them that failed or lack images.
    images, stored_bytes : int
        Section images and bytes of chunks of the datasets that have ended in this run.
    seconds : float
        Since the first task of this run.
    """

    total: int
    finished: int = 0
    done: int = 0
    failed: int = 0
    images: int = 0
    stored_bytes: int = 0
    seconds: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate of the time to the end; None before the first dataset has ended."""
        left = self.total - self.finished - self.done
        return self.seconds / self.done * left if self.done else None

    def __str__(self) -> str:
        parts = [f"{self.finished + self.done} of {self.total} datasets"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts += [f"{self.images:,} images", f"{self.stored_bytes / 1e6:,.1f} MB"]
        if self.seconds_left is not None:
            parts.append(f"{timedelta(seconds=round(self.seconds_left))} left")
        return ", ".join(parts)


@dataclass(frozen=True)
class BatchReport:
    """The outcome of a batch.

    Attributes
    ----------
    root : str
    table : str
        ``ROOT/batch/batch.csv``: the last outcome of every dataset in the root.
    measures : str or None
        ``ROOT/batch/measure.parquet``, with `measure`, if a dataset is measured.
    datasets : int
        Datasets of the batch, each counted once.
    states : dict of str to int
        How many ended in this run with each state: ``built``, ``resumed``, ``already finished``, ``unfinished`` (images
        are missing), ``failed``; and ``finished before``, which were left alone.
    images, stored_bytes : int
        Section images and bytes of chunks of the datasets that ended in this run.
    seconds : float
        Of this run.
    failures : tuple of Row
        The first datasets that failed or lack images, at most 20; the table has all.
    """

    root: str
    table: str
    measures: str | None
    datasets: int
    states: dict[str, int]
    images: int
    stored_bytes: int
    seconds: float
    failures: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether all datasets are finished."""
        return not self.failed

    @property
    def failed(self) -> int:
        """Datasets that failed, or lack images that were not allowed to be missing."""
        return self.states.get("failed", 0) + self.states.get("unfinished", 0)

    def to_dict(self) -> dict[str, Any]:
        """All attributes, `ok` and `failed`, as JSON types."""
        return {
            **asdict(self),
            "failures": [asdict(row) for row in self.failures],
            "ok": self.ok,
            "failed": self.failed,
        }

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        failures = [f"{row.state}: section dataset {row.dataset}: {row.message}" for row in self.failures]
        rows: list[tuple[str, object]] = [
            ("root", self.root),
            *((state, f"{count:,}") for state, count in self.states.items()),
            ("images", f"{self.images:,}"),
            ("stored", f"{self.stored_bytes / 1e6:,.1f} MB"),
            ("table", self.table),
            *([("measures", self.measures)] if self.measures else []),
            *([("failures", failures)] if failures else []),
        ]
        return table_html(f"Batch of {self.datasets:,} datasets", rows)


class Outcomes:
    """The rows of a run, counted."""

    def __init__(self, status: BatchStatus, progress: Callable[[BatchStatus], object] | None) -> None:
        self._status, self._progress = status, progress
        self._states: Counter[str] = Counter()
        self._failures: list[Row] = []
        self._began = time.monotonic()
        self._reported = -_REPORT
        if status.finished:
            self._states[_BEFORE] = status.finished
        self.report()

    def take(self, row: Row) -> None:
        """Count a row, and report once a second."""
        status = self._status
        self._states[row.state] += 1
        status.done += 1
        status.images += row.images
        status.stored_bytes += row.stored_bytes
        if not row.is_finished:
            status.failed += 1
            if len(self._failures) < _LISTED:
                self._failures.append(row)
        if time.monotonic() - self._reported >= _REPORT:
            self.report()

    def report(self) -> None:
        """Call the user's function."""
        self._reported = time.monotonic()
        self._status.seconds = self._reported - self._began
        if self._progress is not None:
            self._progress(self._status)

    def summary(self, root: str, table: str, measures: str | None) -> BatchReport:
        """The report of the batch."""
        status, states = self._status, {state: self._states[state] for state in _STATES if self._states[state]}
        counts = (status.images, status.stored_bytes, status.seconds)
        return BatchReport(root, table, measures, status.total, states, *counts, tuple(self._failures))
