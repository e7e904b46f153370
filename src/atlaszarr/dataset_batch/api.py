"""`build_many`: a task for each dataset, a bounded window of them, and a journal of those that have ended.

How a batch works, in the order in which to read it:

1. `build_many`, here: validates everything that concerns all datasets, takes the lock of ``ROOT/batch``, compares the
   request with the recorded one, and leaves out the datasets that the journal calls finished.
2. `rounds.run`: starts the tasks, in a window that grows with the workers, and adds each outcome to the journal.
3. `dataset_task.build_dataset`, on the workers: the ordinary `atlaszarr.build`, and what it raises as a row.
4. `journal.Journal`: the rows in the store, and the table made of them.

A second batch into the same root is refused while the first runs. To share the work would need a claim on every dataset
in the store, two requests each, for what one batch on a cluster with more workers does without.
"""

from __future__ import annotations

import concurrent.futures as cf
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..allen import rma
from ..allen.client import AllenClient
from ..allen.records import SectionDataset
from ..allen.slide_images import refuse_options
from ..assets.locate import locate
from ..dataset_build.api import options_of_views
from ..dataset_build.asset import Registration
from ..engine.lock import owning
from ..engine.schedulers import (
    SchedulerLike,
    Threads,
    resolve_scheduler,
    scheduler_for,
    worker_count,
)
from ..engine.target_state import LAYOUT, refuse_inside_image, validate_layout, validate_same_request
from ..errors import AtlaszarrError, InputError, NotFoundError, printable
from ..reference_volumes import open_annotation
from ..regions.annotation import annotation_levels, annotation_of
from ..regions.matching import require_matching_level
from ..sections.options import Options
from ..stores.documents import LARGEST, json_bytes, parse_object
from ..stores.locations import is_url, normalize_folder, options_for, options_of_target, shown
from ..stores.target import Target
from ..stores.temporary import temporary_folder
from ..terminology.terminology import terminology_of
from ..versions import version
from .dataset_task import DatasetTask, build_dataset, concerns_all, failed_row
from .journal import BATCH, REQUEST, Journal, Row
from .measures import FOLDER as MEASURES
from .measures import TABLE as MEASURE_TABLE
from .measures import join_parts, measured
from .report import BatchReport, BatchStatus, Outcomes
from .rounds import id_of, itself, run

if TYPE_CHECKING:
    import pandas as pd

#: The most datasets of a batch: over twenty times the catalogue of the Allen Institute, 43,818.
MOST_DATASETS = 2**20


