"""`plan` and `build`: from a dataset and options to layouts, jobs and a scheduler.

How a build works, in the order in which to read it:

1. `build`, here: makes a `layout.BuildLayout` for each view (`volume_layout`, `section_layout`), opens the targets and
   the scheduler, estimates the costs (`plan.price`), and reads the state of every target before it writes to any.
2. `job.DatasetJob`: the job of one view. It fetches each section image once for all the blocks computed from it, writes
   ``build.json`` and the tables (`records`), and fetches the missing images of an earlier run again.
3. `engine.writer.write`: the loop of every job. It locks the target unless that is finished and intact, lists the tasks
   that the ledger does not record, runs them pass by pass, and commits.
4. `engine.job.ImageJob`: the tasks of each pass, the metadata and the commit of an image of several levels, of which
   `DatasetJob` overrides what concerns its images.
5. `engine.blocks.write_blocks`, on the workers: computes a block or reads it from the level before, downsamples it,
   encodes and writes its chunks, and records them in the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..allen.client import AllenClient
from ..allen.images import release_pixels
from ..allen.records import SectionDataset
from ..engine.schedulers import SchedulerLike, resolve_scheduler, scheduler_for, worker_count
from ..engine.writer import Progress, write
from ..errors import InputError
from ..sections.fields import Fields, SectionFields, fields_of
from ..sections.options import Options, SectionsOptions, VolumeOptions
from ..stores.locations import options_of_target, overlapping, shown
from ..stores.target import Target
from .job import DatasetJob
from .layout import BuildLayout
from .plan import BuildReport, Plan, Plans, ViewReport, metadata_requests, price
from .section_layout import section_layout
from .volume_layout import volume_layout

if TYPE_CHECKING:
    from .asset import Registration


def plan(
    dataset: SectionDataset | int,
    target: str | os.PathLike[str] | None = None,
    *,
    mode: str = "volume",
    view: str | Sequence[str] = "primary",
    client: AllenClient | None = None,
    workers: int | None = None,
    atlas: str | os.PathLike[str] | None = None,
    fields: Fields = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Plan, ...]:
    """Estimate what a build costs, one plan for each view; fetches nothing but metadata.

    If the images come from slides, their headers are read too: 64 KiB of each slide, and more if the header is longer.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    target : str or path-like, optional
        Recorded in the plan; not opened.
    mode, view
        Same as in `build`.
    client : AllenClient, optional
        Default: a client with default options.
    workers : int, optional
        Threads of this process; default one for each core.
    atlas : str or path-like, optional
        Same as in `build`; its manifest is read. `target` may then be left out.
    fields
        Same as in `build`; they are read, to count the images.
    storage_options : mapping, optional
        Options for fsspec, to read the atlas and the fields.
    **options
        Same as in `build`.

    Returns
    -------
    tuple of Plan
        One for each view, in the order of `view`.

    Raises
    ------
    InputError, RecordError, NotFoundError, ServiceError
        Same as in `build`.
    """
    view_options = options_of_views(mode, view, options)
    registration = None if atlas is None else _registration(atlas, storage_options, view_options)
    given = fields_of(fields, storage_options, target)
    client = client or AllenClient()
    count = worker_count(workers)
    targets: list[Target | None]
    if registration is None:
        # The target is named in the plan and not opened: it may not exist yet.
        first = Target(os.fspath(target)) if target is not None else None
        targets = [first.of_view(one.view) if first and n else first for n, one in enumerate(view_options)]
        dataset, fetched = _dataset(dataset, client)
    else:
        first = Target.of(target, storage_options) if target is not None else None
        dataset, fetched = _dataset(dataset, client)
        targets = [at for _, at in registration.assets(dataset, first)]
    plans = []
    for n, (one, at) in enumerate(zip(view_options, targets, strict=True)):
        layout = _layout(dataset, one, given, registration)
        fetches = client.fetches(layout.images)
        plans.append(price(layout, client, count, 0 if n else fetched, at.url if at else None, fetches))
    return Plans(plans)


def build(
    dataset: SectionDataset | int,
    target: str | os.PathLike[str],
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
    progress: Progress | None = None,
    atlas: str | os.PathLike[str] | None = None,
    fields: Fields = None,
    **options: Any,
) -> BuildReport:
    """Build the registered multiscale OME-Zarr of a section dataset: one volume, or one image for each section.

    A target that the same dataset and options left unfinished is resumed. A finished one is validated and, if it is
    damaged or an image that was missing is available now, repaired; otherwise it is not changed.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    target : str or path-like
        A local path, or any URL that fsspec opens.
    mode : str
        ``volume``: a 3-D grid, each voxel sampled from the section nearest to it. ``sections``: a collection of
        images, one plane for each section, at its slice coordinate.
    view : str or sequence of str
        ``primary``, ``expression``, ``projection``; every view after the first is written to ``x.<view>.ome.zarr``
        next to the target.
    client : AllenClient, optional
        Default: a client with default options.
    storage_options : mapping, optional
        Options for fsspec: of the target and of `fields` with the same protocol, or of `fields` alone if the target is
        a path. They are never printed or written.
    scheduler : str, distributed.Client or distributed.LocalCluster, optional
        Runs the tasks: the address of a `distributed` scheduler, a client (used as it is, and left open), a cluster
        object of `distributed`, or ``"threads"``. Default: the active `distributed` client; threads if there is none.
    workers : int, optional
        Threads of this process; default one for each core.
    allow_missing : bool
        Finish the target even if section images are missing; otherwise it stays unfinished.
    overwrite : bool
        Remove what another build of atlaszarr wrote to the target.
    take_over : bool
        Build even if another build seems to be running in the target.
    progress : callable, optional
        Called with the number of items done, their total, and their name: ``images`` while section images are fetched,
        ``blocks``, ``level 1``.
    atlas : str or path-like, optional
        An atlas of the layout ``assets``, in whose tree the target is registered as a template: the folder
        ``ROOT/atlases/NAME/VERSION``, without its version the newest, its ``manifest.json``, or ROOT if it holds one
        atlas. The target is ROOT, for the default name and version (see `atlaszarr.dataset_build.asset.Registration`),
        or ``ROOT/templates/NAME-template/VERSION/template.ome.zarr``. Once it is finished, its documents are written
        next to it, and the manifest of the atlas lists it; those of BrainGlobe too where it is `grey` and has the shape
        of the template. Further views are templates of their own, and x has the orientation of the atlas.
    fields : str, path-like, RefinedFields or mapping of int to Displacement, optional
        How sections are registered beyond their records, same as in `atlaszarr.open_volume`: the folder FIELDS that
        `refine` wrote, the `RefinedFields` opened from it, which may have storage options of its own, or your own
        fields by SectionImage id. Their digest is part of the request: the same fields resume a target.
    **options
        Further fields of `atlaszarr.sections.options.VolumeOptions` or `SectionsOptions`: resolution (um), ...

    Returns
    -------
    BuildReport

    Raises
    ------
    InputError
        If an option is unknown or invalid, the target holds other data, or the atlas lies in another space or does not
        have the layout ``assets``; nothing is written.
    NotFoundError
        If the dataset does not exist.
    RecordError
        If the dataset cannot be registered.
    ServiceError
        If the metadata cannot be fetched.
    TargetError
        If the target cannot be written.
    """
    view_options = options_of_views(mode, view, options)
    first = Target.of(target, options_of_target(target, storage_options, fields))
    registration = None if atlas is None else _registration(atlas, storage_options, view_options)
    given = fields_of(fields, storage_options, target)
    resolved = resolve_scheduler(scheduler, first.url)
    client = client or AllenClient()
    dataset, fetched = _dataset(dataset, client)
    layouts = [_layout(dataset, one, given, registration) for one in view_options]
    assets = [] if registration is None else registration.assets(dataset, first)
    targets = [at for _, at in assets] or [first, *(first.of_view(one.view) for one in view_options[1:])]
    for source in [] if given is None else given.locations:
        resolve_scheduler(resolved, source)
        if (both := overlapping([source], [at.url for at in targets])) is not None:
            raise InputError(
                f"target {both[1]} overlaps the fields {shown(source)}; choose another target",
                code="target-overlaps-source",
            )
    with scheduler_for(resolved, workers, client.concurrency) as running:
        jobs = []
        for position, (layout, at) in enumerate(zip(layouts, targets, strict=True)):
            fetches = client.fetches(layout.images)
            cost = price(layout, client, running.workers, 0 if position else fetched, at.url, fetches)
            jobs.append(DatasetJob(layout, at, client, cost, running, allow_missing, progress, fetches))
        for position, job in enumerate(jobs):  # all of them before anything is written
            state = job.read_state(overwrite)
            if registration is not None and state is None and not overwrite:
                registration.refuse_documents(assets[position][0])
        views = []
        for position, job in enumerate(jobs):
            try:
                done = write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)
            finally:
                release_pixels(job.digests.values())
            failures = tuple(job.failures.values())
            view_report = ViewReport(
                job.plan,
                done.target,
                done.state,
                done.tasks_done,
                failures,
                images=len(job.digests),
                stored_bytes=job.stored_bytes,
            )
            if registration is not None and done.state != "unfinished":
                asset, _ = assets[position]
                listed_in = registration.register(asset, job.target, layouts[position])
                view_report = replace(view_report, asset=f"/{asset.folder}", listed_in=tuple(listed_in))
            views.append(view_report)
        return BuildReport(dataset.id, tuple(views))


def _dataset(dataset: SectionDataset | int, client: AllenClient) -> tuple[SectionDataset, int]:
    """The dataset, and how many requests fetched it."""
    if isinstance(dataset, SectionDataset):
        return client.imaged(dataset), 0
    record = client.section_dataset(dataset)
    return record, metadata_requests(record, client)


def options_of_views(mode: str, view: str | Sequence[str], options: Mapping[str, Any]) -> list[Options]:
    """The options of each view."""
    modes: dict[str, type[Options]] = {kind.mode: kind for kind in (VolumeOptions, SectionsOptions)}
    if mode not in modes:
        raise InputError(f"mode {mode!r} is unknown; choose from {', '.join(modes)}", code="unknown-value")
    return modes[mode].of_views(view, options)


def _registration(
    atlas: str | os.PathLike[str], storage_options: Mapping[str, Any] | None, view_options: Sequence[Options]
) -> Registration:
    from .asset import Registration  # imported here, since most builds do without an atlas

    return Registration.of(atlas, storage_options, view_options)


def _layout(
    dataset: SectionDataset, options: Options, fields: SectionFields | None, registration: Registration | None
) -> BuildLayout:
    if isinstance(options, SectionsOptions):
        return section_layout(dataset, options, fields)
    assert isinstance(options, VolumeOptions)
    if registration is None:
        return volume_layout(dataset, options, fields)
    return volume_layout(dataset, options, fields, registration.sides(dataset))
