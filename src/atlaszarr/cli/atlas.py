"""The command `atlas`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import click

from ..stores.locations import is_url
from .options import API, OME_ZARR, OUTPUT, SHARD, STORE, VOXEL_SIZE, WHOLE, WORKERS, WRITING, client, options
from .terminal import echo, echo_data, is_quiet, progress_bars, say

_VOLUMES = "NRRD, NIfTI, MetaImage, TIFF or OME-Zarr"
_EACH = "path or URL; repeatable, once per resolution."


def _component(option: str, name: str, version: str, word: str | None = None) -> Callable[[Any], Any]:
    """The options with the name and the version of a component, and their defaults."""
    word = word or option
    when = "for the atlas allen-adult-mouse 2017, else that of the atlas"
    return options(
        click.option(f"--{option}-name", metavar="NAME", help=f"Name of the {word} [{name} {when}]."),
        click.option(f"--{option}-version", metavar="VERSION", help=f"Version of the {word} [{version} {when}]."),
    )


@click.command()
@click.argument("target")
@click.option(
    "--annotation",
    multiple=True,
    required=True,
    metavar="URI",
    help=f"{_VOLUMES}, or annotation set, atlas or manifest of the standard, {_EACH}",
)
@click.option("--template", multiple=True, metavar="URI", help=f"{_VOLUMES}, {_EACH}")
@click.option(
    "--terminology",
    "--ontology",
    "ontology",
    metavar="URI",
    help="Structure graph, terminology.csv or a list of labels [what the manifests of the annotation name, else for "
    "the CCF graph 1 of the Allen API].",
)
@click.option("--name", metavar="NAME", help="Name of the atlas [for the CCF allen-adult-mouse].")
@click.option("--version", metavar="VERSION", help="Version of the atlas [for the CCF 2017].")
@_component("template", "allen-adult-mouse-stpt", "2015")
@_component("space", "allen-adult-mouse-ccf", "2015", "coordinate space")
@_component("terminology", "allen-adult-mouse", "2017")
@click.option("--citation", metavar="TEXT", help="Citation of the sources [for the CCF the Allen Institute's].")
@click.option("--terms", metavar="TEXT", help="Terms of use of the sources [for the CCF the Allen Institute's].")
@click.option("--species", metavar="NAME", help="Species [for the CCF Mus musculus].")
@click.option(
    "--asymmetric/--symmetric", default=None, help="Whether the halves of the atlas differ [for the CCF --symmetric]."
)
@click.option(
    "--layout",
    multiple=True,
    type=click.Choice(["plain", "assets", "brainglobe"]),
    default=["plain"],
    metavar="LAYOUT",
    help="plain, assets (adds the tree of the standard Atlas Asset Organization) or brainglobe (adds what BrainGlobe "
    "reads); repeatable [plain].",
)
@click.option("--brainglobe", is_flag=True, help="Short for --layout brainglobe.")
@click.option("--strict", is_flag=True, help="With --layout assets: leave out every name that the standard lacks.")
@click.option(
    "--orientation",
    metavar="LETTERS",
    help="Side at which each axis of the files begins, such as asl [from their headers].",
)
@options(VOXEL_SIZE)
@click.option("--allow-unknown", is_flag=True, help="Keep labels that are not in the ontology.")
@click.option("--chunk", type=WHOLE, metavar="N", help="Side of a chunk in voxels [64; 80 at 10 um].")
@options(SHARD, OME_ZARR)
@click.option(
    "--spool",
    metavar="DIR",
    help="Folder for unpacked voxels, and for NIfTI files on their way to an object store, during the build; all "
    "workers need access [temporary].",
)
@options(STORE, WORKERS, *WRITING, *API, *OUTPUT)
def atlas(target: str, storage_options: dict[str, Any], as_json: bool, **values: Any) -> None:
    """Build an atlas under TARGET, a path or URL: annotation, template, hemispheres, terminology, region volumes.

    The CCF is recognised by its extent, its axes and its labels, and an ontology that is given must have its root, 997.
    Any other atlas needs a name, a version and an ontology, and for BrainGlobe also a species and a citation.

    The same command resumes an interrupted build; with --overwrite it begins again.

    For instance: atlaszarr atlas ccf --annotation annotation_25.nrrd --template average_template_25.nrrd
    """
    from ..assets.names import CCF
    from ..atlas import build_atlas

    title = f"atlas {values['name'] or CCF[0]}"
    resumable = "" if values["overwrite"] else "a build"
    with client() as service, progress_bars(title, resumable=resumable) as progress:
        report = build_atlas(target, client=service, storage_options=storage_options, progress=progress, **values)
    # An option that contradicts a header is remarked on in any case.
    for remark in report.contradictions if is_quiet() else report.remarks:
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
