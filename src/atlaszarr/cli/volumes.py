"""The command `volumes`."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from ..errors import InputError
from .options import MESSAGES, PICTURE, ROWS, SCHEDULER, STORE, VOXEL_SIZE, WHOLE, format_options, options
from .terminal import echo, echo_data, say


@click.command()
@click.argument("annotation")
@click.option("--terminology", metavar="CSV", help="Any terminology, path or URL [by manifest, or next to ANNOTATION].")
@options(*ROWS)
@click.option("--level", type=WHOLE, default=0, metavar="N", help="Level of the annotation [0].")
@click.option("--by-hemisphere", is_flag=True, help="Print the left and right volumes too, and which side is which.")
@click.option("--allow-unknown", is_flag=True, help="Accept a terminology that names under half of the labels.")
@options(PICTURE, VOXEL_SIZE, STORE, SCHEDULER, format_options("table", "csv", "json", "parquet"), *MESSAGES)
def volumes(
    annotation: str,
    terminology: str | None,
    regions: tuple[str, ...],
    sort: str | None,
    top: int | None,
    leaves: bool,
    depth: int | None,
    level: int,
    by_hemisphere: bool,
    picture: str | None,
    voxel_size: tuple[float, float, float] | None,
    allow_unknown: bool,
    form: str,
    storage_options: dict[str, Any],
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Print the region volumes (mm3) of ANNOTATION, an OME-Zarr of labels: with and without descendants.

    ANNOTATION may also be an annotation set or an atlas of the standard Atlas Asset Organization, its manifest.json, or
    the root of a tree with one of them.

    For instance: atlaszarr volumes annotation.ome.zarr --region RSP --by-hemisphere --picture regions.png
    """
    from ..assets.locate import locate
    from ..regions import tables as region_tables
    from ..regions.annotation import annotation_of
    from ..regions.volumes import region_volumes
    from ..stores.locations import shown
    from ..terminology.terminology import terminology_of

    form = "json" if as_json else form
    if form == "parquet" and sys.stdout.isatty():
        message = "parquet cannot be printed on a terminal; write it to a file: --format parquet > volumes.parquet"
        raise InputError(message, code="output-is-terminal")
    if picture is not None:
        from ..previews.region_bars import picture_file, volumes_chart, write_chart

        path = picture_file(picture, annotation)
    located = locate(annotation, storage_options)
    for remark in located.remarks:
        say(f"atlaszarr: {remark}")
    annotation_of(located, level, storage_options)  # first: an annotation that is missing has no terminology
    structures = terminology_of(terminology, located, storage_options)
    wanted = tuple(dict.fromkeys(structures[region] for region in regions))
    selection = region_tables.Selection(wanted, depth, leaves, sort, top)
    whole = region_volumes(
        located,
        structures,
        level,
        by_hemisphere,
        voxel_size=voxel_size,
        allow_unknown=allow_unknown,
        storage_options=storage_options,
        scheduler=scheduler,
    )
    table = selection.of(whole, structures)
    if picture is not None:
        bars = selection.bars([table], structures)
        say(write_chart(path, volumes_chart(whole, structures, bars), shown(annotation)))
    if form == "table":
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        if wanted and selection.is_tree:
            text = region_tables.lines(table, wanted)
        else:
            text = region_tables.tree(table, structures, width, is_indented=selection.is_tree)
        echo(*text.splitlines())
        return
    if by_hemisphere and form != "json":
        say(table.attrs["hemispheres"])
    if form == "parquet":
        click.echo(region_tables.to_parquet(table), nl=False)
    else:
        echo_data(region_tables.to_json(table) if form == "json" else region_tables.to_csv(table))
