"""The commands: each parses, makes one call into the library, and shows what came of it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from ..errors import AtlaszarrError, InputError, NotFoundError, RecordError, ServiceError, TargetError
from ..stores.local import write_whole
from ..stores.locations import output_path
from .atlas import atlas
from .demo import demo
from .options import (
    API,
    BUILD,
    OUTPUT,
    STORE,
    as_id,
    build_options,
    client_for,
    numbers,
    options,
    storage_options,
)
from .preview import preview
from .terminal import (
    Terminal,
    leave,
    missing_lines,
    plans_text,
    printable,
    python_to_open,
    stopping_on_signals,
    table,
    warning_lines,
)
from .volumes import volumes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        0 done, 1 done with failures or failed, 2 wrong use or wrong input, 130 interrupted.
    """
    if sys.stdout is None:
        return _failed("standard output is closed; send it to a file or to /dev/null", 1)
    try:
        with stopping_on_signals(), warning_lines():
            return int(cli.main(arguments, "atlaszarr", standalone_mode=False) or 0)
    except click.ClickException as error:
        return _failed(error.format_message(), 2)
    except AtlaszarrError as error:
        return _failed(error, 2 if isinstance(error, InputError | NotFoundError | RecordError) else 1)
    except (KeyboardInterrupt, click.Abort):
        leave()
    except Exception as error:
        if isinstance(error, OSError) and _raised_by_echo(error):
            # Nothing may be flushed to it on the way out. A closed pipe never comes here: click ends quietly with 1.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _failed(f"cannot write to standard output: {error.strerror}; send it to another place", 1)
        blocks = [note for note in getattr(error, "__notes__", ()) if note.startswith("while making block")]
        if not blocks:
            raise
        return _failed(f"{type(error).__name__}: {error}; {blocks[0]}", 1)


def _failed(message: object, code: int) -> int:
    click.echo(f"atlaszarr: {printable(str(message))}", err=True)
    return code


def _raised_by_echo(error: OSError) -> bool:
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is click.echo.__code__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="atlaszarr")
def cli() -> None:
    """Allen Brain Atlas section datasets as registered, multiscale OME-Zarr."""


@cli.command()
@click.option("--gene", metavar="G", help="Acronym in any case; * stands for any characters.")
@click.option("--plane", metavar="coronal|sagittal", help="Plane of section.")
@click.option("--product", metavar="P", help="Abbreviation, for instance Mouse.")
@click.option("--specimen", callback=as_id, metavar="ID", help="Of the specimen cut.")
@click.option("--id", "id", callback=as_id, metavar="ID", help="Of a section dataset.")
@click.option("--images", is_flag=True, help="List their section images instead.")
@click.option("--limit", type=int, default=50, metavar="N", help="At most so many datasets [50].")
@options(*API, *OUTPUT)
def search(api_url: str | None, cache: str | None, as_json: bool, quiet: bool, verbose: bool, **criteria: Any) -> None:
    """List section datasets, or with --images their section images."""
    Terminal(quiet, verbose)
    with client_for(api_url, cache) as client:
        found = client.search(**criteria)
        if as_json:
            click.echo(found.reset_index().to_json(orient="records"))
        elif found.empty:
            click.echo("nothing matches")
        else:
            shown = found.astype(object).where(found.notna(), "")
            click.echo(table((found.index.name, *found.columns), shown.itertuples()))
        limit, total = criteria["limit"], found.attrs["datasets"]
        if total > limit:
            click.echo(f"{limit} of {total} datasets shown; --limit {total} lists all", err=True)
        if not total and criteria["gene"]:
            # The search itself is done: without the suggestion it is as good.
            with suppress(ServiceError):
                if similar := client.similar_gene(criteria["gene"]):
                    click.echo(f"did you mean {similar}?", err=True)


