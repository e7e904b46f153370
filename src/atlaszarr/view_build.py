"""Plan, run, commit for one view: the only place that knows the whole order.

The root says `unfinished` before anything else is written, and becomes an image last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from . import ledger, provenance
from .allen.client import AllenClient
from .allen.images import MissingImage, SectionImage
from .blocks import Done, Job, coarsen_superblock, compute_superblock
from .errors import TargetError
from .ledger import Entry, Task
from .planning import Layout, price
from .pyramid import children
from .reports import ViewReport
from .scheduling import Future, Scheduler, in_window
from .store import Multiscale, Target
from .target_state import FINISHED, REMOVING, UNFINISHED, clear, examine, write_root

#: Tasks under way for each worker: enough that images are asked for well before their blocks are computed.
_WINDOW = 16
#: Called with the tasks done, all tasks, and what is going on.
Progress = Callable[[int, int, str], None]
#: By section, an image that was asked for, or a future of it.
Images = Mapping[int, SectionImage | MissingImage]


class ViewBuild:
    """One view on its way from its layout to a finished target.

    Parameters
    ----------
    layout : Layout
    target : Target
    client : AllenClient
    scheduler : Scheduler
    allow_missing : bool
        Whether to finish although images cannot be had.
    metadata_requests : int
        Requests that this view cost before its layout was known.
    progress : callable, optional
    """

    def __init__(
        self,
        layout: Layout,
        target: Target,
        client: AllenClient,
        scheduler: Scheduler,
        allow_missing: bool,
        metadata_requests: int,
        progress: Progress | None,
    ) -> None:
        self._layout, self._target, self._client, self._scheduler = layout, target, client, scheduler
        self._allow_missing = allow_missing
        self._metadata_requests = metadata_requests
        self._state: str | None = None
        self._progress = progress or (lambda *_: None)
        self._identity = layout.request.identity(layout.dataset)

    def look(self, overwrite: bool) -> None:
        """Find out what the target holds, and refuse it if need be, before anything is written anywhere."""
        self._state = examine(self._target, self._identity, overwrite)

    def run(self) -> ViewReport:
        """Build, go on, mend, or find that nothing is to be done."""
        layout, target, state, version = self._layout, self._target, self._state, provenance.version()
        plan = price(layout, self._client, self._scheduler.workers, self._metadata_requests, target.url)
        if state == REMOVING:
            clear(target, self._identity, version)
            state = None
        done = ledger.read(target) if state else {}
        again = self._ask_again(done)
        failures = {image.request.image_id: image for image in again.values() if isinstance(image, MissingImage)}
        found = {image.request.image_id for image in again.values() if isinstance(image, SectionImage)}
        passes = open_tasks(layout, done, found)
        report = ViewReport(plan, target.url, "already finished", 0, tuple(failures.values()))
        if state == FINISHED and not any(passes):
            return report
        # Whoever accepted the holes of a finished target accepts those of them that remain.
        accepted = set(failures) if state == FINISHED else set()
        write_root(target, UNFINISHED, self._identity, {}, version)
        if state is None:
            provenance.write_build(target, layout, plan, self._client.api_url)
        else:
            # Should this run be stopped, nothing that is to be redone may pass for done.
            redo = {task for tasks in passes for task in tasks}
            done = {task: entry for task, entry in done.items() if task not in redo}
            ledger.compact(target, done)
        multiscale = Multiscale(target, layout.pyramid, 3, layout.request.background)
        multiscale.create()
        digests: dict[int, str] = {}
        for entry in done.values():
            self._check_same_images(digests, entry)
        for outcome in self._run(Job(layout.stack, multiscale, layout.occupancy), passes, again):
            done[outcome.task] = outcome.entry
            failures.update({image.request.image_id: image for image in outcome.missing})
            self._check_same_images(digests, outcome.entry)
        missing = tuple(failures.values())
        provenance.write_tables(target, layout, done, missing)
        finished = self._allow_missing or accepted.issuperset(failures)
        if finished:
            self._commit(done)
        word = "unfinished" if not finished else "built" if state is None else "resumed"
        return replace(report, state=word, tasks_done=sum(map(len, passes)), failures=missing)

    def _ask_again(self, done: Mapping[Task, Entry]) -> Images:
        """The images that an earlier run had to do without, by section, asked for once more."""
        lacked = {id for entry in done.values() for id in entry.missing}
        requests = self._layout.stack.requests
        asked = {
            section: self._scheduler.fetch(self._client.try_fetch, request)
            for section, request in enumerate(requests)
            if request.image_id in lacked
        }
        return {section: future.result() for section, future in asked.items()}

    def _check_same_images(self, digests: dict[int, str], entry: Entry) -> None:
        """Refuse a block made from another version of an image than the blocks before it."""
        for id, digest in entry.images.items():
            if digest and digests.setdefault(id, digest) != digest:
                raise TargetError(
                    f"section image {id} is not the one that {self._target.url} was begun with: the service has "
                    "changed it; build anew with --overwrite"
                )

    def _run(self, job: Job, passes: Sequence[Sequence[Task]], again: Images) -> Iterator[Done]:
        shared = self._scheduler.share(job)
        window = max(_WINDOW * self._scheduler.workers, 2 * _WINDOW)
        total = sum(map(len, passes))
        finished = 0
        for step, tasks in enumerate(passes):
            starts = self._computing(shared, tasks, again) if step == 0 else self._coarsening(shared, tasks)
            for outcome in in_window(self._scheduler, starts, window):
                finished += 1
                self._progress(finished, total, "blocks" if step == 0 else f"level {step + 1}")
                yield outcome

    def _computing(self, job: Any, tasks: Sequence[Task], again: Images) -> Iterator[Callable[[], Future]]:
        """Start the blocks of level 0, each image fetched once, when the first block that shows it starts."""
        images: dict[int, Any] = dict(again)
        shows = [self._layout.sections(superblock) for _, superblock in tasks]
        last = {section: position for position, sections in enumerate(shows) for section in sections}
        for position, ((_, superblock), sections) in enumerate(zip(tasks, shows, strict=True)):
            for section in sections:
                if section not in images:
                    request = self._layout.stack.requests[section]
                    images[section] = self._scheduler.fetch(self._client.try_fetch, request)
            shown = [images[section] for section in sections]
            yield partial(self._scheduler.compute, compute_superblock, job, superblock, sections, shown)
            for section in sections:
                if last[section] == position:
                    del images[section]

    def _coarsening(self, job: Any, tasks: Sequence[Task]) -> Iterator[Callable[[], Future]]:
        return (partial(self._scheduler.compute, coarsen_superblock, job, *task) for task in tasks)

    def _commit(self, done: Mapping[Task, Entry]) -> None:
        """Make the target an image: nested metadata first, the root's last."""
        ledger.compact(self._target, done)
        attributes = provenance.write_metadata(self._target, self._layout)
        write_root(self._target, FINISHED, self._identity, attributes, provenance.version())


def open_tasks(layout: Layout, done: Mapping[Task, Entry], found: set[int]) -> list[list[Task]]:
    """The tasks to do, pass by pass.

    Parameters
    ----------
    layout : Layout
    done : mapping of Task to Entry
        What the ledger has.
    found : set of int
        SectionImage ids that were missing then and are there now.

    Returns
    -------
    list of list of Task
        Those that the ledger lacks, those that had to do without an image that was found, and those that read
        what either writes.
    """
    passes: list[list[Task]] = []
    changed: set[Task] = set()
    for tasks in layout.tasks():
        passes.append(
            [
                (step, index)
                for step, index in tasks
                if (entry := done.get((step, index))) is None
                or not found.isdisjoint(entry.missing)
                or any((step - 1, child) in changed for child in children(index))
            ]
        )
        changed = set(passes[-1])
    return passes
