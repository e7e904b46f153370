"""The options that several commands share, and how their texts are parsed.

Options of the run (the API, the cache, quiet) stay in the click context, from which `client` and `terminal.is_quiet`
read them; the commands receive all others.
"""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import InputError, brief, printable
from ..geometry import voxel_size
from ..stores.documents import parse

_Callback = Callable[[click.Context, click.Parameter, Any], Any]
#: As in `voxel_size.NUMBER`. 18 digits fit in 64 bits.
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


class Whole(click.types.IntParamType):
    """Click type of a whole number, in a range if one is given."""

    def __init__(self, low: int | None = None, high: int | None = None) -> None:
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Same as in click, for ASCII digits."""
        if isinstance(value, str) and not _WHOLE.fullmatch(value):
            self.fail(f"{brief(value)} is not a whole number.", param, ctx)
        number = super().convert(value, param, ctx)
        if (self._low is not None and number < self._low) or (self._high is not None and number > self._high):
            self.fail(f"{number} is not between {self._low} and {self._high}.", param, ctx)
        return number


class Number(click.types.FloatParamType):
    """Click type of a finite number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Same as in click, for finite numbers in ASCII digits."""
        if isinstance(value, str) and not (voxel_size.NUMBER.fullmatch(value) and math.isfinite(float(value))):
            self.fail(f"{brief(value)} is not a number.", param, ctx)
        return super().convert(value, param, ctx)


class Text(click.types.StringParamType):
    """Click type of text that is not blank."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Same as in click, for text that is not blank."""
        text = super().convert(value, param, ctx)
        if not text.strip():
            self.fail("it is empty; give a value.", param, ctx)
        return text


WHOLE = Whole()
NUMBER = Number()


def options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Several click options as one decorator."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def as_id(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Click callback: parse an id of the Allen API."""
    from ..allen.rma import identifier

    return None if text is None else identifier(text)


