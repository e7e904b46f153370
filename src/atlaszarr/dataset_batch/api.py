"""`build_many`: a task for each dataset, a bounded window of them, and a journal of those that have ended.

How a batch works, in the order in which to read it:

1. `build_many`, here: validates everything that concerns all datasets, takes the lock of ``ROOT/batch``, compares the
   request with the recorded one, and leaves out the datasets that the journal calls finished.
2. `run`, here: starts the tasks, in a window that grows with the workers, and adds each outcome to the journal.
3. `dataset_task.build_dataset`, on the workers: the ordinary `atlaszarr.build`, and what it raises as a row.
4. `journal.Journal`: the rows in the store, and the table made of them.

A second batch into the same root is refused while the first runs. To share the work would need a claim on every dataset
in the store, two requests each, for what one batch on a cluster with more workers does without.
"""

from __future__ import annotations

import concurrent.futures as cf
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from ..allen import rma
from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..allen.slide_images import refuse_options
from ..assets.locate import locate
from ..dataset_build.api import options_of_views
from ..dataset_build.asset import Registration
from ..engine.lock import owning
from ..engine.schedulers import (
    Future,
    Scheduler,
    SchedulerLike,
    Threads,
    in_window,
    resolve_scheduler,
    scheduler_for,
    worker_count,
)
from ..engine.target_state import LAYOUT, refuse_inside_image, validate_layout, validate_same_request
from ..errors import AtlaszarrError, InputError, TargetError, printable
from ..regions.annotation import annotation_levels, annotation_of
from ..regions.matching import require_matching_level
from ..sections.options import Options
from ..stores.documents import LARGEST, json_bytes, parse_object
from ..stores.locations import is_url, normalize_folder, shown
from ..stores.target import Target
from ..terminology.terminology import terminology_of
from ..versions import version
from .dataset_task import REQUEST, DatasetTask, build_dataset, concerns_all, failed_row
from .journal import FINISHED, PASSING, Journal, Row
from .measures import FOLDER as MEASURES
from .measures import TABLE as MEASURE_TABLE
from .measures import join_parts, measured

if TYPE_CHECKING:
    import pandas as pd

_FOLDER = "batch"
#: The state of a dataset that an earlier run finished.
_BEFORE = "finished before"
#: The most datasets of a batch: over twenty times the catalogue of the Allen Institute, 43,818.
MOST_DATASETS = 2**20
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


def _identity(dataset: SectionDataset | int) -> Any:
    return dataset


def _described(client: AllenClient, dataset: SectionDataset | int) -> SectionDataset | Row:
    """The records of a dataset, or its row if they are missing or invalid."""
    try:
        return dataset if isinstance(dataset, SectionDataset) else client.section_dataset(dataset)
    except AtlaszarrError as error:
        if concerns_all(error):
            raise
        return failed_row(_id(dataset), error)