def _described(client: AllenClient, dataset: SectionDataset | int) -> SectionDataset | Row:
    """The records of a dataset, or its row if they are missing or invalid."""
    try:
        return dataset if isinstance(dataset, SectionDataset) else client.section_dataset(dataset)
    except AtlaszarrError as error:
        if concerns_all(error):
            raise
        return failed_row(id_of(dataset), error)


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
    by_hemisphere: bool = False,
    fields: str | os.PathLike[str] | None = None,
    refine: str | os.PathLike[str] | None = None,
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
    mode, view, client, allow_missing
        Same as in `build`.
    storage_options : mapping, optional
        Options for fsspec: of the root and of `measure`, `fields` and `refine` with the same protocol, or of these
        alone if the root is a path.
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
    by_hemisphere : bool
        With `measure`: measure each side of the midline too.
    fields : str or path-like, optional
        A folder, path or URL, with the refinement of each dataset in ``FIELDS/<id>``; see `build`. A dataset without
        one fails. One that is finished is left alone, also if its refinement has changed since.
    refine : str or path-like, optional
        An annotation, whose path or URL all workers reach: each dataset is refined to it first, with the defaults of
        `atlaszarr.refine`, into ``FIELDS/<id>``, by default ``ROOT/fields/<id>``. A dataset whose refinement lacks
        images is not built, unless `allow_missing`.
    progress : callable, optional
        Called with a `BatchStatus` as datasets end, at most once a second, and at the end; ``print`` prints its line.
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
    target = Target.of(root, options_of_target(root, storage_options, fields, refine, measure))
    annotation = _annotation(measure, by_hemisphere, views[0], storage_options)
    reference = _reference(refine, root, storage_options)
    refined = _fields(fields, None if reference is None else f"{target.url}/fields", root, storage_options)
    request = {
        "layout": LAYOUT,
        "mode": mode,
        "atlas": atlas is not None,
        "views": [asdict(one) for one in views],
        **({} if refined is None else {"fields": shown(refined)}),
        **({} if reference is None else {"refine": shown(reference)}),
    }
    if atlas is not None:
        options = {**options, "atlas": _located_atlas(atlas, storage_options, views, target)}
    resolved = resolve_scheduler(scheduler, target.url)
    chosen = _chosen(datasets)
    count = worker_count(workers)
    at_once = min(count, len(chosen)) if resolved == "threads" else 1
    folder = Target(f"{target.url}/{BATCH}", target.storage_options)
    described, sent = itself, client
    if client.catalogue is not None and resolved != "threads" and not is_url(client.catalogue.url):
        # Workers may not reach a folder of this machine; to read a dataset here takes some ten milliseconds of its CPU.
        reader, sent = copy(client), copy(client)
        reader.image_source, sent.catalogue = None, None
        described = partial(_described, reader)
    task = DatasetTask(
        target,
        sent,
        folder,
        {**options, "mode": mode, "view": view, "allow_missing": allow_missing},
        annotation,
        by_hemisphere,
        overwrite=overwrite,
        fields=refined,
        refine=reference,
        storage_options=dict(storage_options or {}),
    )
    stopped = threading.Event()
    _refuse_file(folder)
    refuse_inside_image(folder)
    with scheduler_for(resolved, at_once) as running:
        if isinstance(running, Threads):
            task = replace(task, progress=partial(_stop_if, stopped))
        with owning(folder, take_over) as owner:
            try:
                journal = Journal(folder)
                measures = {} if annotation is None else {"measure": shown(annotation), "by_hemisphere": by_hemisphere}
                _begin(folder, journal, request, measures, client.api_url, overwrite)
                finished = journal.finished(annotation is not None)
                if annotation is not None:
                    finished &= measured(folder)
                left = [dataset for id, dataset in chosen.items() if id not in finished]
                threads = count // min(at_once, len(left) or 1) if resolved == "threads" else workers or 1
                task = replace(task, options={**task.options, "workers": threads})
                status = BatchStatus(len(chosen), len(chosen) - len(left))
                outcomes = Outcomes(status, progress)
                with closing(run(running, partial(build_dataset, task), left, journal, described)) as rows:
                    for row in rows:
                        outcomes.take(row)
                        owner.validate()
                outcomes.report()
                table = journal.write_table()
                joined = None if annotation is None else join_parts(folder, sorted(journal.finished(measured=True)))
            except BaseException:
                stopped.set()
                running.stop()  # no task of this batch writes after the lock is released
                raise
    return outcomes.summary(target.url, table, joined)


def _views(mode: str, view: str | Sequence[str], options: Mapping[str, Any], client: AllenClient) -> list[Options]:
    """The options of each view; raises an InputError for what an image source does not have."""
    views = options_of_views(mode, view, options)
    if client.image_source is not None:
        for one in views:
            refuse_options(one.view, one.quality, one.range)
    return views


def _annotation(
    measure: str | os.PathLike[str] | None,
    by_hemisphere: bool,
    options: Options,
    storage_options: Mapping[str, Any] | None,
) -> str | None:
    """The location of the annotation of the measures, which is opened, and so is its terminology.

    Raises
    ------
    InputError, NotFoundError, SourceError
        If it is not an annotation, none of its levels has voxels that volumes can have, or volumes are not what is
        built; if it is missing although sides are to be measured.
    """
    if measure is None:
        if by_hemisphere:
            raise InputError("by_hemisphere needs an annotation; give measure (--measure) too", code="missing-option")
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


