"""`plan` and `build`: from a dataset and options to layouts, a scheduler and targets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..engine.schedulers import SchedulerLike, resolve_scheduler, scheduler_for, worker_count
from ..engine.writer import Progress, write
from ..errors import InputError
from ..sections.options import Request, SectionsRequest, VolumeRequest
from ..stores.target import Target
from .job import DatasetJob
from .layout import Layout
from .plan import Plan, metadata_requests, price
from .report import BuildReport, ViewReport
from .section_layout import section_layout
from .volume_layout import volume_layout


def plan(
    dataset: SectionDataset | int,
    target: str | os.PathLike[str] | None = None,
    *,
    mode: str = "volume",
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
    mode, view
        As of `build`.
    client : AllenClient, optional
    workers : int, optional
        Default one a core.
    **options
        As of `build`.

    Raises
    ------
    InputError, RecordError, NotFoundError, ServiceError
        As `build`.
    """
    requests = _requests(mode, view, options)
    # Only named: it need not be there yet, nor may we open it.
    first = Target(os.fspath(target)) if target is not None else None
    targets = [first.of_view(request.view) if first and n else first for n, request in enumerate(requests)]
    client = client or AllenClient()
    count = worker_count(workers)
    dataset, asked = _dataset(dataset, client)
    return tuple(
        price(_layout(dataset, request), client, count, 0 if position else asked, where.url if where else None)
        for position, (request, where) in enumerate(zip(requests, targets, strict=True))
    )


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
    **options: Any,
) -> BuildReport:
    """Build the registered multiscale OME-Zarr of a section dataset: one volume, or an image a section.

    A target that this very request left unfinished is gone on with; a finished one is left as it is, but for
    images that were missing and can be had now.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id.
    target : str or path-like
        A local path, or any URL that fsspec opens.
    mode : str
        ``volume``: every voxel of a 3-D grid takes what the section nearest to it shows. ``sections``: one plane a
        section, at its slice coordinate, in a collection of images.
    view : str or sequence of str
        ``primary``, ``expression``, ``projection``; every view after the first becomes ``x.<view>.ome.zarr`` beside
        the target.
    client : AllenClient, optional
        Default: a client with its own defaults.
    storage_options : mapping, optional
        To fsspec. Never shown or written anywhere.
    scheduler : str, distributed.Client or distributed.LocalCluster, optional
        Runs the tasks: the address of a `distributed` scheduler, a client (used as it is, and left open), a cluster
        object of `distributed`, or ``"threads"``. Default: the active `distributed` client if there is one, else
        threads.
    workers : int, optional
        Threads of this process; default one a core.
    allow_missing : bool
        Finish although images cannot be had; otherwise the target stays unfinished.
    overwrite : bool
        Remove what another build of atlaszarr left at the target.
    take_over : bool
        Build although another build seems to be under way in the target.
    progress : callable, optional
        Called with how many are done, how many there are, and a word that says what they are: ``images`` while section
        images are waited for, ``blocks``, ``level 1``.
    **options
        Further fields of `atlaszarr.sections.options.VolumeRequest` or `SectionsRequest`: resolution (um), ...

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
    requests = _requests(mode, view, options)
    targets = _targets(target, storage_options, requests)
    scheduler = resolve_scheduler(scheduler, targets[0].url)
    client = client or AllenClient()
    dataset, asked = _dataset(dataset, client)
    layouts = [_layout(dataset, request) for request in requests]
    with scheduler_for(scheduler, workers, client.concurrency) as where:
        jobs = []
        for position, (layout, place) in enumerate(zip(layouts, targets, strict=True)):
            cost = price(layout, client, where.workers, 0 if position else asked, place.url)
            jobs.append(DatasetJob(layout, place, client, cost, where, allow_missing, progress))
        for job in jobs:
            job.examine(overwrite)  # before anything is written anywhere
        views = []
        for job in jobs:
            done = write(job, where, overwrite=overwrite, take_over=take_over, progress=progress)
            failures = tuple(job.failures.values())
            views.append(ViewReport(job.plan, done.target, done.state, done.tasks_done, failures))
        return BuildReport(dataset.id, tuple(views))


def _dataset(dataset: SectionDataset | int, client: AllenClient) -> tuple[SectionDataset, int]:
    """The record, and how many requests it took."""
    if isinstance(dataset, SectionDataset):
        return dataset, 0
    record = client.section_dataset(dataset)
    return record, metadata_requests(record)


def _requests(mode: str, view: str | Sequence[str], options: Mapping[str, Any]) -> list[Request]:
    modes: dict[str, type[Request]] = {kind.mode: kind for kind in (VolumeRequest, SectionsRequest)}
    if mode not in modes:
        raise InputError(f"mode {mode!r} is not known; choose from {', '.join(modes)}")
    return modes[mode].of_views(view, options)


def _layout(dataset: SectionDataset, request: Request) -> Layout:
    if isinstance(request, SectionsRequest):
        return section_layout(dataset, request)
    assert isinstance(request, VolumeRequest)
    return volume_layout(dataset, request)


def _targets(
    target: str | os.PathLike[str], storage_options: Mapping[str, Any] | None, requests: Sequence[Request]
) -> list[Target]:
    first = Target.of(target, storage_options)
    return [first, *(first.of_view(request.view) for request in requests[1:])]
