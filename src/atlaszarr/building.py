"""plan, run, commit: the only place that knows the whole order.

Records, then the layout that follows from them, then the target's state; the root says `unfinished` before
anything else is written, and becomes an image last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from . import ledger, provenance
from .allen.client import AllenClient
from .allen.images import MissingImage, SectionImage
from .allen.records import SectionDataset
from .blocks import Done, Job, coarsen_superblock, compute_superblock
from .errors import InputError
from .ledger import Entry, Task
from .planning import Layout, Plan, price
from .pyramid import children
from .reports import BuildReport, ViewReport
from .request import VolumeRequest
from .scheduling import Cluster, Future, Scheduler, Threads, in_window
from .store import Multiscale, Target
from .target_state import FINISHED, UNFINISHED, examine, write_root

#: Called with the tasks done, all tasks, and what is going on.
Progress = Callable[[int, int, str], None]


def plan(
    dataset: SectionDataset | int,
    target: str | os.PathLike[str] | None = None,
    *,
    view: str | Sequence[str] = "primary",
    client: AllenClient | None = None,
    workers: int | None = None,
    **options: Any,
) -> tuple[Plan, ...]:
    """What a build would cost, one plan a view; fetches metadata at most.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    target : str or path-like, optional
        Shown in the plan; not opened.
    view : str or sequence of str
    client : AllenClient, optional
    workers : int, optional
        Default one a core.
    **options
        Further fields of `atlaszarr.request.VolumeRequest`.

    Raises
    ------
    InputError, RecordError, NotFoundError, ServiceError
        As `build`.
    """
    requests = _requests(view, options)
    targets = _targets(target, None, requests) if target is not None else [None] * len(requests)
    client = client or AllenClient()
    with Threads(workers) as threads:
        count = threads.workers
    dataset = _dataset(dataset, client)
    return tuple(
        price(Layout.of(dataset, request), client, count, where.url if where else None)
        for request, where in zip(requests, targets, strict=True)
    )


def build(
    dataset: SectionDataset | int,
    target: str | os.PathLike[str],
    *,
    view: str | Sequence[str] = "primary",
    client: AllenClient | None = None,
    storage_options: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    allow_missing: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> BuildReport:
    """Build the registered multiscale OME-Zarr of a section dataset.

    A target that this very request left unfinished is gone on with; a finished one is left as it is, but for
    images that were missing and can be had now.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    target : str or path-like
        A local path, or any URL that fsspec opens.
    view : str or sequence of str
        ``primary``, ``expression``; every view after the first becomes ``x.<view>.ome.zarr`` beside the target.
    client : AllenClient, optional
        Default: a client with its own defaults.
    storage_options : mapping, optional
        To fsspec. Never shown or written anywhere.
    scheduler : str, optional
        Address of a `distributed` scheduler; else local threads.
    workers : int, optional
        Local threads; default one a core.
    allow_missing : bool
        Finish although images cannot be had; otherwise the target stays unfinished.
    overwrite : bool
        Remove what another build of atlaszarr left at the target.
    progress : callable, optional
        Called with the tasks done, the number of tasks, and a word on what is going on.
    **options
        Further fields of `atlaszarr.request.VolumeRequest`: resolution (um), fill, interpolation, ...

    Returns
    -------
    BuildReport

    Raises
    ------
    InputError
        If an option is not known or the target holds something else; nothing is written.
    RecordError, NotFoundError
        If the dataset cannot be registered, or is not there.
    ServiceError
        If the metadata cannot be had.
    TargetError
        If the target cannot be written.
    """
    requests = _requests(view, options)
    targets = _targets(target, storage_options, requests)
    if scheduler and targets[0].url.startswith("memory://"):
        raise InputError(f"target {targets[0].url} lives in the memory of one process; a cluster cannot write it")
    client = client or AllenClient()
    dataset = _dataset(dataset, client)
    with ExitStack() as resources:
        layouts = [Layout.of(dataset, request) for request in requests]
        where: Scheduler = Cluster(scheduler) if scheduler else Threads(workers, client.concurrency)
        resources.enter_context(where)
        views = tuple(
            _ViewBuild(layout, place, client, where, allow_missing, progress).run(overwrite)
            for layout, place in zip(layouts, targets, strict=True)
        )
    return BuildReport(dataset.id, views, allow_missing)


class _ViewBuild:
    """One view on its way from its layout to a finished target."""

    def __init__(
        self,
        layout: Layout,
        target: Target,
        client: AllenClient,
        scheduler: Scheduler,
        allow_missing: bool,
        progress: Progress | None,
    ) -> None:
        self.layout, self.target, self.client, self.scheduler = layout, target, client, scheduler
        self.allow_missing = allow_missing
        self.identity = layout.request.identity(layout.dataset)
        self.progress = progress or (lambda *_: None)
        self.section_of = {section.image_id: s for s, section in enumerate(layout.stack.sections)}
        self.failures: dict[int, MissingImage] = {}

    def run(self, overwrite: bool) -> ViewReport:
        state = examine(self.target, self.identity, overwrite)
        plan = price(self.layout, self.client, self.scheduler.workers, self.target.url)
        done = ledger.read(self.target) if state else {}
        known = self._ask_again(done)
        redo = [task for task in self._tasks() if self._is_open(done.get(task), known)]
        report = ViewReport(plan, self.target.url, "already finished", 0, ())
        if state == FINISHED and not redo:
            return replace(report, failures=tuple(self.failures.values()))
        write_root(self.target, UNFINISHED, self.identity, {}, provenance.version())
        stack, request = self.layout.stack, self.layout.request
        multiscale = Multiscale(self.target, self.layout.pyramid, 3, request.background)
        if state is None:
            provenance.write_build(self.target, self.layout, plan, self.client.api_url)
            multiscale.create()
        tasks_done = 0
        for outcome in self._passes(Job(stack, multiscale, self.layout.occupancy), done, known):
            done[outcome.task] = outcome.entry
            self.failures.update({missing.request.image_id: missing for missing in outcome.missing})
            tasks_done += 1
        failures = tuple(self.failures.values())
        provenance.write_tables(self.target, self.layout, done, failures)
        finished = self.allow_missing or not failures
        if finished:
            self._commit(done)
        word = "unfinished" if not finished else "built" if state is None else "resumed"
        return replace(report, state=word, tasks_done=tasks_done, failures=failures)

    def _ask_again(self, done: Mapping[Task, Entry]) -> dict[int, SectionImage]:
        """The images, by section, that an earlier run had to do without and that can be had now."""
        ids = sorted({id for entry in done.values() for id in entry.missing})
        fetched = [self.client.try_fetch(self.layout.stack.requests[self.section_of[id]]) for id in ids]
        self.failures = {image.request.image_id: image for image in fetched if isinstance(image, MissingImage)}
        return {self.section_of[image.request.image_id]: image for image in fetched if isinstance(image, SectionImage)}

    def _is_open(self, entry: Entry | None, known: Mapping[int, SectionImage]) -> bool:
        """Whether a task is to be done: it never was, or had to do without an image that is there now."""
        return entry is None or any(self.section_of[id] in known for id in entry.missing)

    def _tasks(self) -> Iterator[Task]:
        for tasks in self.layout.tasks():
            yield from tasks

    def _passes(self, job: Job, done: Mapping[Task, Entry], known: dict[int, SectionImage]) -> Iterator[Done]:
        shared = self.scheduler.share(job)
        window = max(4 * self.scheduler.workers, 8)
        total = sum(1 for _ in self._tasks())
        finished = 0
        changed: set[Task] = set()
        for step, tasks in enumerate(self.layout.tasks()):
            redo = [
                task
                for task in tasks
                if self._is_open(done.get(task), known)
                or (step and any((step - 1, child) in changed for child in children(task[1])))
            ]
            finished += len(tasks) - len(redo)
            if step == 0:
                starts = self._compute(shared, redo, known)
            else:
                starts = (partial(self.scheduler.compute, coarsen_superblock, shared, *task) for task in redo)
            for outcome in in_window(self.scheduler, starts, window):
                finished += 1
                self.progress(finished, total, "blocks" if step == 0 else f"level {step + 1}")
                yield outcome
            changed = set(redo)

    def _compute(
        self, shared: Any, tasks: Sequence[Task], known: dict[int, SectionImage]
    ) -> Iterator[Callable[[], Future]]:
        """Start the blocks of level 0, each image fetched once, when the first block that shows it starts."""
        images: dict[int, Any] = dict(known)
        shows = [self.layout.sections(superblock) for _, superblock in tasks]
        last = {section: position for position, sections in enumerate(shows) for section in sections}
        for position, ((_, superblock), sections) in enumerate(zip(tasks, shows, strict=True)):
            for section in sections:
                if section not in images:
                    request = self.layout.stack.requests[section]
                    images[section] = self.scheduler.fetch(self.client.try_fetch, request)
            arguments = (shared, superblock, sections, [images[section] for section in sections])
            yield partial(self.scheduler.compute, compute_superblock, *arguments)
            for section in sections:
                if last[section] == position:
                    del images[section]

    def _commit(self, done: Mapping[Task, Entry]) -> None:
        """Make the target an image: nested metadata first, the root's last."""
        ledger.compact(self.target, done)
        attributes = provenance.write_metadata(self.target, self.layout)
        write_root(self.target, FINISHED, self.identity, attributes, provenance.version())


def _dataset(dataset: SectionDataset | int, client: AllenClient) -> SectionDataset:
    return dataset if isinstance(dataset, SectionDataset) else client.section_dataset(dataset)


def _requests(view: str | Sequence[str], options: Mapping[str, Any]) -> list[VolumeRequest]:
    views = [view] if isinstance(view, str) else list(view)
    if not views or len(set(views)) < len(views):
        raise InputError(f"views {', '.join(views)!r} must each be named once")
    return [VolumeRequest.of({**options, "view": view}) for view in views]


def _targets(
    target: str | os.PathLike[str], storage_options: Mapping[str, Any] | None, requests: Sequence[VolumeRequest]
) -> list[Target]:
    first = Target.of(target, storage_options)
    return [first, *(first.beside(request.view) for request in requests[1:])]
