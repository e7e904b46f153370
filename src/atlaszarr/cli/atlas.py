"""The command `atlas`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import click

from ..stores.locations import is_url
from .options import API, NUMBER, OME_ZARR, OUTPUT, SHARD, STORE, WHOLE, WORKERS, WRITING, client, is_quiet, options
from .terminal import echo, echo_data, progress_bars, say

_VOLUMES = "NRRD, NIfTI, MetaImage, TIFF or OME-Zarr, path or URL; repeatable, once per resolution."


@click.command()
@click.argument("target")
@click.option("--annotation", multiple=True, required=True, metavar="URI", help=_VOLUMES)
@click.option("--template", multiple=True, metavar="URI", help=_VOLUMES)
@click.option(
    "--ontology", metavar="URI", help="Structure graph, terminology.csv or a list of labels [graph 1 of the Allen API]."
)
@click.option("--name", default="allen-adult-mouse", metavar="NAME", help="Name of the atlas [allen-adult-mouse].")
@click.option("--version", default="2017", metavar="VERSION", help="Version of the atlas [2017].")
@click.option("--brainglobe", is_flag=True, help="Add the files of BrainGlobe: masks, meshes, manifests.")
@click.option(
    "--orientation",
    metavar="LETTERS",
    help="Side at which each axis of the files begins, such as asl [from their headers].",
)
@click.option("--voxel-size", type=NUMBER, metavar="UM", help="Voxel size of files whose header has none.")
@click.option("--allow-unknown", is_flag=True, help="Keep labels that are not in the ontology.")
@click.option("--chunk", type=WHOLE, metavar="N", help="Side of a chunk in voxels [64; 80 at 10 um].")
@options(SHARD, OME_ZARR)
@click.option(
    "--spool", metavar="DIR", help="Folder for unpacked voxels during the build; all workers need access [temporary]."
)
@options(STORE, WORKERS, *WRITING, *API, *OUTPUT)
def atlas(target: str, storage_options: dict[str, Any], as_json: bool, **values: Any) -> None:
    """Build an atlas under TARGET, a path or URL: annotation, template, hemispheres, terminology, region volumes.

    For instance: atlaszarr atlas ccf --annotation annotation_25.nrrd --template average_template_25.nrrd
    """
    from ..atlas import build_atlas

    with client() as service, progress_bars(f"atlas {values['name']}", resumable=True) as progress:
        report = build_atlas(target, client=service, storage_options=storage_options, progress=progress, **values)
    for remark in () if is_quiet() else report.remarks:
        say(f"atlaszarr: {remark}")
    if as_json:
        echo_data(json.dumps(report.to_dict()))
        return
    for image in report.images:
        echo(f"{image.state}: {image.target}")
    echo(f"region volumes: {report.volumes}")
    annotation = report.images[0].target
    echo(f"open it with: {_volumes_command(annotation, storage_options if is_url(annotation) else {})}")


def _volumes_command(url: str, storage_options: Mapping[str, Any]) -> str:
    """The command that measures the regions of an annotation, with the names of the storage options alone."""
    options = [f"--storage-option {shlex.quote(name)}=..." for name in storage_options]
    return " ".join(["atlaszarr volumes", shlex.quote(url), *options])