def _reference(
    refine: str | os.PathLike[str] | None, root: str | os.PathLike[str], storage_options: Mapping[str, Any] | None
) -> str | None:
    """The location of the annotation of refinements, which is opened.

    Raises
    ------
    InputError, NotFoundError, SourceError
        If it is not an annotation, or SimpleITK or SciPy is not installed.
    """
    if refine is None:
        return None
    from ..refinement.section import check_libraries

    check_libraries()
    location = normalize_folder(refine)
    with (
        temporary_folder() as spool,
        open_annotation(location, spool, storage_options=options_for(location, root, storage_options)),
    ):
        return location


def _fields(
    fields: str | os.PathLike[str] | None,
    made: str | None,
    root: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
) -> str | None:
    """The location of the folder of refinements; those that the batch makes lie at `made` by default.

    Raises
    ------
    InputError
        If they are the fields of a single dataset.
    NotFoundError
        If the batch does not refine, and the folder holds no refinement.
    """
    if fields is None:
        return made
    if not isinstance(fields, str | os.PathLike):
        raise InputError(
            f"fields has type {type(fields).__name__}; for many datasets, give the folder that holds the refinement of "
            "each as <id>",
            code="wrong-type",
        )
    location = normalize_folder(fields)
    if made is None and Target.of(location, options_for(location, root, storage_options)).folders() == []:
        raise NotFoundError(
            f"{shown(location)} holds no refinement; give a folder that holds the refinement of each dataset as <id>, "
            "as `atlaszarr batch --refine` writes it",
            code="refinement-not-found",
        )
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
    folder: Target, journal: Journal, request: Mapping[str, Any], measures: Mapping[str, Any], api: str, overwrite: bool
) -> None:
    """Record the request of a new batch and that of its measures, if any, or compare them with the recorded ones.

    Measures may be added to a batch that was begun without.

    Raises
    ------
    InputError
        If the batch was begun with another request, or measured in another annotation or other sides, unless
        `overwrite`.
    """
    wanted = parse_object(json_bytes(request))  # in JSON's types
    body = folder.read(REQUEST, LARGEST)
    document: dict[str, Any] = {}
    damaged = InputError(
        f"{folder.url}/{REQUEST} is damaged; give --overwrite to begin the batch anew", code="damaged-metadata"
    )
    if body is not None:
        try:
            document = _recorded(body)
        except (ValueError, KeyError, TypeError):
            if not overwrite:
                raise damaged from None
    if document:
        stored, noted = document["request"], measures
        if "measure" in document:
            noted = {"measure": document["measure"], "by_hemisphere": document.get("by_hemisphere", False)}
        if stored == wanted and (not measures or measures == noted):
            if measures and "measure" not in document:
                folder.write(REQUEST, json_bytes({**document, **measures}))
            return
        if not overwrite:
            validate_layout(folder, stored)
            validate_same_request(folder, _flat(stored), _flat(wanted))
            validate_same_request(folder, noted, measures)
            raise damaged  # views that differ in more than their names, as no batch writes them
    journal.clear()
    folder.remove(MEASURES)
    folder.remove(MEASURE_TABLE)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    document = {"atlaszarr": version(), "begun": begun, "api": api, "request": wanted, **measures}
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
    for dataset in table:
        one = dataset if isinstance(dataset, SectionDataset) else rma.identifier(dataset)
        chosen.setdefault(id_of(one), one)
        if len(chosen) > MOST_DATASETS:
            raise InputError(f"there are more than {MOST_DATASETS} datasets; give fewer", code="out-of-range")
    if not chosen:
        raise InputError("there are no datasets to build; give at least one id", code="no-datasets")
    return chosen


def _stop_if(stopped: threading.Event, *_: object) -> None:
    """The progress of a build on threads of this process: it ends the build once the batch ends."""
    if stopped.is_set():
        raise cf.CancelledError
