"""The commands `demo` and `emulator`: the built-in Allen API."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from .options import NUMBER, OUTPUT, STORE, VOXEL_SIZE, Whole, options
from .terminal import echo, echo_data, progress_bars, table


@click.command()
@click.argument("folder", metavar="[DIR]", default="atlaszarr-demo")
@options(*OUTPUT)
def demo(folder: str, as_json: bool) -> None:
    """Build a volume and an atlas from the built-in Allen API, in DIR [./atlaszarr-demo]."""
    from ..demo import LEAST_PRINTED, run_demo

    with progress_bars("demo", resumable="a build") as progress:
        volume, atlas, picture = run_demo(folder, progress)
    if as_json:
        echo_data(json.dumps({**volume.to_dict(), "picture": picture, "atlas": atlas.to_dict()}))
        return
    echo(f"{volume.state}: {volume.target}, from {volume.requests} section images of a brain-like phantom")
    echo("read back with zarr:")
    rows = [
        (k, " x ".join(map(str, shape)), f"{size:g}", f"{at:g}") for k, (shape, size, at) in enumerate(volume.levels)
    ]
    echo(*table(("level", "shape (c, z, y, x)", "voxel mm", "origin mm"), rows))
    echo(f"mean difference from the phantom's closed form: {volume.error:.2f} of 255 grey levels", "")
    echo(f"{atlas.state}: {atlas.target}, an atlas of the same brain")
    echo(f"volumes of its regions of {LEAST_PRINTED:g} mm3 and more, each with its subregions:")
    echo(*atlas.table.splitlines())
    echo(
        f"difference from the phantom's closed form, {atlas.compared} structures over 1 mm3: {atlas.mean_error:.1%} on "
        f"average, {atlas.largest_error:.1%} at most ({atlas.largest_error_of})"
    )
    echo(f"all {atlas.regions} regions: {atlas.volumes}", "")
    echo(f"picture of both, open this first: {picture}", "", "then try:")
    written = Path(picture).parent
    image, atlas_folder, out = map(shlex.quote, (volume.target, str(written / "atlas"), str(written)))
    echo(
        f"  atlaszarr view {image} --over {atlas_folder}",
        f"  atlaszarr volumes {atlas_folder} --by-hemisphere --picture {out}/regions.png",
        f"  atlaszarr measure {image} --annotation {atlas_folder}",
        f"  atlaszarr verify {image}",
    )


@click.command()
@click.option("--port", type=Whole(0, 65535), default=8000, metavar="N", help="Port on 127.0.0.1 [8000].")
@click.option("--faults", metavar="FILE", help="JSON file of scripted faults.")
@click.option("--bucket", metavar="URL", help="First write its slides to URL or a folder, for --image-source.")
@click.option(
    "--annotation", metavar="FILE", help="Draw the sections from this annotation of the adult mouse [a phantom brain]."
)
@click.option("--orientation", metavar="LETTERS", help="Side at which each axis of FILE begins [from its header].")
@VOXEL_SIZE
@click.option(
    "--deform",
    type=NUMBER,
    metavar="UM",
    help="Displace the tissue in the sections smoothly, by UM on average (root mean square), at most 180.",
)
@click.option("--damage", metavar="FILE", help="JSON file of damage: torn or folded sections, wrong depths, and more.")
@click.option("--seed", type=Whole(0, 2**53), default=0, metavar="N", help="Of the displacements and the damage [0].")
@click.option("--truth", metavar="JSON", help="First write displacements and damage to this file, as formulas.")
@STORE
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each request on stderr.")
def emulator(
    port: int,
    faults: str | None,
    bucket: str | None,
    annotation: str | None,
    orientation: str | None,
    voxel_size: tuple[float, float, float] | None,
    deform: float | None,
    damage: str | None,
    seed: int,
    truth: str | None,
    storage_options: dict[str, Any],
    verbose: bool,
) -> None:
    """Serve the built-in Allen API until interrupted."""
    from ..stores.locations import protocol_of
    from ..stores.target import Target
    from ..testing.brain import default_brain
    from ..testing.damage import Damage
    from ..testing.deformation import Deformation
    from ..testing.emulator import serve

    if annotation is None and (orientation is not None or voxel_size is not None):
        raise InputError("--orientation and --voxel-size need --annotation", code="missing-option")
    if truth is not None and deform is None and damage is None:
        raise InputError(
            f"--truth {truth} needs --deform or --damage: the sections are where their records put them",
            code="missing-option",
        )

    serving = False

    def announce(url: str) -> None:
        nonlocal serving
        serving = True
        echo(f"the Allen API answers at {url}")

    try:
        serve(
            port,
            faults or (),
            announce,
            None if bucket is None else Target.of(bucket, storage_options),
            truth,
            access_log=verbose,
            phantom=default_brain() if annotation is None else None,
            annotation=annotation,
            annotation_options={
                "storage_options": storage_options if annotation and protocol_of(annotation) else None,
                "orientation": orientation,
                "voxel_size": voxel_size,
            },
            deformation=None if deform is None else Deformation(deform, seed),
            damage=None if damage is None else Damage.load(damage, seed),
        )
    except OSError as error:
        if serving:
            raise
        message = f"port {port} is not available: {error.strerror}; choose another"
        raise InputError(message, code="port-unavailable") from None
