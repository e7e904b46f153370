"""The command `grid`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from .options import API, OME_ZARR, OUTPUT, STORE, as_id, client, options
from .terminal import echo, echo_data


@click.command()
@click.argument("dataset_id", callback=as_id)
@click.argument("target")
@click.option(
    "--include",
    default="energy,density,intensity",
    metavar="NAME,...",
    help="Quantities, each a channel [energy,density,intensity].",
)
@click.option("--overwrite", is_flag=True, help="Replace a target that was written with other options.")
@click.option("--take-over", is_flag=True, help="Write although another process may be writing TARGET.")
@options(OME_ZARR, STORE, *API, *OUTPUT)
def grid(
    dataset_id: int,
    target: str,
    include: str,
    overwrite: bool,
    take_over: bool,
    ome_zarr: str,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Write the Allen Institute's own expression grids as OME-Zarr at TARGET, a path or URL.

    The grids have a point every 200 um, and NaN where the Institute has no data. The command measure takes TARGET.

    For instance: atlaszarr grid 69289763 prox1-grid.ome.zarr
    """
    from ..expression_grids.grids import write_grid

    with client() as service:
        report = write_grid(
            dataset_id,
            target,
            [name.strip() for name in include.split(",")],
            client=service,
            ome_zarr=ome_zarr,
            storage_options=storage_options,
            overwrite=overwrite,
            take_over=take_over,
        )
    if as_json:
        echo_data(json.dumps(asdict(report)))
    else:
        echo(f"{report.state}: {report.target}")