def as_numbers(count: int) -> _Callback:
    """Return a click callback that parses exactly `count` whole numbers separated by commas."""

    def parse(_context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
        if text is None:
            return None
        try:
            found = tuple(_whole(part.strip()) for part in text.split(","))
        except ValueError:
            found = ()
        if len(found) != count:
            message = f"{_name(parameter)} {brief(text)} is not {count} whole numbers separated by commas"
            raise InputError(message, code="invalid-value")
        return found

    return parse


def as_lengths(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> tuple[float, float, float] | None:
    """Click callback: parse a voxel size, one positive length in um or three along z, y, x separated by commas."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    try:
        if all(map(voxel_size.NUMBER.fullmatch, parts)):
            return voxel_size.lengths_of([float(part) for part in parts])
    except InputError:
        pass
    raise voxel_size.invalid(text)


def as_number_or_auto(_context: click.Context, parameter: click.Parameter, text: str) -> int | None:
    """Click callback: parse a whole number, or ``auto`` as None."""
    try:
        return None if text == "auto" else _whole(text)
    except ValueError:
        message = f"{_name(parameter)} {brief(text)} is neither auto nor a whole number"
        raise InputError(message, code="invalid-value") from None


def as_mapping(_context: click.Context, parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """Click callback: parse KEY=VALUE pairs, each value a JSON object, list or constant, or else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{_name(parameter)} {brief(key)} has no value; write KEY=VALUE", code="missing-value")
        try:
            # A number stays text: it may be a password.
            structured = value.startswith(("{", "[")) or value in ("true", "false", "null")
            found[key] = parse(value) if structured else value
        except ValueError:
            message = f"{_name(parameter)} {brief(key)} begins like JSON but is not valid JSON"
            raise InputError(message, code="not-json") from None
    return found


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _name(parameter: click.Parameter) -> str:
    return parameter.opts[0].strip("-").replace("-", " ")


def _keep(parse: _Callback = lambda _context, _parameter, value: value) -> dict[str, Any]:
    """Arguments of a click option whose value is stored in the context."""

    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        context.meta[f"atlaszarr.{parameter.name}"] = parse(context, parameter, value)

    return {"callback": keep, "expose_value": False}


def _kept(name: str, default: Any = None) -> Any:
    return click.get_current_context().meta.get(f"atlaszarr.{name}", default)


def client() -> Any:
    """The client that the options of `API`, `IMAGES` and `CATALOGUE` describe, as far as the command has them."""
    from ..allen.client import AllenClient

    return AllenClient(
        _kept("api_url"),
        _kept("cache"),
        cache_options=_kept("cache_option"),
        image_source=_kept("image_source", "api"),
        image_source_options=_kept("image_source_option"),
        catalogue=_kept("catalogue"),
        catalogue_options=_kept("catalogue_option"),
    )


class _PrintableFormatter(logging.Formatter):
    """Log records as printable lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Same as in `logging.Formatter`."""
        return "\n".join(map(printable, super().format(record).split("\n")))


def _configure_logging(_context: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
    level = logging.INFO if verbose else logging.ERROR
    lines = logging.StreamHandler(sys.stderr)
    # Of a scheduler that is lost, distributed prints tracebacks; the error of the command is one sentence.
    lines.addFilter(lambda record: verbose or not record.name.startswith("distributed"))
    lines.setFormatter(_PrintableFormatter("%(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[lines])


def format_options(*forms: str) -> Callable[..., Any]:
    """Return the options ``--format`` with these forms, the first by default, and ``--json``.

    The command receives `as_json`, and `form` if there are more than two forms.
    """

    def note(context: click.Context, _: click.Parameter, form: str | None) -> str:
        context.meta[__name__] = form
        return form or forms[0]

    def as_json(context: click.Context, _: click.Parameter, given: bool) -> bool:
        form = context.meta[__name__]
        if given and form not in (None, "json"):
            raise InputError(f"--json contradicts --format {form}; give one of them", code="contradictory-options")
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
            "--json",
            "as_json",
            is_flag=True,
            callback=as_json,
            help="The same as --format json: only JSON on stdout, errors too.",
        ),
    )


#: The options of the commands that print a table of regions, for `regions.tables.Selection`.
ROWS = (
    click.option(
        "--region",
        "regions",
        multiple=True,
        metavar="ACRONYM",
        help="Print this region only, by acronym, name or id, or with --leaves or --depth its parts; repeatable [all].",
    ),
    click.option(
        "--sort", metavar="COLUMN", help="Print the largest first, by a column such as mm3 or density [tree order]."
    ),
    click.option("--top", type=WHOLE, metavar="N", help="With --sort: print the first N regions only [all]."),
    click.option("--leaves", is_flag=True, help="Print only regions that are not divided further in the annotation."),
    click.option("--depth", type=WHOLE, metavar="N", help="Print only regions N steps below the root of the tree."),
)
PICTURE = click.option("--picture", metavar="PNG", help="Also draw the largest regions as bars: a .png or .svg file.")
FORMAT = format_options("text", "json")
MESSAGES = (
    click.option("-q", "--quiet", is_flag=True, **_keep(), help="No progress."),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        callback=_configure_logging,
        expose_value=False,
        help="Report retries on stderr.",
    ),
)
OUTPUT = (FORMAT, *MESSAGES)
API = (
    click.option("--api-url", metavar="URL", **_keep(), help="Allen API, ending in /api/v2 [env: ATLASZARR_API_URL]."),
    click.option(
        "--cache", metavar="DIR|none", **_keep(), help="Folder or URL for section images [env: ATLASZARR_CACHE]."
    ),
    click.option(
        "--cache-option",
        multiple=True,
        metavar="KEY=VALUE",
        **_keep(as_mapping),
        help="Storage option of a --cache URL; repeatable.",
    ),
)
#: Options of the commands that read section images.
IMAGES = (
    click.option(
        "--image-source",
        default="api",
        metavar="api|URL",
        **_keep(),
        help="Where section images come from: api, or a folder or URL with slides, such as the Allen Institute's "
        "open-data bucket s3://allen-mouse-brain-atlas [api].",
    ),
    click.option(
        "--image-source-option",
        multiple=True,
        metavar="KEY=VALUE",
        **_keep(as_mapping),
        help="Storage option of an --image-source URL; repeatable.",
    ),
)
CATALOGUE = (
    click.option(
        "--catalogue",
        metavar="DIR",
        **_keep(),
        help="Read all records from this catalogue, a folder or URL of `catalogue`, and none from the API.",
    ),
    click.option(
        "--catalogue-option",
        multiple=True,
        metavar="KEY=VALUE",
        **_keep(as_mapping),
        help="Storage option of a --catalogue URL; repeatable.",
    ),
)
#: The section datasets of `plan` and `batch`: a list of ids, or the criteria of a search, but for the plane.
DATASETS = (
    click.option(
        "--ids", metavar="FILE", help="The ids in a file, one a line, or the first column of a CSV file; - is stdin."
    ),
    click.option("--limit", type=WHOLE, metavar="N", help="Largest number of section datasets [all]."),
)
#: Criteria of a search, but for the plane.
CRITERIA = (
    click.option("--gene", metavar="G", help="Acronym in any case; * stands for any characters."),
    click.option("--product", metavar="P", help="Abbreviation of a product, for instance Mouse."),
    click.option("--specimen", callback=as_id, metavar="ID", help="Id of a specimen."),
    click.option("--id", "id", callback=as_id, metavar="ID", help="Id of a section dataset."),
)
STORE = click.option(
    "--storage-option",
    "storage_options",
    multiple=True,
    metavar="KEY=VALUE",
    callback=as_mapping,
    help="Option of the store; JSON or text; repeatable.",
)


def _refuse_removed(_context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from ..sections.options import REMOVED_OPTIONS

        message = f"option {parameter.opts[0]} no longer exists: {REMOVED_OPTIONS[str(parameter.name)]}"
        raise InputError(message, code="removed-option")


MIRROR = (
    click.option("--mirror", is_flag=True, help="Mirror left to right: r becomes 11400 - r, for P56 data."),
    click.option("--space", callback=_refuse_removed, expose_value=False, hidden=True),
    click.option("--r-extent", callback=_refuse_removed, expose_value=False, hidden=True),
)
FIELDS = click.option(
    "--fields",
    metavar="FIELDS",
    help="Register sections by the refinement that `refine` wrote to this folder, path or URL; of many datasets, by "
    "those in FIELDS/ID.",
)
SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="Address of a dask.distributed scheduler, or threads [threads]."
)
#: Options of writing, of `build` and `atlas`.
WRITING = (
    SCHEDULER,
    click.option("--overwrite", is_flag=True, help="Replace a target that was built with other options."),
    click.option("--take-over", is_flag=True, help="Build although another build may be running in TARGET."),
)
#: z, y, x are the axes of the result, whatever their order in the file.
VOXEL_SIZE = click.option(
    "--voxel-size",
    metavar="UM[,UM,UM]",
    callback=as_lengths,
    help="Voxel size in um, or three along z, y, x (anterior-posterior, superior-inferior, left-right), for what the "
    "metadata lack or have wrong [from the metadata].",
)
WORKERS = click.option("--workers", type=WHOLE, metavar="N", help="Local threads [one per core].")
SHARD = click.option(
    "--shard",
    type=WHOLE,
    metavar="N",
    help="Side of a shard in voxels, a multiple of the chunk; smaller at coarser levels [none].",
)
OME_ZARR = click.option("--ome-zarr", default="0.5", metavar="0.4|0.5|0.6", help="Version of OME-Zarr [0.5].")