def build_many(
    datasets: Iterable[SectionDataset | int] | pd.DataFrame,
    root: str | os.PathLike[str],
    *,
    mode: str = "volume",
    view: str | Sequence[str] = "primary",
    client: AllenClient | None = None,
    storage_options: Mapping[str, Any] | None = None,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    allow_missing: bool = False,
    overwrite: bool = False,
    take_over: bool = False,
    atlas: str | os.PathLike[str] | None = None,
    measure: str | os.PathLike[str] | None = None,
    progress: Callable[[BatchStatus], object] | None = None,
    **options: Any,
) -> BatchReport:
    """Build many section datasets, each to ``ROOT/<id>.ome.zarr``.

    The same call resumes a batch: the datasets that the journal in ``ROOT/batch`` calls finished are left alone,
    without a request; all others are built, resumed or tried again. A dataset that fails does not end the batch. One
    that fails because a service or a worker has failed is tried once more after all others; one whose store does not
    answer is tried again for a minute.

    Parameters
    ----------
    datasets : iterable of SectionDataset or int, or DataFrame
        Datasets, their ids, or a result of `AllenClient.search`; one that is repeated is built once.
    root : str or path-like
        A folder or any URL that fsspec opens.
    mode, view, client, storage_options, allow_missing
        Same as in `build`.
    scheduler : str, distributed.Client or distributed.LocalCluster, optional
        Same as in `build`. Each dataset is one task, which computes on threads of its worker.
    workers : int, optional
        Threads of this process, by default one for each core: so many datasets are built at a time, each with one
        thread, or with several if there are fewer datasets. On a cluster, the threads of each dataset, by default one;
        a worker builds as many datasets at a time as it has threads.
    overwrite : bool
        Begin the batch anew if it was begun with other options or another annotation, and replace the targets of other
        options. Targets of the same options are left alone or resumed, so the same call, with `overwrite`, resumes too.
    take_over : bool
        Run even if another batch seems to be running in the root.
    atlas : str or path-like, optional
        An atlas of the layout ``assets`` whose root is `root`: every dataset is registered in it as a template, with
        the default name and version of `build`, instead of written to ``ROOT/<id>.ome.zarr``.
    measure : str or path-like, optional
        An annotation, whose path or URL all workers reach: each finished volume is measured in its regions, see
        `region_statistics`, and ``ROOT/batch/measure.parquet`` has a row for each dataset and structure.
    progress : callable, optional
        Called with a `BatchStatus` every second and at the end; ``print`` prints its line.
    **options
        Same as in `build`.

    Returns
    -------
    BatchReport

    Raises
    ------
    InputError
        If an option or an id is invalid, the batch was begun with other options, or another batch is running in the
        root; nothing is written.
    TargetError, SchedulerError, ServiceError
        If all datasets fail for the same reason, such as a full disk or a lost scheduler; the same call resumes.
    """
    client = client or AllenClient()
    views = _views(mode, view, options, client)
    annotation = _annotation(measure, views[0], storage_options)
    request = {"layout": LAYOUT, "mode": mode, "atlas": atlas is not None, "views": [asdict(one) for one in views]}
    target = Target.of(root, storage_options)
    if atlas is not None:
        options = {**options, "atlas": _located_atlas(atlas, storage_options, views, target)}
    resolved = resolve_scheduler(scheduler, target.url)
    chosen = _chosen(datasets)
    count = worker_count(workers)
    at_once = min(count, len(chosen)) if resolved == "threads" else 1
    folder = Target.of(f"{target.url}/{_FOLDER}", storage_options)
    described, sent = _identity, client
    if client.catalogue is not None and resolved != "threads" and not is_url(client.catalogue.url):
        # Workers may not reach a folder of this machine; to read a dataset here takes some ten milliseconds of its CPU.
        reader, sent = copy(client), copy(client)
        reader.image_source, sent.catalogue = None, None
        described = partial(_described, reader)
    threads = count // at_once if resolved == "threads" else workers or 1
    settings = {"mode": mode, "view": view, "workers": threads, "allow_missing": allow_missing}
    task = DatasetTask(target, sent, folder, {**options, **settings}, annotation, overwrite=overwrite)
    stopped = threading.Event()
    _refuse_file(folder)
    refuse_inside_image(folder)
    with scheduler_for(resolved, at_once) as running:
        if isinstance(running, Threads):
            task = replace(task, progress=partial(_stop_if, stopped))
        with owning(folder, take_over) as owner:
            try:
                journal = Journal(folder)
                measure = None if annotation is None else shown(annotation)
                _begin(folder, journal, request, measure, client.api_url, overwrite)
                finished = journal.finished(annotation is not None)
                if annotation is not None:
                    finished &= measured(folder)
                left = [dataset for id, dataset in chosen.items() if id not in finished]
                status = BatchStatus(len(chosen), len(chosen) - len(left))
                outcomes = _Outcomes(status, progress)
                with closing(run(running, partial(build_dataset, task), left, journal, described)) as rows:
                    for row in rows:
                        outcomes.take(row)
                        owner.validate()
                outcomes.report()
                table = journal.write_table()
                measures = None if annotation is None else join_parts(folder, sorted(journal.finished(measured=True)))
            except BaseException:
                stopped.set()
                running.stop()  # no task of this batch writes after the lock is released
                raise
    return outcomes.summary(target.url, table, measures)


