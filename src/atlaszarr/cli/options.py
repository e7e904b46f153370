"""The options that several commands share, and what their texts mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import InputError

_CACHE_OPTIONS = "atlaszarr.cache_options"


def as_id(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Parse an id of the Allen API: a click callback."""
    from ..allen.rma import identifier

    return None if text is None else identifier(text)


def options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Several click options as one decorator."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _keep_cache_options(context: click.Context, _parameter: click.Parameter, pairs: tuple[str, ...]) -> None:
    """Keep the cache options where `client_for` reads them: a click callback."""
    context.meta[_CACHE_OPTIONS] = storage_options(pairs, "cache option")


def format_options(*forms: str) -> Callable[..., Any]:
    """``--format`` with these forms, the first by default, and ``--json``, which is ``--format json``.

    The command takes `as_json`; and `form` if there are more forms than two.
    """

    def note(context: click.Context, _: click.Parameter, form: str | None) -> str:
        context.meta[__name__] = form
        return form or forms[0]

    def as_json(context: click.Context, _: click.Parameter, given: bool) -> bool:
        form = context.meta[__name__]
        if given and form not in (None, "json"):
            raise InputError(f"--json contradicts --format {form}; give one of them")
        return given or form == "json"

    return options(
        click.option(
            "--format",
            "form",
            type=click.Choice(forms),
            metavar="FORM",
            callback=note,
            is_eager=True,  # before --json, whose callback reads it
            expose_value=len(forms) > 2,
            help=f"Print the result as {', '.join(forms[:-1])} or {forms[-1]} [{forms[0]}].",
        ),
        click.option(
            "--json", "as_json", is_flag=True, callback=as_json, help="The same as --format json: only JSON on stdout."
        ),
    )


OUTPUT = (
    format_options("text", "json"),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option("-v", "--verbose", is_flag=True, help="Tell what is retried, on stderr."),
)
API = (
    click.option("--api-url", metavar="URL", help="The Allen API, ending in /api/v2 [env: ATLASZARR_API_URL]."),
    click.option("--cache", metavar="DIR|none", help="Folder or URL for section images [env: ATLASZARR_CACHE]."),
    click.option(
        "--cache-option",
        multiple=True,
        metavar="KEY=VALUE",
        expose_value=False,
        callback=_keep_cache_options,
        help="Storage option of a --cache URL; repeatable.",
    ),
)
STORE = (
    click.option("--storage-option", multiple=True, metavar="KEY=VALUE", help="To fsspec; JSON or text; repeatable."),
)


def _gone(_context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from ..sections.options import GONE

        raise InputError(f"option {parameter.opts[0]} no longer exists: {GONE[str(parameter.name)]}")


MIRROR = (
    click.option("--mirror", is_flag=True, help="Lay left on right: r becomes 11400 - r, of P56 data."),
    click.option("--space", callback=_gone, expose_value=False, hidden=True),
    click.option("--r-extent", callback=_gone, expose_value=False, hidden=True),
)
#: Of `build` and `plan`; those without a default are of one mode, or have another default in each.
BUILD = (
    click.option("--mode", default="volume", metavar="volume|sections", help="One image, or one a section [volume]."),
    click.option("--resolution", type=float, default=25.0, metavar="UM", help="Voxel size [25]."),
    click.option("--fill", metavar="none|nearest|linear", help="Between sections, in a volume [nearest]."),
    click.option(
        "--max-gap",
        type=float,
        metavar="N",
        help="Widest gap between two sections to fill, in nominal intervals, their most common step [2.5].",
    ),
    click.option(
        "--interpolation",
        default="linear",
        metavar="NAME",
        help="Within an image: nearest, linear, cubic or lanczos [linear].",
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
        help="Of sections: coronal, sagittal, transverse (or horizontal) [as they were cut].",
    ),
    click.option(
        "--detection-xy",
        metavar="X,Y|centre",
        help="Pixel of the images, of full resolution, at which sections take their slice coordinate [0,0].",
    ),
    click.option("--displacement", is_flag=True, help="Write the displacement fields of sections too."),
    click.option("--downsample", default="auto", metavar="auto|N", help="Tier of the section images [auto]."),
    *MIRROR,
    click.option("--range", "limits", metavar="R0,R1,G0,G1,B0,B1", help="Limits of fluorescence images, 0 to 4095."),
    click.option("--quality", type=int, metavar="N", help="JPEG quality asked of the service, 0 to 100."),
    click.option("--levels", default="auto", metavar="auto|N", help="Levels of the pyramid [auto]."),
    click.option("--chunk", type=int, metavar="N", help="Side of a chunk in voxels [volume 64, sections 512]."),
    click.option(
        "--shard", type=int, metavar="N", help="Side of a shard, whole chunks; coarser levels' shrink [none]."
    ),
    click.option("--ome-zarr", default="0.5", metavar="0.4|0.5|0.6", help="Version of OME-Zarr [0.5]."),
    click.option("--background", type=int, default=0, metavar="V", help="Grey level where no section is [0]."),
    click.option("--workers", type=int, metavar="N", help="Local threads [one a core]."),
)


def client_for(api_url: str | None, cache: str | None) -> Any:
    """The client that the options of `API` ask for."""
    from ..allen.client import AllenClient

    return AllenClient(api_url, cache, cache_options=click.get_current_context().meta[_CACHE_OPTIONS])


def numbers(text: str | None, name: str, count: int) -> tuple[int, ...] | None:
    """Whole numbers separated by commas, exactly `count` of them."""
    if text is None:
        return None
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise InputError(f"{name} {text!r} is not {count} whole numbers separated by commas")
    return found


def _whole(text: str, name: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name} {text!r} is neither auto nor a whole number") from None


def build_options(values: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `build` and `plan` among parsed options; what was not given is left to its mode."""
    parsed = {"limits", "downsample", "levels", "displacement"}
    given = {name: value for name, value in values.items() if name not in parsed}
    for name in ("fill", "max_gap", "chunk", "plane", "detection_xy"):
        if given[name] is None:
            del given[name]
    if values["displacement"]:
        given["displacement"] = True
    return {
        **given,
        "range": numbers(values["limits"], "range", 6),
        "downsample": _whole(values["downsample"], "downsample"),
        "levels": _whole(values["levels"], "levels"),
    }


def storage_options(pairs: Sequence[str], name: str = "storage option") -> dict[str, Any]:
    """KEY=VALUE pairs as options to fsspec: a value is a JSON object, list or constant, or else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{name} {key!r} has no value; write KEY=VALUE")
        try:
            # A number stays text: it may well be a password.
            structured = value.startswith(("{", "[")) or value in ("true", "false", "null")
            found[key] = json.loads(value) if structured else value
        except ValueError:
            raise InputError(f"{name} {key!r} begins like JSON but is not valid JSON") from None
    return found
