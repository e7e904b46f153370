"""The command `catalogue`."""

from __future__ import annotations

import json
from typing import Any

import click

from .options import API, OUTPUT, STORE, client, options
from .terminal import echo, echo_data, progress_bars, say


def as_ids(_context: click.Context, _parameter: click.Parameter, file: str | None) -> list[int] | None:
    """Click callback: read ids of the Allen API from a file."""
    from ..allen.id_list import read_ids

    return None if file is None else read_ids(file)


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--product", metavar="P", help="Only section datasets of this product, for instance Mouse.")
@click.option(
    "--ids", metavar="FILE", callback=as_ids, help="Only section datasets in this text file, with an id in each line."
)
@options(STORE, *API, *OUTPUT)
def catalogue(
    folder: str, product: str | None, ids: list[int] | None, storage_options: dict[str, Any], as_json: bool
) -> None:
    """Write a dated snapshot of the records to DIR, a path or URL: two Parquet tables.

    datasets.parquet has a row for each section dataset, images.parquet one for each section image, both with their
    alignments. The same command resumes a catalogue that was interrupted. With --catalogue DIR, search, info, plan,
    build, image and preview read records from DIR and request none.

    For instance: atlaszarr catalogue mouse-catalogue --product Mouse
    """
    with client() as service, progress_bars("catalogue", resumable="a catalogue") as progress:
        report = service.write_catalogue(
            folder, product=product, ids=ids, storage_options=storage_options, progress=progress
        )
    for change in report.changes:
        say(f"changed while the records were fetched: {change}")
    if report.misfits:
        say(f"{report.misfits} records have values of unexpected types; they are kept as JSON")
    if as_json:
        echo_data(json.dumps(report.to_dict()))
    else:
        counts = f"{report.datasets:,} section datasets, {report.images:,} section images"
        size = f"{report.size / 1e6:,.1f} MB" if report.size >= 1e6 else f"{report.size / 1e3:,.0f} kB"
        echo(f"{report.state}: {report.catalogue} of {report.date}: {counts}, {size}")
