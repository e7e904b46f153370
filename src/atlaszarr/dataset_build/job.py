"""The job of one view of a section dataset: fetches each image once, and the missing images of an earlier run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from .. import credit
from ..allen.client import AllenClient
from ..allen.image_source import ImageFetch
from ..allen.images import ImageRequest, MissingImage, SectionImage
from ..boxes import cells
from ..engine.blocks import Done, write_blocks
from ..engine.job import ImageJob
from ..engine.ledger import Defect, Entry, Ledger, Task
from ..engine.lock import Owner
from ..engine.schedulers import Future, Scheduler
from ..engine.target_state import FINISHED, Root
from ..engine.writer import Progress
from ..stores.target import Target
from . import records
from .layout import BuildLayout
from .plan import Plan


class DatasetJob(ImageJob):
    """One view of a dataset.

    Parameters
    ----------
    layout : BuildLayout
    target : Target
    client : AllenClient
    plan : Plan
        Recorded in ``atlaszarr/build.json``.
    scheduler : Scheduler
        Fetches the images that an earlier run lacked.
    allow_missing : bool
        Whether to finish the target if images are missing.
    progress : callable, optional
    fetches : sequence of ImageFetch, optional
        How the images of the layout are fetched; default that of `AllenClient.fetches`.
    """

    def __init__(
        self,
        layout: BuildLayout,
        target: Target,
        client: AllenClient,
        plan: Plan,
        scheduler: Scheduler,
        allow_missing: bool,
        progress: Progress | None,
        fetches: Sequence[ImageFetch] | None = None,
    ) -> None:
        root = Root(layout.options.ome_zarr, layout.request, credit.SECTIONS)
        super().__init__(layout.multiscale(target), root, layout.groups, layout.source, layout.together)
        self.files = lambda _: (*records.FILES, *layout.files)
        self.held = layout.held
        self.plan = plan
        #: Missing images, or windows of images, by name.
        self.failures: dict[str, MissingImage] = {}
        self._layout, self._client, self._scheduler = layout, client, scheduler
        self._allow_missing, self._progress = allow_missing, progress or (lambda *_: None)
        fetches = client.fetches(layout.images) if fetches is None else fetches
        self._fetch_of = {request: fetch for fetch in fetches for request in fetch.requests}
        #: The images that an earlier run lacked, fetched again.
        self._again: dict[ImageRequest, SectionImage | MissingImage] = {}
        #: Missing images that the user allowed in an earlier run.
        self._allowed: set[str] = set()
        #: SHA-256 of the images in the target, by name.
        self.digests: dict[str, str] = {}
        #: Bytes of the chunks of the target.
        self.stored_bytes = 0
        #: Images to fetch in this run, and those whose fetch has started.
        self._total, self._started = 0, 0

    def redo(self, state: str | None, recorded: Ledger, defects: Sequence[Defect]) -> set[Task]:
        """The defective tasks, and the blocks that lack an image which is available now."""
        self._fetch_again(recorded.done)
        available = {request.name for request, image in self._again.items() if isinstance(image, SectionImage)}
        self.failures = {r.name: image for r, image in self._again.items() if isinstance(image, MissingImage)}
        # A finished target was finished without these images, so the user allowed it.
        self._allowed = set(self.failures) if state == FINISHED else set()
        if state == FINISHED:
            self._count(recorded.done)
        lacking = {task for task, entry in recorded.done.items() if not available.isdisjoint(records.missing(entry))}
        return self.dependent(lacking) | super().redo(state, recorded, defects)

    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """All tasks; blocks of level 0 in the order of the layout, so that those with the same images are adjacent."""
        _, *coarser = super().tasks(scheduler)
        return [[(0, block) for block in self._layout.inputs], *coarser]

    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Write the metadata, and ``build.json`` unless a valid one exists."""
        super().begin(done, defects)
        request, target = self.root.request, self.target
        if defects or records.begun(target, request) is None:
            records.write_build(target, self._layout, request, self.plan, self._client)
        for entry in done.values():
            records.check_same_images(self.digests, entry, target)

    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Start the blocks of level 0; each image is fetched once, when the first block that needs it starts."""
        if number:
            return super().start(scheduler, shared, number, tasks)
        needed = {request for _, block in tasks for request in self._layout.inputs[block]}
        self._total = len(needed.difference(self._again))
        if self._total:
            self.fetched()
        return self._start_blocks(scheduler, shared, tasks)

    def _start_blocks(self, scheduler: Scheduler, shared: Any, tasks: Sequence[Task]) -> Iterator[Callable[[], Future]]:
        multiscale, source = shared
        step = self.multiscale.pyramid.passes[0]
        images: dict[ImageRequest, Any] = dict(self._again)
        blocks = [block for _, block in tasks]
        groups = [[block] for block in blocks] if self.together is None else self.together(blocks)
        boxes = [self.box(0, group) for group in groups]
        needed = [
            dict.fromkeys(request for block in cells(box, step.block) for request in self._layout.inputs.get(block, ()))
            for box in boxes
        ]
        last = {request: position for position, requests in enumerate(needed) for request in requests}
        for position, (group, box, requests) in enumerate(zip(groups, boxes, needed, strict=True)):
            for request in requests:
                if request not in images:
                    fetch = self._fetch_of[request]
                    wanted = [other for other in fetch.requests if other in last and other not in images]
                    started = self._fetch(scheduler, fetch, wanted)
                    images |= started
                    self.fetches |= set(started.values())
                    self._started += len(started)
            inputs = [*(images[request] for request in requests), *self.held(box)]
            yield partial(scheduler.compute, write_blocks, multiscale, source, step, [group], inputs)
            for request in requests:
                if last[request] == position:
                    del images[request]

    def _fetch(
        self, scheduler: Scheduler, fetch: ImageFetch, wanted: Sequence[ImageRequest]
    ) -> dict[ImageRequest, Any]:
        """Start a fetch, and return a future of each wanted image of it."""
        if fetch.head is None and len(wanted) == 1:
            return {wanted[0]: scheduler.fetch(self._client.try_fetch, wanted[0])}
        images = scheduler.fetch(self._client.try_fetch_each, replace(fetch, requests=tuple(wanted)))
        return {request: scheduler.compute(dict.__getitem__, images, request) for request in wanted}

    def fetched(self) -> None:
        """Report how many images are fetched or missing."""
        self._progress(self._started - len(self.fetches), self._total, "images")

    def take(self, outcome: Done) -> None:
        """Record the missing images of a block, and compare the digests of the others."""
        self.failures.update(outcome.notes)
        records.check_same_images(self.digests, outcome.entry, self.target)

    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Write the sidecars; finish the target unless images are missing that the user did not allow."""
        self._count(done)
        records.write_tables(self.target, self._layout, done, tuple(self.failures.values()))
        self.target.write_all(self._layout.files.items())
        return (self._allow_missing or self._allowed.issuperset(self.failures)) and super().commit(done, owner)

    def _fetch_again(self, done: Mapping[Task, Entry]) -> None:
        """Fetch the images that an earlier run lacked, at most once in this run."""
        lacked = {name for entry in done.values() for name in records.missing(entry)}
        if not lacked:
            return
        needed = {
            request for requests in self._layout.inputs.values() for request in requests if request.name in lacked
        }
        fetches: dict[ImageRequest, Any] = {}
        for request in needed.difference(self._again):
            if request not in fetches:
                fetch = self._fetch_of[request]
                wanted = [other for other in fetch.requests if other in needed and other not in self._again]
                fetches |= self._fetch(self._scheduler, fetch, wanted)
        for count, (request, future) in enumerate(fetches.items(), 1):
            self._again[request] = self._scheduler.result(future)
            self._progress(count, len(fetches), "missing images")

    def _count(self, done: Mapping[Task, Entry]) -> None:
        """Note the images and the bytes of the recorded blocks."""
        self.stored_bytes = sum(size for entry in done.values() for size, _ in entry.written.values())
        for entry in done.values():
            for name, digest in records.images(entry).items():
                if digest:
                    self.digests.setdefault(name, digest)
