"""The command `volumes`."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from ..errors import InputError
from .options import MESSAGES, PICTURE, SCHEDULER, STORE, VOXEL_SIZE, WHOLE, format_options, options
from .terminal import echo, echo_data, say


@click.command()
@click.argument("annotation")
@click.option("--terminology", metavar="CSV", help="Any terminology, path or URL [by manifest, or next to ANNOTATION].")
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="ACRONYM",
    help="Print this region only, by acronym, name or id; repeatable [all].",
)
@click.option("--level", type=WHOLE, default=0, metavar="N", help="Level of the annotation [0].")
@click.option("--by-hemisphere", is_flag=True, help="Print the left and right volumes too, and which side is which.")
@click.option("--allow-unknown", is_flag=True, help="Accept a terminology that names under half of the labels.")
@options(PICTURE, VOXEL_SIZE, STORE, SCHEDULER, format_options("table", "csv", "json", "parquet"), *MESSAGES)
def volumes(
    annotation: str,
    terminology: str | None,
    regions: tuple[str, ...],
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
    wanted = list(dict.fromkeys(structures[region] for region in regions))
    table = region_volumes(
        located,
        structures,
        level,
        by_hemisphere,
        voxel_size=voxel_size,
        allow_unknown=allow_unknown,
        storage_options=storage_options,
        scheduler=scheduler,
    )
    if wanted:
        table = table.loc[[structure.id for structure in wanted]]
    if picture is not None:
        say(write_chart(path, volumes_chart(table, structures, wanted), shown(annotation)))
    if form == "table":
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        text = region_tables.lines(table, wanted) if wanted else region_tables.tree(table, structures, width)
        echo(*text.splitlines())
        return
    if by_hemisphere and form != "json":
        say(table.attrs["hemispheres"])
    if form == "parquet":
        click.echo(region_tables.to_parquet(table), nl=False)
    else:
        echo_data(region_tables.to_json(table) if form == "json" else region_tables.to_csv(table))