def run(
    scheduler: Scheduler,
    job: Callable[[Any], Row],
    datasets: Sequence[SectionDataset | int],
    journal: Journal,
    described: Callable[[SectionDataset | int], Any] = _identity,
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
        started[future] = _id(dataset)
        return future

    def failed(future: Future, error: Exception) -> Row:
        if isinstance(error, AtlaszarrError) and error.code == _KILLED:
            return failed_row(started[future], error)
        raise error

    def window() -> int:
        return max(_PER_THREAD * scheduler.workers, _LEAST_WINDOW)

    by_id = {_id(dataset): dataset for dataset in datasets}
    pauses = iter(_PAUSES)
    try:
        left, suspects, tried, pause = [*by_id], list[int](), False, 0.0
        while left or suspects:  # at first all datasets, then those that may succeed now
            time.sleep(pause)
            again: list[int] = []
            killed: list[int] = []
            pause = next(pauses, 0.0)  # before the next round; 0 in the last one
            # What a killed worker was given may include innocent datasets: one by one, each answers for itself.
            for ids, at_once in ((left, window), (suspects, lambda: 1)):
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


class _Outcomes:
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


def _views(mode: str, view: str | Sequence[str], options: Mapping[str, Any], client: AllenClient) -> list[Options]:
    """The options of each view; raises an InputError for what an image source does not have."""
    views = options_of_views(mode, view, options)
    if client.image_source is not None:
        for one in views:
            refuse_options(one.view, one.quality, one.range)
    return views


def _annotation(
    measure: str | os.PathLike[str] | None, options: Options, storage_options: Mapping[str, Any] | None
) -> str | None:
    """The location of the annotation of the measures, which is opened, and so is its terminology.

    Raises
    ------
    InputError, NotFoundError, SourceError
        If it is not an annotation, none of its levels has voxels that volumes can have, or volumes are not what is
        built.
    """
    if measure is None:
        return None
    if options.mode != "volume":
        raise InputError(f"mode {options.mode!r} cannot be measured; leave out measure", code="conflicting-options")
    location = normalize_folder(measure)
    given = storage_options if is_url(location) else None
    located = locate(location, given)
    annotation_of(located, 0, given)
    terminology_of(None, located, given)
    require_matching_level(options.resolution, annotation_levels(located, given), "the annotation")
    return location


def _refuse_file(folder: Target) -> None:
    """Raise an InputError if a local folder, or one above it, is a file."""
    if folder.is_local:
        for path in (Path(folder.url), *Path(folder.url).parents):
            if path.is_file():
                raise InputError(f"{path} is a file; choose another root", code="target-is-file")


def _located_atlas(
    atlas: str | os.PathLike[str], storage_options: Mapping[str, Any] | None, views: Sequence[Options], root: Target
) -> str:
    """The location of the atlas in which all datasets are registered.

    Raises
    ------
    InputError
        For the reasons of `build`, or if its root is not that of the batch.
    """
    found = Registration.of(atlas, storage_options, views).atlas.root.url
    if found != root.url:
        raise InputError(
            f"root {shown(root.url)} is not that of the atlas; give {shown(found)}, or leave out --atlas",
            code="not-a-template-path",
        )
    return normalize_folder(atlas)


def _begin(
    folder: Target, journal: Journal, request: Mapping[str, Any], measure: str | None, api: str, overwrite: bool
) -> None:
    """Record the request of a new batch and the annotation of its measures, or compare them with the recorded ones.

    Measures may be added to a batch that was begun without.

    Raises
    ------
    InputError
        If the batch was begun with another request, or measured in another annotation, unless `overwrite`.
    """
    wanted = parse_object(json_bytes(request))  # in JSON's types
    body = folder.read(REQUEST, LARGEST)
    document: dict[str, Any] = {}
    if body is not None:
        try:
            document = _recorded(body)
        except (ValueError, KeyError, TypeError):
            if not overwrite:
                raise InputError(
                    f"{folder.url}/{REQUEST} is damaged; give --overwrite to begin the batch anew",
                    code="damaged-metadata",
                ) from None
    if document:
        stored, noted = document["request"], document.get("measure", measure)
        if stored == wanted and measure in (None, noted):
            if measure is not None and "measure" not in document:
                folder.write(REQUEST, json_bytes({**document, "measure": measure}))
            return
        if not overwrite:
            validate_layout(folder, stored)
            validate_same_request(folder, _flat(stored), _flat(wanted))
            validate_same_request(folder, {"measure": noted}, {"measure": measure})
    journal.clear()
    folder.remove(MEASURES)
    folder.remove(MEASURE_TABLE)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    measured = {} if measure is None else {"measure": measure}
    document = {"atlaszarr": version(), "begun": begun, "api": api, "request": wanted, **measured}
    folder.write(REQUEST, json_bytes(document))


def _recorded(body: bytes) -> dict[str, Any]:
    """The document of a batch; ValueError, KeyError or TypeError if it is not one."""
    document = parse_object(body)
    request = document["request"]
    views = request["views"]
    if not isinstance(views, list) or not views or not all(isinstance(view, dict) for view in views):
        raise TypeError("the views of the request are damaged")
    if not isinstance(document.get("measure", ""), str):
        raise TypeError("the annotation is damaged")
    return document


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request for a message: the options, which all views share, and the views."""
    views = request["views"]
    return {**request, **views[0], "views": [one.get("view") for one in views]}


def _chosen(datasets: Iterable[SectionDataset | int] | pd.DataFrame) -> dict[int, SectionDataset | int]:
    """The datasets by id, each once.

    Raises
    ------
    InputError
        If an id is invalid, or there are no datasets or too many.
    """
    if isinstance(datasets, SectionDataset | str | int):
        raise InputError(f"{printable(repr(datasets))[:60]} is one dataset; give a list", code="invalid-value")
    table = cast(Any, datasets).index if hasattr(datasets, "columns") else datasets
    chosen: dict[int, SectionDataset | int] = {}
    for dataset in islice(table, MOST_DATASETS + 1):
        one = dataset if isinstance(dataset, SectionDataset) else rma.identifier(dataset)
        chosen.setdefault(_id(one), one)
    if not chosen:
        raise InputError("there are no datasets to build; give at least one id", code="no-datasets")
    if len(chosen) > MOST_DATASETS:
        raise InputError(f"there are more than {MOST_DATASETS} datasets; give fewer", code="out-of-range")
    return chosen


def _id(dataset: SectionDataset | int) -> int:
    return dataset.id if isinstance(dataset, SectionDataset) else dataset


def _stop_if(stopped: threading.Event, *_: object) -> None:
    """The progress of a build on threads of this process: it ends the build once the batch ends."""
    if stopped.is_set():
        raise cf.CancelledError
