"""The command `atlas`."""

from __future__ import annotations

import json
from typing import Any

import click

from ..stores.locations import is_url
from .options import API, OUTPUT, STORE, client_for, options, storage_options
from .terminal import Terminal, command_for_volumes, printable

_VOLUMES = "NRRD, NIfTI, TIFF or OME-Zarr, path or URL; repeatable, one a resolution."


@click.command()
@click.argument("target")
@click.option("--annotation", multiple=True, required=True, metavar="URI", help=_VOLUMES)
@click.option("--template", multiple=True, metavar="URI", help=_VOLUMES)
@click.option("--ontology", metavar="URI", help="Structure graph or terminology.csv [graph 1 of the Allen API].")
@click.option("--name", default="allen-adult-mouse", metavar="NAME", help="[allen-adult-mouse]")
@click.option("--version", default="2017", metavar="VERSION", help="[2017]")
@click.option("--brainglobe", is_flag=True, help="All that BrainGlobe opens: masks, meshes, manifests.")
@click.option("--orientation", metavar="LETTERS", help="Where the axes of the files begin, as asl [as they say].")
@click.option("--voxel-size", type=float, metavar="UM", help="Of the files, where they do not say.")
@click.option("--allow-unknown", is_flag=True, help="Keep labels that the ontology lacks.")
@click.option("--chunk", type=int, metavar="N", help="Side of a chunk in voxels [64; 80 at 10 um].")
@click.option("--shard", type=int, metavar="N", help="Side of a shard, whole chunks; coarser levels' shrink [none].")
@click.option("--ome-zarr", default="0.5", metavar="0.4|0.5|0.6", help="Version of OME-Zarr [0.5].")
@click.option("--spool", metavar="DIR", help="For unpacked voxels, while it lasts; workers must reach it [temporary].")
@options(*STORE)
@click.option("--scheduler", metavar="ADDRESS", help="Of a dask.distributed scheduler, or threads [threads].")
@click.option("--workers", type=int, metavar="N", help="Local threads [one a core].")
@click.option("--overwrite", is_flag=True, help="Replace what another build left at TARGET.")
@click.option("--take-over", is_flag=True, help="Build although another build seems to be under way in TARGET.")
@options(*API, *OUTPUT)
def atlas(
    target: str,
    storage_option: tuple[str, ...],
    api_url: str | None,
    cache: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Build an atlas under TARGET, a path or URL: annotation, template, hemispheres, terminology, region volumes.

    For instance: atlaszarr atlas ccf --annotation annotation_25.nrrd --template average_template_25.nrrd
    """
    from ..atlas import build_atlas

    terminal, place = Terminal(quiet, verbose), storage_options(storage_option)
    with client_for(api_url, cache) as client, terminal.progress(f"atlas {values['name']}") as progress:
        report = build_atlas(target, client=client, storage_options=place, progress=progress, **values)
    for remark in () if quiet else report.remarks:
        click.echo(f"atlaszarr: {printable(remark)}", err=True)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
        return
    for image in report.images:
        click.echo(f"{image.state}: {image.target}")
    click.echo(f"region volumes: {report.volumes}")
    annotation = report.images[0].target
    click.echo(f"open it with: {command_for_volumes(annotation, place if is_url(annotation) else {})}")
