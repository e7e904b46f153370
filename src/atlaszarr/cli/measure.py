"""The command `measure`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .options import MESSAGES, PICTURE, ROWS, STORE, WHOLE, format_options, options
from .terminal import echo, echo_data, progress_bars, say

if TYPE_CHECKING:
    import pandas as pd

    from ..terminology.terminology import Terminology


@click.command()
@click.argument("volumes", metavar="VOLUME ...", nargs=-1, required=True)
@click.option("--annotation", required=True, metavar="ANNOTATION", help="OME-Zarr of labels, or an atlas, path or URL.")
@click.option("--terminology", metavar="CSV", help="Any terminology, path or URL [by manifest, or next to ANNOTATION].")
@options(*ROWS)
@click.option("--by-hemisphere", is_flag=True, help="Measure the left and the right side too.")
@click.option("--allow-unknown", is_flag=True, help="Accept a terminology that names under half of the labels.")
@click.option("--scheduler", metavar="ADDRESS", help="Address of a dask.distributed scheduler, or threads [threads].")
@click.option("--workers", type=WHOLE, metavar="N", help="Local threads [one per core].")
@options(PICTURE, STORE, format_options("table", "csv", "json", "parquet"), *MESSAGES)
def measure(
    volumes: tuple[str, ...],
    annotation: str,
    terminology: str | None,
    regions: tuple[str, ...],
    sort: str | None,
    top: int | None,
    leaves: bool,
    depth: int | None,
    by_hemisphere: bool,
    allow_unknown: bool,
    scheduler: str | None,
    workers: int | None,
    picture: str | None,
    form: str,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Print what VOLUME shows in every region: coverage, means, and expression density, intensity and energy.

    VOLUME is the target of a build, with its expression view x.expression.ome.zarr next to it if there is one; an
    expression view; a grid of the command grid; or any other OME-Zarr in the space of ANNOTATION. The table of several
    volumes has a column dataset.

    Intensity and energy are grey levels, 0 to 255, as they are in the images: dark is low.

    For instance: atlaszarr measure prox1.ome.zarr --annotation ccf --sort density --top 20 --leaves
    """
    from ..assets.locate import locate
    from ..regions import tables as region_tables
    from ..regions.annotation import annotation_levels
    from ..regions.statistics import options_for, region_statistics
    from ..stores.locations import shown
    from ..terminology.terminology import terminology_of

    form = "json" if as_json else form
    if form == "parquet" and sys.stdout.isatty():
        message = "parquet cannot be printed on a terminal; write it to a file: --format parquet > regions.parquet"
        raise InputError(message, code="output-is-terminal")
    if picture is not None:
        from ..previews.region_bars import picture_file, refuse_many_series, statistics_chart, write_chart

        refuse_many_series(len(volumes), by_hemisphere)
        path = picture_file(picture, annotation, *volumes)
    its_options = options_for(annotation, storage_options)
    located = locate(annotation, its_options)
    for remark in located.remarks:
        say(f"atlaszarr: {remark}")
    annotation_levels(located, its_options)  # first: an annotation that is missing has no terminology
    structures = terminology_of(terminology, located, its_options)
    wanted = tuple(dict.fromkeys(structures[region] for region in regions))
    selection = region_tables.Selection(wanted, depth, leaves, sort, top)
    tables, drawn = [], []
    with progress_bars("measure") as progress:
        for n, volume in enumerate(volumes):
            progress(n, len(volumes), "volumes")
            table = region_statistics(
                volume,
                located,
                structures,
                by_hemisphere,
                allow_unknown=allow_unknown,
                storage_options=storage_options,
                scheduler=scheduler,
                workers=workers,
            )
            drawn.append(table)
            tables.append(selection.of(table, structures))
    if picture is not None:
        bars = selection.bars(tables, structures)
        say(write_chart(path, statistics_chart(drawn, structures, bars), shown(annotation)))
    if form == "table":
        _echo_tables(volumes, tables, structures, selection.is_tree)
        return
    if by_hemisphere and form != "json":
        say(*dict.fromkeys(table.attrs["hemispheres"] for table in tables))
    if form == "json":
        documents = [region_tables.to_json(table) for table in tables]
        echo_data(documents[0] if len(volumes) == 1 else f"[{', '.join(documents)}]")
    elif form == "parquet":
        click.echo(region_tables.to_parquet(_joined(tables)), nl=False)
    else:
        echo_data(region_tables.to_csv(_joined(tables)))


def _echo_tables(
    volumes: Sequence[str], tables: Sequence[pd.DataFrame], structures: Terminology, is_indented: bool
) -> None:
    """Print a table for each volume, under its name if there are several."""
    from ..regions.tables import statistics_tree

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for n, (volume, table) in enumerate(zip(volumes, tables, strict=True)):
        heading = [f"{'' if n == 0 else chr(10)}{volume}"] if len(volumes) > 1 else []
        printed = statistics_tree(table, structures, width, is_indented=is_indented)
        echo(*"\n".join([*heading, printed]).splitlines())


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of all volumes, with a column ``dataset`` if there are several."""
    import pandas as pd

    if len(tables) == 1:
        return tables[0]
    datasets = [table.attrs["dataset"] for table in tables]
    if not all(isinstance(dataset, int) for dataset in datasets):
        datasets = list(map(str, datasets))  # ids and names: a column has one type
    for table, dataset in zip(tables, datasets, strict=True):
        table.insert(0, "dataset", dataset)
    whole = pd.concat(tables)
    whole.attrs = {}
    return whole
