"""The commands `plan`, `build` and `verify`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from ..errors import InputError, TargetError
from .options import (
    API,
    CATALOGUE,
    CRITERIA,
    DATASETS,
    FIELDS,
    FORMAT,
    IMAGES,
    MIRROR,
    NUMBER,
    OME_ZARR,
    OUTPUT,
    SHARD,
    STORE,
    WHOLE,
    WORKERS,
    WRITING,
    as_id,
    as_number_or_auto,
    as_numbers,
    client,
    options,
)
from .terminal import echo, echo_data, missing_lines, progress_bars, say, table

#: Options of the output. Those without a default belong to one mode, or their defaults depend on the mode.
BUILD = (
    click.option("--mode", default="volume", metavar="volume|sections", help="One image, or one per section [volume]."),
    click.option("--resolution", type=NUMBER, default=25.0, metavar="UM", help="Voxel size [25]."),
    click.option("--fill", metavar="none|nearest|linear", help="Fill between sections, in a volume [nearest]."),
    click.option(
        "--max-gap",
        type=NUMBER,
        metavar="N",
        help="Widest gap between two sections that is filled, in nominal intervals (the most common step) [2.5].",
    ),
    click.option(
        "--interpolation",
        default="linear",
        metavar="NAME",
        help="Interpolation in an image: nearest, linear, cubic or lanczos [linear].",
    ),
    click.option(
        "--view",
        multiple=True,
        default=("primary",),
        metavar="VIEW",
        help="primary, expression or projection; repeatable [primary].",
    ),
    click.option(
        "--plane",
        metavar="PLANE",
        help="Plane of the sections: coronal, sagittal, transverse (or horizontal) [plane of section].",
    ),
    click.option(
        "--detection-xy",
        metavar="X,Y|centre",
        help="Full-resolution pixel that defines the slice coordinate of a section [0,0].",
    ),
    click.option("--displacement", is_flag=True, help="Write the displacement fields of sections too."),
    click.option(
        "--downsample",
        default="auto",
        callback=as_number_or_auto,
        metavar="auto|N",
        help="Tier of the section images [auto].",
    ),
    *MIRROR,
    *IMAGES,
    click.option(
        "--range",
        callback=as_numbers(6),
        metavar="R0,R1,G0,G1,B0,B1",
        help="Limits of fluorescence images, 0 to 4095.",
    ),
    click.option("--quality", type=WHOLE, metavar="N", help="JPEG quality requested from the service, 0 to 100."),
    click.option(
        "--levels", default="auto", callback=as_number_or_auto, metavar="auto|N", help="Levels of the pyramid [auto]."
    ),
    click.option("--chunk", type=WHOLE, metavar="N", help="Side of a chunk in voxels [volume 64, sections 512]."),
    SHARD,
    OME_ZARR,
    click.option("--grey", is_flag=True, help="Write the mean of red, green and blue, in one channel."),
    click.option("--background", type=WHOLE, default=0, metavar="V", help="Grey level outside the sections [0]."),
    click.option(
        "--atlas",
        metavar="ATLAS",
        help="Register the target as a template of this atlas of --layout assets: ROOT/atlases/NAME/VERSION, without "
        "a version the newest, or ROOT if it holds one.",
    ),
    FIELDS,
    WORKERS,
)


#: Options of `build` that an estimate of many section datasets does not know.
_UNESTIMATED = ("atlas", "detection_xy", "displacement", "plane")
#: Section datasets that cannot be built and are named with an estimate.
_MOST_FAILURES = 20


#: Of several section datasets.
REFINE = click.option(
    "--refine",
    metavar="ANNOTATION",
    help="Refine each dataset to this annotation first, see the command refine, into FIELDS/ID [ROOT/fields/ID].",
)


@click.command()
@click.argument("dataset_id", callback=as_id, required=False)
@options(*DATASETS, *CRITERIA, *BUILD, REFINE, STORE, *API, *CATALOGUE, *OUTPUT)
def plan(
    dataset_id: int | None,
    ids: str | None,
    gene: str | None,
    product: str | None,
    specimen: int | None,
    id: int | None,
    limit: int | None,
    refine: str | None,
    storage_options: dict[str, Any],
    as_json: bool,
    **values: Any,
) -> None:
    """Estimate the cost of a build; fetches metadata only, and the headers of slides from an --image-source.

    Without DATASET_ID, estimate the cost of building all section datasets of a file (--ids), or that match the gene,
    plane, product, specimen and id, up to a limit: with a catalogue from its tables, without one by the plan of each,
    whose records are requested.

    For instance: atlaszarr plan --catalogue mouse-catalogue --gene "Prox*"
    """
    criteria: dict[str, Any] = {"gene": gene, "product": product, "specimen": specimen, "id": id}
    if dataset_id is None:
        if ids is None:
            criteria["plane"] = values.pop("plane")
        print_estimate(ids, criteria, limit, refine, values, as_json)
        return
    if refine is not None:
        raise InputError(
            f"--refine is for several section datasets; run `atlaszarr refine {dataset_id} FIELDS --annotation "
            f"ANNOTATION`, then `atlaszarr plan {dataset_id} --fields FIELDS`",
            code="conflicting-options",
        )
    if given := sorted(given_options({**criteria, "ids": ids, "limit": limit})):
        raise InputError(
            f"--{given[0]} selects several section datasets; give it without the id {dataset_id}",
            code="conflicting-options",
        )
    _print_plans(dataset_id, None, storage_options, values, as_json)


def chosen(service: Any, ids: str | None, criteria: Mapping[str, Any], limit: int | None) -> Any:
    """The section datasets of `plan` and `batch`: the ids in a file, or the table of a search.

    Raises
    ------
    InputError
        If neither is given, or both are.
    """
    from ..allen.id_list import read_ids

    searched = any(value is not None for value in criteria.values())
    if searched and ids is not None:
        raise InputError("--ids contradicts the search options; give one of them", code="contradictory-options")
    if not searched and ids is None and service.catalogue is None:
        raise InputError(
            "no section datasets are chosen; give --ids FILE, a search option such as --gene, or --catalogue DIR",
            code="missing-value",
        )
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} must be at least 1", code="out-of-range")
    return service.search(**criteria, limit=limit) if ids is None else read_ids(ids)[:limit]


def print_estimate(
    ids: str | None,
    criteria: Mapping[str, Any],
    limit: int | None,
    refine: str | None,
    values: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Print what the builds of several section datasets cost together: `plan`, and ``batch --dry-run``."""
    from ..dataset_build.estimate import estimate, estimate_plans

    given = given_options(values)
    if not set(_UNESTIMATED).isdisjoint(given):
        name = next(name for name in _UNESTIMATED if name in given)
        raise InputError(
            f"--{name.replace('_', '-')} is not supported for an estimate; give the id of one section dataset",
            code="not-supported",
        )
    given.pop("workers", None)
    if given.pop("fields", None) is not None or refine is not None:
        say("the estimate is of sections at their recorded depths; give an id and --fields for an exact plan")
    with client() as service, progress_bars("plan") as progress:
        if service.catalogue is None:
            datasets = chosen(service, ids, criteria, limit)
            wanted = datasets.index.tolist() if ids is None else datasets
            found, failures = estimate_plans(service, wanted, progress=progress, **given)
            say(*failures[:_MOST_FAILURES])
            if len(failures) > _MOST_FAILURES:
                say(f"... and {len(failures) - _MOST_FAILURES} more cannot be built")
        else:
            if service.image_source is not None:
                say("the estimate is of images from the API, not from the image source; give an id for an exact plan")
            if ids is not None:
                criteria, limit = {"id": chosen(service, ids, criteria, limit)}, None
            found = estimate(service.catalogue, **criteria, limit=limit, **given)
    if refine is not None:
        found = found.refined(len(set(given["view"])))
    if as_json:
        echo_data(json.dumps(found.to_dict()))
    else:
        echo(*(line for line in table(None, found.describe())))


