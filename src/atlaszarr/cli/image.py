"""The command `image`."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import click

from ..stores.local import write_whole
from ..stores.locations import output_file
from .options import API, CATALOGUE, IMAGES, OUTPUT, WHOLE, as_id, as_numbers, client, options
from .terminal import echo, echo_data

if TYPE_CHECKING:
    from ..allen.images import Pixels


def _tiff(pixels: Pixels) -> bytes:
    """The bytes of a TIFF without loss, which any viewer opens."""
    import tifffile

    body = io.BytesIO()
    tifffile.imwrite(body, pixels, photometric="rgb", compression="zlib", metadata=None, software="atlaszarr")
    return body.getvalue()


@click.command()
@click.argument("image_id", callback=as_id)
@click.argument("out", required=False)
@click.option(
    "--downsample", type=WHOLE, default=0, metavar="N", help="Tier of the image; each step halves its size [0]."
)
@click.option("--view", metavar="expression|projection", help="Save this mask instead.")
@click.option(
    "--roi",
    callback=as_numbers(4),
    metavar="LEFT,TOP,WIDTH,HEIGHT",
    help="Corner in full-resolution pixels, size in pixels of the tier.",
)
@click.option(
    "--range",
    callback=as_numbers(6),
    metavar="R0,R1,G0,G1,B0,B1",
    help="Limits of a fluorescence image, 0 to 4095.",
)
@click.option("--quality", type=WHOLE, metavar="N", help="JPEG quality, 0 to 100.")
@options(*IMAGES, *API, *CATALOGUE, *OUTPUT)
def image(
    image_id: int,
    out: str | None,
    downsample: int,
    view: str | None,
    roi: tuple[int, ...] | None,
    range: tuple[int, ...] | None,
    quality: int | None,
    as_json: bool,
) -> None:
    """Save one section image, as the JPEG file that the service sends, or as a TIFF from an --image-source."""
    with client() as service:
        suffixes = (".jpg", ".jpeg") if service.image_source is None else (".tif", ".tiff")
        path = output_file(out or f"{image_id}{suffixes[0]}", suffixes)
        request = service.image_request(image_id, downsample, view, roi, quality, range)
        image = service.fetch(request)
    write_whole(path, image.body if service.image_source is None else _tiff(image.pixels()))
    if as_json:
        echo_data(json.dumps({"path": str(path), "width": request.width, "height": request.height}))
    else:
        echo(f"{path}: {request.width} x {request.height} pixels")
