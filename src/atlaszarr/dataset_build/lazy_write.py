"""Write a lazy Dataset with the job of `build`: its metadata, tables, ledger, resume and repair."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..allen.client import AllenClient
from ..engine.inputs import validate_held
from ..engine.schedulers import SchedulerLike, resolve_scheduler, scheduler_for
from ..engine.writer import Progress, WriteReport, write
from ..errors import AtlaszarrWarning, ImageError
from ..sections.opened import Opened
from ..sections.options import SectionsOptions, VolumeOptions
from ..stores.target import Target
from .job import DatasetJob
from .lazy_layout import LazyBuild
from .lazy_section_layout import VARIABLES, LazySections
from .lazy_volume_layout import LazyVolume
from .plan import price

if TYPE_CHECKING:
    import xarray as xr

#: The number of missing images that an error lists.
_NAMED = 3


def write_dataset(
    dataset: xr.Dataset,
    target: Target,
    *,
    identity: str | None,
    scheduler: SchedulerLike,
    workers: int | None,
    overwrite: bool,
    take_over: bool,
    progress: Progress | None,
    **written: Any,
) -> WriteReport:
    """Write a Dataset of `open_volume` or `open_sections`; see `atlaszarr.writing.write_multiscales`.

    Raises
    ------
    InputError
        If the Dataset lacks what is written, or an option is not valid; nothing is written.
    ImageError
        If section images are missing, and the Dataset was not opened with ``on_missing="fill"``. The blocks without
        them are written, and the target stays unfinished.
    TargetError
        If the target cannot be written.
    """
    resolved = resolve_scheduler(scheduler, target.url)
    validate_held((variable.data for variable in dataset.data_vars.values()), resolved)
    lazy = lazy_build(dataset, target.url, identity, **written)
    fetcher = lazy.fetcher
    client = AllenClient(lazy.api_url) if fetcher is None else fetcher.client
    fill = fetcher is not None and fetcher.missing is not None
    with scheduler_for(resolved, workers, client.concurrency) as running:
        fetches = client.fetches(lazy.layout.images)
        cost = price(lazy.layout, client, running.workers, 0, target.url, fetches)
        job = DatasetJob(lazy.layout, target, client, cost, running, fill, progress, fetches)
        report = write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)
    missing = list({image.request.image_id: image for image in job.failures.values()}.values())
    if fetcher is not None:
        for image in missing:
            fetcher.note(image)
    if report.state == "unfinished":
        named = ", ".join(str(image.request.image_id) for image in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ImageError(
            f"section images {named}{more} are missing ({missing[0].reason}), so {target.url} is unfinished; run the "
            'same command to fetch them again, or open the Dataset with on_missing="fill"',
            code="image-missing",
        )
    if report.tasks_done and lazy.warning:
        warnings.warn(lazy.warning, AtlaszarrWarning, stacklevel=3)  # at the call of write_multiscales
    return report


def lazy_build(dataset: xr.Dataset, target: str, identity: str | None, **written: Any) -> LazyBuild:
    """Lay out a Dataset for a target.

    Parameters
    ----------
    dataset : xarray.Dataset
    target : str
        The URL of the target.
    identity : str, optional
        Identifies the image instead of the name of its dask array.
    **written
        Options of writing: levels, chunk, shard, ome_zarr; None for those with which the Dataset was opened.

    Raises
    ------
    InputError
        If the Dataset lacks what is written, or an option is not valid.
    """
    carried = Opened.of(dataset)
    given = {name: value for name, value in written.items() if value is not None}
    options = type(carried.options).of({**asdict(carried.options), **given})
    if isinstance(options, SectionsOptions):
        views = [view for view, name in VARIABLES.items() if name in dataset.data_vars]
        if len(views) == 1:  # of those that were opened
            options = replace(options, view=views[0])
        return LazySections(dataset, carried, options).build(target, identity)
    assert isinstance(options, VolumeOptions)
    return LazyVolume(dataset, carried, options).build(target, identity)