@click.command()
@click.argument("dataset_id", callback=as_id)
@click.argument("target")
@options(*BUILD, STORE, *WRITING)
@click.option("--allow-missing", is_flag=True, help="Finish the target although section images are missing.")
@click.option("--dry-run", is_flag=True, help="The same as `plan`.")
@options(*API, *CATALOGUE, *OUTPUT)
def build(
    dataset_id: int,
    target: str,
    storage_options: dict[str, Any],
    scheduler: str | None,
    allow_missing: bool,
    overwrite: bool,
    take_over: bool,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Build the registered multiscale OME-Zarr of a section dataset at TARGET, a path or URL.

    The same command resumes an interrupted build; with --overwrite it begins again. With --atlas, TARGET is the ROOT of
    its tree, for a default name, or ROOT/templates/NAME-template/VERSION/template.ome.zarr.

    For instance: atlaszarr build 74272479 nrp1.ome.zarr
    """
    from ..dataset_build.api import build as run_build
    from ..stores.locations import is_url

    if dry_run:
        _print_plans(dataset_id, target, storage_options, values, as_json)
        return 0
    resumable = "" if overwrite else "a build"
    with client() as service, progress_bars(f"dataset {dataset_id}", resumable=resumable) as progress:
        report = run_build(
            dataset_id,
            target,
            client=service,
            storage_options=storage_options,
            scheduler=scheduler,
            allow_missing=allow_missing,
            overwrite=overwrite,
            take_over=take_over,
            progress=progress,
            **given_options(values),
        )
    if as_json:
        echo_data(json.dumps(report.to_dict()))
    for view in report.views:
        missing = missing_lines(view.failures)
        if missing:
            hint = "; --allow-missing finishes without" if view.state == "unfinished" else ""
            missing.append(f"{len(missing)} of {view.plan.sections_used} section images are missing{hint}")
            say(*missing)
        if not as_json:
            echo(f"{view.state}: {view.target}")
            if view.asset:
                echo(f"registered: {view.asset} in {', '.join(view.listed_in)}")
            if view.state != "unfinished":
                image = view.target if values["mode"] == "volume" else f"{view.target}/0"
                echo(f"open it with: {_python_to_open(image, storage_options if is_url(image) else {})}")
    return 0 if report.ok else 1


def given_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value; the defaults of the others depend on the mode."""
    return {name: value for name, value in values.items() if value is not None and value is not False}


def _print_plans(
    dataset_id: int,
    target: str | None,
    storage_options: Mapping[str, Any],
    values: Mapping[str, Any],
    as_json: bool,
) -> None:
    from ..dataset_build.api import plan as make_plan

    with client() as service:
        plans = make_plan(dataset_id, target, client=service, storage_options=storage_options, **given_options(values))
    if as_json:
        echo_data(json.dumps([plan.to_dict() for plan in plans]))
    else:
        echo(*(line for plan in plans for line in table(None, plan.describe())))


def _python_to_open(url: str, storage_options: Mapping[str, Any]) -> str:
    """A line of Python that opens an OME-Zarr image, with the names of the storage options alone."""
    given = ", ".join(f"{json.dumps(name)}: ..." for name in storage_options)
    options = f", storage_options={{{given}}}" if given else ""
    return f"from ngff_zarr import from_ngff_zarr; from_ngff_zarr({json.dumps(url, ensure_ascii=False)}{options})"


@click.command()
@click.argument("target")
@click.option("--deep", is_flag=True, help="Validate the levels and labels of all blocks, not of a sample.")
@options(STORE, FORMAT)
def verify(target: str, deep: bool, storage_options: dict[str, Any], as_json: bool) -> int:
    """Validate the data and metadata at TARGET, a path or URL, and print a line for each defect.

    The command that built TARGET repairs the defects; those that only --deep finds need --overwrite.
    """
    from ..verification import verify as validate

    try:
        report = validate(target, deep=deep, storage_options=storage_options)
    except TargetError as error:
        raise InputError(str(error), code=error.code) from None  # exit code 2: not validated
    if as_json:
        echo_data(json.dumps(report.to_dict()))
        return 0 if report.ok else 1
    for defect in report.defects:
        echo(f"{defect.kind}: {defect}")
    found = "sound" if report.ok else "1 defect" if len(report.defects) == 1 else f"{len(report.defects)} defects"
    echo(f"{found}: {report.target} ({report.extent})")
    return 0 if report.ok else 1
