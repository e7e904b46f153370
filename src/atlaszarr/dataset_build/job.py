"""The job of one view of a section dataset: its images are fetched once each, and missing ones asked for again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from .. import credit
from ..allen.client import AllenClient
from ..allen.images import ImageRequest, MissingImage, SectionImage
from ..boxes import Region
from ..engine.blocks import Block, Done, write_blocks
from ..engine.job import ImageJob
from ..engine.ledger import Defect, Entry, Ledger, Task
from ..engine.lock import Owner
from ..engine.multiscale import Blocks
from ..engine.schedulers import Future, Scheduler
from ..engine.target_state import FINISHED, Root
from ..engine.writer import Progress
from ..errors import TargetError
from ..stores.target import Target
from . import records
from .layout import Layout
from .plan import Plan


class DatasetJob(ImageJob):
    """One view of a dataset.

    Parameters
    ----------
    layout : Layout
    target : Target
    client : AllenClient
    plan : Plan
        Kept in ``atlaszarr/build.json``.
    scheduler : Scheduler
        For the images that an earlier run did without.
    allow_missing : bool
        Whether to finish although images are missing.
    progress : callable, optional
    """

    def __init__(
        self,
        layout: Layout,
        target: Target,
        client: AllenClient,
        plan: Plan,
        scheduler: Scheduler,
        allow_missing: bool,
        progress: Progress | None,
    ) -> None:
        root = Root(layout.request.ome_zarr, layout.request.identity(layout.dataset), credit.SECTIONS)
        source = partial(_block, layout.source)
        super().__init__(layout.multiscale(target), root, layout.groups, source, files=lambda _: records.FILES)
        self.plan = plan
        #: Images, or windows of them, that are missing, by name.
        self.failures: dict[str, MissingImage] = {}
        self._layout, self._client, self._scheduler = layout, client, scheduler
        self._allow_missing, self._progress = allow_missing, progress or (lambda *_: None)
        self._again: dict[ImageRequest, SectionImage | MissingImage] = {}
        self._accepted: set[str] = set()
        self._digests: dict[str, str] = {}
        self._images, self._started = 0, 0

    def redo(self, state: str | None, recorded: Ledger, defects: Sequence[Defect]) -> set[Task]:
        """What is defective, and the blocks that did without an image that is available now."""
        self._fetch_again(recorded.done)
        found = {request.name for request, image in self._again.items() if isinstance(image, SectionImage)}
        self.failures = {r.name: image for r, image in self._again.items() if isinstance(image, MissingImage)}
        # The failures of a finished target were accepted, and those that remain still are.
        self._accepted = set(self.failures) if state == FINISHED else set()
        lacking = {task for task, entry in recorded.done.items() if not found.isdisjoint(records.missing(entry))}
        return self.dependent(lacking) | super().redo(state, recorded, defects)

    def tasks(self, scheduler: Scheduler) -> list[list[Task]]:
        """All tasks; blocks of level 0 that show the same images one after another."""
        _, *coarser = super().tasks(scheduler)
        return [[(0, block) for block in self._layout.shows], *coarser]

    def begin(self, done: Mapping[Task, Entry], defects: Sequence[Defect]) -> None:
        """Write the metadata, and ``build.json`` unless it is sound."""
        super().begin(done, defects)
        request, target = self.root.request, self.target
        if defects or not records.is_of(target, request):
            records.write_build(target, self._layout, request, self.plan, self._client.api_url)
        for entry in done.values():
            self._check_same_images(entry)

    def start(
        self, scheduler: Scheduler, shared: Any, number: int, tasks: Sequence[Task]
    ) -> Iterator[Callable[[], Future]]:
        """Start the blocks of level 0, each image fetched once, when the first block that shows it starts."""
        if number:
            return super().start(scheduler, shared, number, tasks)
        shown = {request for _, block in tasks for request in self._layout.shows[block]}
        self._images = len(shown.difference(self._again))
        if self._images:
            self.fetched()
        return self._start_blocks(scheduler, shared, tasks)

    def _start_blocks(self, scheduler: Scheduler, shared: Any, tasks: Sequence[Task]) -> Iterator[Callable[[], Future]]:
        multiscale, source = shared
        step = self.multiscale.pyramid.passes[0]
        images: dict[ImageRequest, Any] = dict(self._again)
        shows = [self._layout.shows[block] for _, block in tasks]
        last = {request: position for position, requests in enumerate(shows) for request in requests}
        for position, ((_, block), requests) in enumerate(zip(tasks, shows, strict=True)):
            for request in requests:
                if request not in images:
                    images[request] = scheduler.fetch(self._client.try_fetch, request)
                    self.fetches.add(images[request])
                    self._started += 1
            shown = [images[request] for request in requests]
            yield partial(scheduler.compute, write_blocks, multiscale, source, step, [[block]], shown)
            for request in requests:
                if last[request] == position:
                    del images[request]

    def fetched(self) -> None:
        """Report how many images are fetched, or found missing."""
        self._progress(self._started - len(self.fetches), self._images, "images")

    def take(self, outcome: Done) -> None:
        """Keep the failures of a block, and compare the images that it used."""
        self.failures.update(outcome.notes)
        self._check_same_images(outcome.entry)

    def commit(self, done: Mapping[Task, Entry], owner: Owner) -> bool:
        """Write the tables; finish the target unless images are missing that nobody accepted."""
        records.write_tables(self.target, self._layout, done, tuple(self.failures.values()))
        return (self._allow_missing or self._accepted.issuperset(self.failures)) and super().commit(done, owner)

    def _fetch_again(self, done: Mapping[Task, Entry]) -> None:
        """Fetch the images that an earlier run did without, once in this run."""
        lacked = {name for entry in done.values() for name in records.missing(entry)}
        if not lacked:
            return
        shown = {request for images in self._layout.shows.values() for request in images}
        asked = {
            request: self._scheduler.fetch(self._client.try_fetch, request)
            for request in shown
            if request.name in lacked and request not in self._again
        }
        for request, future in asked.items():
            self._again[request] = future.result()
            self._progress(len(self._again), len(asked), "missing images")

    def _check_same_images(self, entry: Entry) -> None:
        """Refuse a block made from another version of an image than the blocks before it."""
        for name, digest in records.images(entry).items():
            if digest and self._digests.setdefault(name, digest) != digest:
                raise TargetError(
                    f"section image {name} is not the one that {self.target.url} was begun with: the service has "
                    "changed it; build anew with --overwrite"
                )


def _block(
    source: Callable[[Region, Sequence[SectionImage | MissingImage]], Blocks],
    _level: int,
    region: Region,
    images: Sequence[SectionImage | MissingImage],
) -> Block:
    """A block of level 0 from its images."""
    digests = {image.request.name: image.sha256 if isinstance(image, SectionImage) else None for image in images}
    missing = {image.request.name: image for image in images if isinstance(image, MissingImage)}
    return Block(source(region, images), {"images": digests}, missing)
