"""The commands: each parses, makes one call into the library, and shows what came of it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from .display import Terminal, table
from .errors import AtlaszarrError, InputError, NotFoundError, RecordError

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        0 done, 1 done with failures or failed, 2 wrong use or wrong input, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(cli.main(arguments, "atlaszarr", standalone_mode=False) or 0)
    except click.ClickException as error:
        click.echo(f"atlaszarr: {error.format_message()}", err=True)
        return 2
    except (InputError, NotFoundError, RecordError) as error:
        click.echo(f"atlaszarr: {error}", err=True)
        return 2
    except AtlaszarrError as error:
        click.echo(f"atlaszarr: {error}", err=True)
        return 1
    except BrokenPipeError:
        # The reader of the output has seen enough; nothing may be flushed to it on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort):
        click.echo("atlaszarr: interrupted; the same command goes on from here", err=True)
        # A request may still be waiting for its answer, and would keep the process alive until it came.
        sys.stdout.flush()
        os._exit(_INTERRUPTED)


class _Identifier(click.ParamType):
    """An id of the Allen API."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002
        from .allen.rma import identifier

        return identifier(value)


_ID = _Identifier()


def _options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and nothing else there."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option("-v", "--verbose", is_flag=True, help="Tell what is retried, on stderr."),
)
_API = (
    click.option("--api-url", metavar="URL", help="The Allen API, ending in /api/v2 [env: ATLASZARR_API_URL]."),
    click.option("--cache", metavar="DIR|none", help="Where section images are kept [env: ATLASZARR_CACHE]."),
)
_VOLUME = (
    click.option("--resolution", type=float, default=25.0, metavar="UM", help="Voxel size [25]."),
    click.option("--fill", default="nearest", help="none, nearest or linear: what fills the gaps between sections."),
    click.option("--interpolation", default="linear", help="Within a section image: nearest or linear."),
    click.option("--view", multiple=True, default=("primary",), help="primary or expression; repeatable."),
    click.option("--downsample", default="auto", metavar="auto|N", help="Tier of the section images."),
    click.option("--space", default="auto", metavar="auto|9|10|native", help="Reference space of the output."),
    click.option("--r-extent", type=float, metavar="UM", help="r onto which r = 0 is mirrored [11400]."),
    click.option("--range", "limits", metavar="R0,R1,G0,G1,B0,B1", help="Limits of fluorescence images, 0 to 4095."),
    click.option("--quality", type=int, metavar="N", help="JPEG quality asked of the service, 0 to 100."),
    click.option("--levels", default="auto", metavar="auto|N", help="Levels of the pyramid."),
    click.option("--chunk", type=int, default=64, metavar="N", help="Side of a chunk in voxels [64]."),
    click.option("--background", type=int, default=0, metavar="V", help="Grey level where no section is [0]."),
    click.option("--workers", type=int, metavar="N", help="Local threads [one a core]."),
)


def _client(api_url: str | None, cache: str | None) -> Any:
    from .allen.client import AllenClient

    return AllenClient(api_url, cache)


def _numbers(text: str | None, name: str, count: int) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise InputError(f"{name} {text!r} is not {count} whole numbers separated by commas")
    return numbers


def _whole(text: str, name: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name} {text!r} is neither auto nor a whole number") from None