@cli.command()
@click.argument("dataset_id", callback=as_id)
@options(*API, *OUTPUT)
def info(dataset_id: int, api_url: str | None, cache: str | None, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Describe one section dataset, and say what it lacks."""
    from .info import summary

    Terminal(quiet, verbose)
    with client_for(api_url, cache) as client:
        facts = summary(client.section_dataset(dataset_id))
    if as_json:
        click.echo(json.dumps(facts))
        return
    skipped = facts.pop("skipped")
    shown = [(name, ", ".join(map(str, value)) if isinstance(value, list) else value) for name, value in facts.items()]
    click.echo(table(None, shown))
    for section in skipped:
        click.echo(f"skipped: {printable(section['reason'])}")


@cli.command()
@click.argument("image_id", callback=as_id)
@click.argument("out", required=False)
@click.option("--downsample", type=int, default=0, metavar="N", help="Tier: every step halves [0].")
@click.option("--view", metavar="expression|projection", help="A mask instead.")
@click.option("--roi", metavar="LEFT,TOP,WIDTH,HEIGHT", help="Corner in full-resolution pixels, size in tier pixels.")
@click.option("--range", "limits", metavar="R0,R1,G0,G1,B0,B1", help="Limits of a fluorescence image, 0 to 4095.")
@click.option("--quality", type=int, metavar="N", help="JPEG quality, 0 to 100.")
@options(*API, *OUTPUT)
def image(
    image_id: int,
    out: str | None,
    downsample: int,
    view: str | None,
    roi: str | None,
    limits: str | None,
    quality: int | None,
    api_url: str | None,
    cache: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Save one section image, as the JPEG that the service serves."""
    Terminal(quiet, verbose)
    path = output_path(out or f"{image_id}.jpg")
    if path.suffix.lower() not in (".jpg", ".jpeg") or path.is_dir():
        raise InputError(f"output {str(path)!r} must be a file ending in .jpg: the image is kept as it is served")
    if not path.parent.is_dir():
        raise InputError(f"output {str(path)!r} lies in a folder that is not there; make it first")
    region, range = numbers(roi, "roi", 4), numbers(limits, "range", 6)
    with client_for(api_url, cache) as client:
        request = client.image_request(image_id, downsample, view, region, quality, range)
        body = client.fetch(request).body
    write_whole(path, body)
    if as_json:
        click.echo(json.dumps({"path": str(path), "width": request.width, "height": request.height}))
    else:
        click.echo(f"{path}: {request.width} x {request.height} pixels")


@cli.command()
@click.argument("dataset_id", callback=as_id)
@options(*BUILD, *API, *OUTPUT)
def plan(
    dataset_id: int, api_url: str | None, cache: str | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Say what a build will cost, fetching nothing but metadata."""
    from ..dataset_build.api import plan as make_plan

    Terminal(quiet, verbose)
    with client_for(api_url, cache) as client:
        plans = make_plan(dataset_id, client=client, **build_options(values))
    click.echo(plans_text(plans, as_json))


@cli.command()
@click.argument("dataset_id", callback=as_id)
@click.argument("target")
@options(*BUILD, *STORE)
@click.option("--scheduler", metavar="ADDRESS", help="Of a dask.distributed scheduler, or: processes [threads].")
@click.option("--allow-missing", is_flag=True, help="Finish although section images cannot be had.")
@click.option("--overwrite", is_flag=True, help="Replace what another build left at TARGET.")
@click.option("--take-over", is_flag=True, help="Build although another build seems to be under way in TARGET.")
@click.option("--dry-run", is_flag=True, help="The same as `plan`.")
@options(*API, *OUTPUT)
def build(
    dataset_id: int,
    target: str,
    storage_option: tuple[str, ...],
    scheduler: str | None,
    allow_missing: bool,
    overwrite: bool,
    take_over: bool,
    dry_run: bool,
    api_url: str | None,
    cache: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **values: Any,
) -> int:
    """Build the registered multiscale OME-Zarr of a section dataset at TARGET, a path or URL.

    A build that was stopped goes on when the same command is given again.
    For instance: atlaszarr build 74272479 nrp1.ome.zarr
    """
    from ..dataset_build.api import build as run_build
    from ..dataset_build.api import plan as make_plan

    terminal = Terminal(quiet, verbose)
    chosen, place = build_options(values), storage_options(storage_option)
    with client_for(api_url, cache) as client:
        if dry_run:
            plans = make_plan(dataset_id, target, client=client, **chosen)
            click.echo(plans_text(plans, as_json))
            return 0
        with terminal.progress(f"dataset {dataset_id}") as progress:
            report = run_build(
                dataset_id,
                target,
                client=client,
                storage_options=place,
                scheduler=scheduler,
                allow_missing=allow_missing,
                overwrite=overwrite,
                take_over=take_over,
                progress=progress,
                **chosen,
            )
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    for view in report.views:
        missing = missing_lines(view.failures)
        if missing:
            hint = "; --allow-missing finishes without" if view.state == "unfinished" else ""
            missing.append(f"{len(missing)} of {view.plan.sections_used} section images are missing{hint}")
            click.echo("\n".join(missing), err=True)
        if not as_json:
            click.echo(f"{view.state}: {view.target}")
            if view.state != "unfinished":
                image = view.target if values["mode"] == "volume" else f"{view.target}/0"
                click.echo(f"open it with: {python_to_open(image, place)}")
    return 0 if report.ok else 1


@cli.command()
@click.argument("target")
@click.option("--deep", is_flag=True, help="Compare the levels and labels of all blocks, not of a sample.")
@options(*STORE, OUTPUT[0])
def verify(target: str, deep: bool, storage_option: tuple[str, ...], as_json: bool) -> int:
    """Check what TARGET, a path or URL, holds against what it says it holds; each defect is a line.

    A build with the same command mends them.
    """
    from ..verification import verify as check

    try:
        report = check(target, deep=deep, storage_options=storage_options(storage_option))
    except TargetError as error:
        raise InputError(str(error)) from None  # could not look
    if as_json:
        click.echo(json.dumps(report.to_dict()))
        return 0 if report.ok else 1
    for defect in report.defects:
        click.echo(f"{defect.kind}: {printable(str(defect))}")
    found = f"{len(report.defects)} defects" if report.defects else "sound"
    click.echo(f"{found}: {report.target} ({report.objects:,} objects, the levels of {report.blocks:,} blocks)")
    return 0 if report.ok else 1


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, metavar="N", help="On 127.0.0.1 [8000].")
@click.option("--faults", metavar="FILE", help="JSON of scripted faults.")
@click.option("-v", "--verbose", is_flag=True, help="A line per request, on stderr.")
def emulator(port: int, faults: str | None, verbose: bool) -> None:
    """Serve the built-in Allen API until interrupted."""
    from ..testing.emulator import serve

    try:
        serve(port, faults or (), lambda url: click.echo(f"the Allen API answers at {url}"), access_log=verbose)
    except OSError as error:
        raise InputError(f"port {port} cannot be served: {error.strerror}; choose another") from None


cli.add_command(atlas)
cli.add_command(demo)
cli.add_command(preview)
cli.add_command(volumes)
