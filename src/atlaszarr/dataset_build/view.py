"""Plan, run, commit for one view of a section dataset: what its images are to the blocks that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import credit
from ..allen.client import AllenClient
from ..allen.images import ImageRequest, MissingImage, SectionImage
from ..boxes import Index
from ..engine import ledger
from ..engine.ledger import Entry, Ledger, Task
from ..engine.lock import Owner, owning, tidy
from ..engine.multiscale import Multiscale
from ..engine.pyramid import Pass
from ..engine.schedulers import Future, Scheduler
from ..engine.target_state import FINISHED, REMOVING, Root, clear, examine
from ..engine.verify import tasks_to_redo, unsound
from ..engine.writer import Assembly, Done, Progress, making, store_block
from ..errors import TargetError
from ..stores.target import Target
from . import records
from .layout import Layout, Source
from .plan import Plan, price
from .report import ViewReport

#: Images that were asked for, by what was asked.
Images = Mapping[ImageRequest, SectionImage | MissingImage]


@dataclass(frozen=True)
class Work:
    """What is left to do in a target.

    Attributes
    ----------
    done : dict
        What need not be done again.
    tasks : list of list of Task
        What is to be done, pass by pass.
    failures : tuple of MissingImage
        What was asked for again, and still cannot be had.
    defective : bool
        Whether the target is not what its ledger says.
    """

    done: dict[Task, Entry]
    tasks: list[list[Task]]
    failures: tuple[MissingImage, ...]
    defective: bool

    def __bool__(self) -> bool:
        return self.defective or any(self.tasks)


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
    take_over : bool
        Whether to take the target from an owner that may be alive.
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
        take_over: bool,
        metadata_requests: int,
        progress: Progress | None,
    ) -> None:
        self._layout, self._target, self._client, self._scheduler = layout, target, client, scheduler
        self._allow_missing = allow_missing
        self._metadata_requests = metadata_requests
        self._take_over = take_over
        self._overwrite = False
        self._state: str | None = None
        self._asked_again: dict[ImageRequest, SectionImage | MissingImage] = {}
        self._progress = progress or (lambda *_: None)
        self._images, self._fetches_started = 0, 0
        self._fetches: set[Future] = set()
        root = Root(layout.request.ome_zarr, layout.request.identity(layout.dataset), credit.SECTIONS)
        self._assembly = Assembly(layout.multiscale(target), root, layout.groups)

    def look(self, overwrite: bool) -> None:
        """Find out what the target holds, and refuse it if need be, before anything is written anywhere."""
        self._overwrite = overwrite
        self._state = examine(self._target, self._assembly.root.request, overwrite)

    def run(self) -> ViewReport:
        """Build, go on, mend, or find that nothing is to be done."""
        plan = price(self._layout, self._client, self._scheduler.workers, self._metadata_requests, self._target.url)
        if self._state == FINISHED and not (work := self._find_work()):
            tidy(self._target)
            return ViewReport(plan, self._target.url, "already finished", 0, work.failures)
        with owning(self._target, self._take_over) as owner:
            try:
                self._state = examine(self._target, self._assembly.root.request, self._overwrite)
                return self._build(plan, owner)
            except BaseException:
                # Nothing may be written by a build that no longer owns the target.
                self._scheduler.stop()
                raise

    def _build(self, plan: Plan, owner: Owner) -> ViewReport:
        layout, target = self._layout, self._target
        if self._state == REMOVING:
            clear(target, self._assembly.root.request)
            self._state = None
        work = self._find_work()
        self._assembly.begin(work.done)
        if work.defective or not records.is_of(target, self._assembly.root.request):
            records.write_build(target, layout, self._assembly.root.request, plan, self._client.api_url)
        done, failures = work.done, {image.request.name: image for image in work.failures}
        # Whoever accepted the holes of a finished target accepts those of them that remain.
        accepted = set(failures) if self._state == FINISHED else set()
        digests: dict[str, str] = {}
        for entry in done.values():
            self._check_same_images(digests, entry)
        first = partial(self._computing, self._asked_again)
        shown = {request for _, block in work.tasks[0] for request in layout.shows[block]}
        self._images = len(shown.difference(self._asked_again))
        if self._images:
            self._tell_images()
        for outcome in self._assembly.run(
            self._scheduler, work.tasks, first, self._progress, owner, self._fetches, self._tell_images
        ):
            done[outcome.task] = outcome.entry
            failures.update({image.request.name: image for image in outcome.lacked})
            self._check_same_images(digests, outcome.entry)
        missing = tuple(failures.values())
        records.write_tables(target, layout, done, missing)
        finished = self._allow_missing or accepted.issuperset(failures)
        if finished:
            self._assembly.commit(done, lambda _: records.FILES, owner)
        word = "unfinished" if not finished else "built" if self._state is None else "resumed"
        return ViewReport(plan, target.url, word, sum(map(len, work.tasks)), missing)

    def _find_work(self) -> Work:
        """What is left to do.

        Blocks that the ledger lacks; those that are not in the target as the ledger has them; and those that had to
        do without an image that can be had now, with all that reads what they write. Should this run be stopped,
        none of them may pass for done.
        """
        found = ledger.read(self._target, self._state == FINISHED) if self._state else Ledger()
        defects = unsound(self._target, self._state, found)
        self._ask_again(found.done)
        again = self._asked_again.values()
        had = {image.request.name for image in again if isinstance(image, SectionImage)}
        lacking = {task for task, entry in found.done.items() if not had.isdisjoint(_missing(entry))}
        redo = self._assembly.dependent(lacking) | tasks_to_redo(defects, self._assembly)
        done = {task: entry for task, entry in found.done.items() if task not in redo}
        every = self._assembly.tasks(self._layout.shows)
        tasks = [[task for task in some if task not in done] for some in every]
        failures = tuple(image for image in again if isinstance(image, MissingImage))
        return Work(done, tasks, failures, bool(defects))

    def _ask_again(self, done: Mapping[Task, Entry]) -> None:
        """Ask once more for the images that an earlier run had to do without."""
        lacked = {name for entry in done.values() for name in _missing(entry)}
        if not lacked:
            return
        shown = {request for images in self._layout.shows.values() for request in images}
        asked = {
            request: self._scheduler.fetch(self._client.try_fetch, request)
            for request in shown
            if request.name in lacked and request not in self._asked_again
        }
        for request, future in asked.items():
            self._asked_again[request] = future.result()
            self._progress(len(self._asked_again), len(asked), "missing images")

    def _check_same_images(self, digests: dict[str, str], entry: Entry) -> None:
        """Refuse a block made from another version of an image than the blocks before it."""
        for name, digest in records.images(entry).items():
            if digest and digests.setdefault(name, digest) != digest:
                raise TargetError(
                    f"section image {name} is not the one that {self._target.url} was begun with: the service has "
                    "changed it; build anew with --overwrite"
                )

    def _computing(
        self, again: Images, shared: Any, step: Pass, blocks: Sequence[Index]
    ) -> Iterator[Callable[[], Future]]:
        """Start the blocks of level 0, each image fetched once, when the first block that shows it starts."""
        images: dict[ImageRequest, Any] = dict(again)
        source = self._scheduler.share(self._layout.source)
        shows = [self._layout.shows[block] for block in blocks]
        last = {request: position for position, requests in enumerate(shows) for request in requests}
        for position, (block, requests) in enumerate(zip(blocks, shows, strict=True)):
            for request in requests:
                if request not in images:
                    images[request] = self._scheduler.fetch(self._client.try_fetch, request)
                    self._fetches.add(images[request])
                    self._fetches_started += 1
            shown = [images[request] for request in requests]
            yield partial(self._scheduler.compute, compute_shown, shared, source, step, block, shown)
            for request in requests:
                if last[request] == position:
                    del images[request]

    def _tell_images(self) -> None:
        """Report how many images have come, whether or not they are missing."""
        self._progress(self._fetches_started - len(self._fetches), self._images, "images")


def compute_shown(
    multiscale: Multiscale, source: Source, step: Pass, block: Index, images: Sequence[SectionImage | MissingImage]
) -> list[Done]:
    """Compute a block of level 0 from its images, and write it at all levels that it makes."""
    with making(multiscale, step.source, block):
        values = source.compute(multiscale.pyramid.region(step, block), images)
        digests = {i.request.name: i.sha256 if isinstance(i, SectionImage) else None for i in images}
        lacked = tuple(image for image in images if isinstance(image, MissingImage))
        return [store_block(multiscale, step, block, values, {"images": digests}, lacked)]


def _missing(entry: Entry) -> Iterable[str]:
    """Names of the images that a block had to do without."""
    return (name for name, digest in records.images(entry).items() if digest is None)