def _volume_options(options: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `build` and `plan` among parsed options."""
    if options["workers"] is not None and options["workers"] < 1:
        raise InputError(f"workers {options['workers']} must be at least 1")
    names = ("resolution", "fill", "interpolation", "space", "r_extent", "quality", "chunk", "background", "workers")
    return {
        **{name: options[name] for name in names},
        "view": options["view"],
        "range": _numbers(options["limits"], "range", 6),
        "downsample": _whole(options["downsample"], "downsample"),
        "levels": _whole(options["levels"], "levels"),
    }


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="atlaszarr")
def cli() -> None:
    """Allen Brain Atlas section datasets as registered, multiscale OME-Zarr."""


@cli.command()
@click.argument("folder", metavar="[DIR]", default="atlaszarr-demo")
@_options(*_OUTPUT)
def demo(folder: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Do the whole main job on the built-in Allen API, into DIR [./atlaszarr-demo]."""
    from .demo import run_demo

    terminal = Terminal(quiet, verbose)
    with terminal.progress("demo") as progress:
        report = run_demo(folder, progress)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
        return
    click.echo(f"{report.state}: {report.target}, from {report.requests} section images of a phantom brain")
    click.echo("read back and validated by ngff-zarr:")
    rows = [
        (level, " x ".join(map(str, shape)), f"{scale:g}", f"{origin:g}")
        for level, (shape, scale, origin) in enumerate(report.levels)
    ]
    click.echo(table(("level", "shape (c, z, y, x)", "voxel mm", "origin mm"), rows))
    click.echo(f"mean difference from the phantom's closed form: {report.error:.2f} of 255 grey levels")
    click.echo(f"three slices: {report.picture}")


@cli.command()
@click.option("--gene", metavar="G", help="Acronym; * stands for any characters.")
@click.option("--plane", metavar="coronal|sagittal", help="Plane of section.")
@click.option("--product", metavar="P", help="Abbreviation, for instance Mouse.")
@click.option("--specimen", type=_ID, metavar="ID")
@click.option("--id", "id", type=_ID, metavar="ID", help="Of a section dataset.")
@click.option("--images", is_flag=True, help="List their section images instead.")
@click.option("--limit", type=int, default=50, metavar="N", help="At most so many datasets [50].")
@_options(*_API, *_OUTPUT)
def search(api_url: str | None, cache: str | None, as_json: bool, quiet: bool, verbose: bool, **criteria: Any) -> None:
    """List section datasets, or with --images their section images."""
    Terminal(quiet, verbose)
    with _client(api_url, cache) as client:
        found = client.search(**criteria)
    if as_json:
        click.echo(found.reset_index().to_json(orient="records"))
    elif found.empty:
        click.echo("nothing matches")
    else:
        click.echo(table((found.index.name, *found.columns), found.itertuples()))


@cli.command()
@click.argument("dataset_id", type=_ID)
@_options(*_API, *_OUTPUT)
def info(dataset_id: int, api_url: str | None, cache: str | None, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Describe one section dataset, and say what it lacks."""
    from .summary import summary

    Terminal(quiet, verbose)
    with _client(api_url, cache) as client:
        facts = summary(client.section_dataset(dataset_id))
    if as_json:
        click.echo(json.dumps(facts))
        return
    skipped = facts.pop("skipped")
    shown = [(name, ", ".join(map(str, value)) if isinstance(value, list) else value) for name, value in facts.items()]
    click.echo(table(None, shown))
    for section in skipped:
        click.echo(f"skipped: {section['reason']}")


@cli.command()
@click.argument("image_id", type=_ID)
@click.argument("out", required=False)
@click.option("--downsample", type=int, default=0, metavar="N", help="Tier: every step halves [0].")
@click.option("--view", metavar="expression", help="The expression mask instead.")
@click.option("--roi", metavar="LEFT,TOP,WIDTH,HEIGHT", help="Corner in full-resolution pixels, size in tier pixels.")
@click.option("--range", "limits", metavar="R0,R1,G0,G1,B0,B1", help="Limits of a fluorescence image, 0 to 4095.")
@click.option("--quality", type=int, metavar="N", help="JPEG quality, 0 to 100.")
@_options(*_API, *_OUTPUT)
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
    path = Path(out or f"{image_id}.jpg")
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        raise InputError(f"output {str(path)!r} must end in .jpg: the image is kept as the service serves it")
    if not path.parent.is_dir():
        raise InputError(f"output {str(path)!r} lies in a folder that is not there; make it first")
    region, range = _numbers(roi, "roi", 4), _numbers(limits, "range", 6)
    with _client(api_url, cache) as client:
        request = client.image_request(image_id, downsample, view, region, quality, range)
        path.write_bytes(client.fetch(request).body)
    if as_json:
        click.echo(json.dumps({"path": str(path), "width": request.width, "height": request.height}))
    else:
        click.echo(f"{path}: {request.width} x {request.height} pixels")


@cli.command()
@click.argument("dataset_id", type=_ID)
@_options(*_VOLUME, *_API, *_OUTPUT)
def plan(
    dataset_id: int, api_url: str | None, cache: str | None, as_json: bool, quiet: bool, verbose: bool, **options: Any
) -> None:
    """Say what a build will cost, fetching nothing but metadata."""
    from .building import plan as make_plan

    Terminal(quiet, verbose)
    with _client(api_url, cache) as client:
        plans = make_plan(dataset_id, client=client, **_volume_options(options))
    _show_plans(plans, as_json)


@cli.command()
@click.argument("dataset_id", type=_ID)
@click.argument("target")
@_options(*_VOLUME)
@click.option("--storage-option", multiple=True, metavar="KEY=VALUE", help="To fsspec; JSON or text; repeatable.")
@click.option("--scheduler", metavar="ADDRESS", help="Of a dask.distributed scheduler, instead of local threads.")
@click.option("--allow-missing", is_flag=True, help="Finish although section images cannot be had.")
@click.option("--overwrite", is_flag=True, help="Replace what another build left at TARGET.")
@click.option("--dry-run", is_flag=True, help="The same as `plan`.")
@_options(*_API, *_OUTPUT)
def build(
    dataset_id: int,
    target: str,
    storage_option: tuple[str, ...],
    scheduler: str | None,
    allow_missing: bool,
    overwrite: bool,
    dry_run: bool,
    api_url: str | None,
    cache: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """Build the registered multiscale OME-Zarr of a section dataset at TARGET, a path or URL."""
    from .building import build as run_build
    from .building import plan as make_plan

    terminal = Terminal(quiet, verbose)
    volume = _volume_options(options)
    with _client(api_url, cache) as client:
        if dry_run:
            _show_plans(make_plan(dataset_id, target, client=client, **volume), as_json)
            return 0
        with terminal.progress(f"dataset {dataset_id}") as progress:
            report = run_build(
                dataset_id,
                target,
                client=client,
                storage_options=_storage_options(storage_option),
                scheduler=scheduler,
                allow_missing=allow_missing,
                overwrite=overwrite,
                progress=progress,
                **volume,
            )
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    for view in report.views:
        for failure in view.failures:
            click.echo(f"missing: section image {failure.request.image_id}: {failure.reason}", err=True)
        if view.failures:
            hint = "; --allow-missing finishes without" if view.state == "unfinished" else ""
            click.echo(f"{len(view.failures)} of {view.plan.sections_used} section images are missing{hint}", err=True)
        if not as_json:
            click.echo(f"{view.state}: {view.target}")
    return 0 if report.ok else 1


@cli.command()
@click.option("--port", type=int, default=8000, metavar="N", help="On 127.0.0.1 [8000].")
@click.option("--faults", metavar="FILE", help="JSON of scripted faults.")
@click.option("-v", "--verbose", is_flag=True, help="A line per request, on stderr.")
def emulator(port: int, faults: str | None, verbose: bool) -> None:
    """Serve the built-in Allen API until interrupted."""
    from .testing.emulator import serve

    serve(port, faults or (), lambda url: click.echo(f"the Allen API answers at {url}"), access_log=verbose)


def _show_plans(plans: Sequence[Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([plan.to_dict() for plan in plans]))
        return
    for plan in plans:
        click.echo(table(None, plan.describe()))


def _storage_options(pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"storage option {key!r} has no value; write KEY=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options
