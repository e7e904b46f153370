"""`refine`: from a dataset and an annotation to corrected depths and displacement fields, with figures a section.

How a refinement works, in the order in which to read it:

1. `refine`, here: opens the annotation, the template, the target and the scheduler.
2. `job.RefinementJob`: the steps of every section and what each records; `engine.writer.write` runs them, resumes and
   repairs a target.
3. `comparison.Comparison`, on the workers: registers a section image to a plane, reads the planes of the annotation,
   and calls the arithmetic of `atlaszarr.refinement`.
4. `report`: the rows of all sections.
5. `atlaszarr.sections.refined`: reads FIELDS for a build.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from .. import credit
from ..allen.client import AllenClient
from ..allen.images import MissingImage
from ..allen.records import SectionDataset
from ..assets.locate import locate
from ..engine.schedulers import Scheduler, SchedulerLike, resolve_scheduler, scheduler_for, usable_cores
from ..engine.task_windows import in_order
from ..engine.writer import Progress, write
from ..errors import AtlaszarrWarning, InputError
from ..geometry.grid import Grid
from ..geometry.spaces import reference_space
from ..previews.annotation_planes import VolumePlanes, open_planes
from ..previews.paper import FORMATS
from ..refinement.arrays import pixels_joined
from ..refinement.section import FITTED, check_libraries
from ..sections.alignment import plane_of
from ..sections.options import SectionsOptions
from ..sections.refined import RefinedFields
from ..stores.documents import json_bytes, parse_object
from ..stores.local import write_whole
from ..stores.locations import normalize, options_for, options_of_target, output_file, overlap, shown
from ..stores.target import Target
from ..terminology.terminology import Terminology, terminology_of
from ..versions import version
from .comparison import Comparison
from .expectations import Expectations
from .job import METHOD, RefinementJob, judge, score
from .picture import Layout, draw_refinement, thumbnails
from .report import Refinement, rows_of

#: Sections under way for each worker, in a report without a target.
_WINDOW = 4
#: Libraries whose versions are recorded, since the fields depend on them.
_LIBRARIES = ("numpy", "scipy", "SimpleITK", "simplejpeg")


def refine(
    dataset: SectionDataset | int,
    annotation: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    template: str | os.PathLike[str] | None = None,
    *,
    hold_out: str | Sequence[str | int] = (),
    terminology: Terminology | str | os.PathLike[str] | None = None,
    resolution: float = 25.0,
    client: AllenClient | None = None,
    storage_options: Mapping[str, Any] | None = None,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    allow_missing: bool = False,
    overwrite: bool = False,
    take_over: bool = False,
    preview: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Refinement:
    """Refine the registration of the sections of a dataset to an annotation, with figures that show how well it fits.

    The depth of all sections, and of single ones that are off, is corrected; then each section is fitted within its
    plane by an affine and a smooth deformation, which are kept only if a half of the section that was not fitted shows
    a rise; fields of neighbouring sections are made to agree. ``build(..., fields=target)`` uses the result.

    A target that the same dataset, annotation and options left unfinished is resumed. A finished one is validated and,
    if it is damaged or an image that was missing is available now, repaired; otherwise it is not changed.

    Parameters
    ----------
    dataset : SectionDataset or int
        A dataset, or its id. Its sections are brightfield images.
    annotation : str or path-like
        Path or URL of an annotation of the reference space of the dataset: an OME-Zarr of labels, any other file that
        `atlaszarr.build_atlas` accepts, or an annotation set or an atlas as in `atlaszarr.region_volumes`.
    target : str or path-like, optional
        The folder FIELDS: a local path, or any URL that fsspec opens. Without it nothing is written: sections are
        fitted for the report alone, and fields of neighbours are not made to agree.
    template : str or path-like, optional
        Path or URL of a template in the same space, which tells depths better than labels do.
    hold_out : str or sequence of str or int
        Structures, by acronym, name or id, that take no part in the depth and the fit within the plane, with their
        descendants. The figures count all structures, and so does the choice whether the fit is kept.
    terminology : Terminology, str or path-like, optional
        The structures of `hold_out`. Default: those of the annotation, if it has a terminology.
    resolution : float
        Pixel size of the fields in um: 50, or a whole fraction of it such as 25 or 10. Fields of 25 um serve builds of
        all resolutions.
    storage_options : mapping, optional
        Options for fsspec: of the target and of inputs with the same protocol, or of the inputs alone if the target is
        a path.
    client, scheduler, workers
        Same as in `atlaszarr.build`. A section is a task. The result has the same bytes for every scheduler and any
        number of workers.
    allow_missing : bool
        Finish the target even if section images are missing, which keep their registration; otherwise it stays
        unfinished.
    overwrite, take_over
        Same as in `atlaszarr.build`.
    preview : str or path-like, optional
        A local file ending in ``.png`` or ``.svg``, into which each section is drawn before and after under the borders
        of the annotation.
    progress : callable, optional
        Called with the number of items done, their total, and their name: ``images``, ``depths``, ``fits``, ``fields``,
        ``drawing``.

    Returns
    -------
    Refinement

    Raises
    ------
    InputError
        If an option is invalid, the annotation or the template lies in another space, the target holds other data, or
        SimpleITK or SciPy is not installed; nothing is written.
    NotFoundError
        If the dataset, the annotation, the template or a structure of `hold_out` does not exist.
    RecordError
        If the dataset cannot be registered.
    ServiceError, SourceError
        If the metadata or a volume cannot be read.
    TargetError
        If the target cannot be written.
    """
    check_libraries()
    pixels_joined(FITTED, resolution)
    path = None if preview is None else output_file(preview, FORMATS)
    opened = (
        None
        if target is None
        else Target.of(target, options_of_target(target, storage_options, annotation, template, terminology))
    )
    for name, volume in (("annotation", annotation), ("template", template)):
        if opened is not None and volume is not None and overlap(normalize(volume), opened.url):
            raise InputError(
                f"target {shown(opened.url)} overlaps the {name} {shown(volume)}; choose another target",
                code="target-overlaps-source",
            )
    resolved = resolve_scheduler(scheduler, "" if opened is None else opened.url)
    client = client or AllenClient()
    hold_out = [hold_out] if isinstance(hold_out, str) else list(hold_out)
    with ExitStack() as stack:
        held_out = _labels(hold_out, terminology, annotation, target, storage_options)
        dataset = client.imaged(dataset)
        space, plane = reference_space(dataset.space).frame, plane_of(dataset)
        Grid(space, resolution)

        def planes(volume: str | os.PathLike[str], **options: bool) -> VolumePlanes:
            given = options_for(volume, target, storage_options)
            return stack.enter_context(open_planes(volume, plane, resolution, space, given, **options))

        labels = planes(annotation)
        greys = None if template is None else planes(template, is_annotation=False)
        volumes = [labels] if greys is None else [labels, greys]
        options = SectionsOptions.of({"resolution": resolution, "detection_xy": "centre"}, written=False)
        coordinates = options.planes(dataset, stored=False).coordinates.tolist()
        for one in volumes:
            one.require_inside(coordinates)
        sent = [one.for_workers() for one in volumes]
        comparison = Comparison(dataset, options, sent[0], sent[1] if greys is not None else None, held_out)
        running = stack.enter_context(scheduler_for(resolved, workers, client.concurrency))
        if opened is None:
            report = _as_it_is(comparison, client, running, progress)
        else:
            identities = {one.kind: one.identity() for one in volumes}
            request = {
                "refinement": dataset.id,
                "method": METHOD,
                "records_sha256": options.identity(dataset)["records_sha256"],
                "resolution": resolution,
                "hold_out": list(held_out),
                **identities,
            }
            record = {
                "hold_out": [str(key) for key in hold_out],
                **{one.kind: {"location": one.name, **identities[one.kind]} for one in volumes},
                "versions": {name: version(name) for name in ("atlaszarr", *_LIBRARIES)},
                "credit": credit.SECTIONS,
            }
            wanted = parse_object(json_bytes(request))  # in JSON's types
            job = RefinementJob(comparison, opened, client, running, wanted, record, allow_missing, progress)
            done = write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)
            report = job.report(done.state)
        if path is not None:
            write_whole(path, _picture(comparison, labels, opened, report, client, progress, path.suffix.lower()))
        for one in volumes:
            for remark in one.all_remarks:
                warnings.warn(remark, AtlaszarrWarning, stacklevel=2)
    return report


def _picture(
    comparison: Comparison,
    labels: VolumePlanes,
    target: Target | None,
    report: Refinement,
    client: AllenClient,
    progress: Progress | None,
    suffix: str,
) -> bytes:
    """The sections before and, if a target is finished, after."""
    dataset, plane, space = comparison.dataset, labels.plane, labels.space
    refined = target if report.state != "unfinished" else None
    layout = Layout.of(len(dataset.sections), ("before", "after") if refined else ("before",), plane, space)
    options = replace(comparison.options, resolution=layout.resolution)
    stages = [options.planes(dataset, stored=False)]
    if refined is not None:
        fields = RefinedFields.open(refined.url, json.loads(refined.storage_options))
        stages.append(options.planes(dataset, stored=False, fields=fields))
    ids = [row.image_id for row in report.sections]
    coarse = replace(labels, resolution=layout.resolution)
    borders = [
        dict(zip(planes.positions, coarse.read(planes.coordinates.tolist(), usable_cores()), strict=True))
        for planes in stages
    ]
    images = thumbnails(stages, ids, client, progress)
    under = [[found[id] for found in borders] for id in ids]
    return draw_refinement(dataset, report, layout, plane, space, images, under, labels.name, suffix)


def _labels(
    hold_out: Sequence[str | int],
    terminology: Terminology | str | os.PathLike[str] | None,
    annotation: str | os.PathLike[str],
    target: str | os.PathLike[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> tuple[int, ...]:
    """The labels of structures and their descendants, sorted."""
    if not hold_out:
        return ()
    located = locate(annotation, options_for(annotation, target, storage_options))
    source = terminology if isinstance(terminology, str | os.PathLike) else annotation
    structures = terminology_of(terminology, located, options_for(source, target, storage_options))
    found = {each.value for key in hold_out for each in structures.descendants(key)}
    return tuple(sorted(value for value in found if value is not None))


def _as_it_is(comparison: Comparison, client: AllenClient, running: Scheduler, progress: Progress | None) -> Refinement:
    """The report without a target: sections are fitted for their figures and flags, and nothing is written."""
    dataset, shared, report = comparison.dataset, running.share(comparison), progress or (lambda *_: None)
    images = [
        running.fetch(client.try_fetch, request) for request in comparison.options.aligned(dataset).imaged.requests
    ]

    def results(task: Callable[..., Any], word: str, arguments: Mapping[int, Any]) -> Iterator[Any]:
        starts = (partial(running.compute, task, shared, k, images[k], more) for k, more in arguments.items())
        for done, result in enumerate(in_order(running, starts, _WINDOW * running.workers)):
            report(done, len(arguments), word)
            yield result

    everywhere = dict.fromkeys(range(len(images)))
    found = dict(zip(everywhere, results(score, "depths", everywhere), strict=True))
    failures = tuple(each for each in found.values() if isinstance(each, MissingImage))
    scores = {k: each for k, each in found.items() if not isinstance(each, MissingImage)}
    expected = Expectations.found(comparison.depths, scores)
    judged = dict(zip(scores, results(judge, "fits", {k: expected.of(k) for k in scores}), strict=True))
    missing = {failure.request.image_id: failure.reason for failure in failures}
    rows = rows_of(dataset, expected.correction, judged, {}, missing)
    return Refinement(dataset.id, None, "not refined", rows, expected.correction, failures)
