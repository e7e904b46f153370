"""The command `preview`."""

from __future__ import annotations

import json
from typing import Any

import click

from .options import API, CATALOGUE, FIELDS, IMAGES, MIRROR, OUTPUT, STORE, as_id, client, options
from .terminal import echo, echo_data, missing_lines, progress_bars, say


@click.command()
@click.argument("dataset_id", callback=as_id)
@click.argument("out", required=False)
@click.option(
    "--annotation",
    metavar="URI",
    help="Annotation whose borders are drawn: OME-Zarr, NRRD, NIfTI, MetaImage or TIFF, or annotation set, atlas or "
    "manifest of the standard, path or URL.",
)
@click.option(
    "--terminology",
    metavar="CSV",
    help="Any terminology, path or URL, for acronyms [by manifest, or next to ANNOTATION].",
)
@click.option(
    "--plane", default="auto", metavar="PLANE", help="coronal, sagittal, transverse (or horizontal) [plane of section]."
)
@click.option("--view", default="primary", metavar="VIEW", help="primary, expression or projection [primary].")
@options(*MIRROR, FIELDS, STORE, *IMAGES, *API, *CATALOGUE, *OUTPUT)
def preview(
    dataset_id: int,
    out: str | None,
    annotation: str | None,
    terminology: str | None,
    plane: str,
    mirror: bool,
    view: str,
    fields: str | None,
    storage_options: dict[str, Any],
    as_json: bool,
) -> int:
    """Draw the sections in the reference space, as OUT, a .png or .svg file [DATASET_ID-preview.png].

    The picture has the edges of the sections from four sides, and a registered thumbnail of each section, with the
    borders of the annotation if one is given, and acronyms if it has a terminology.
    For instance: atlaszarr preview 74272479 --annotation annotation_25.nrrd
    """
    from ..previews import preview as draw

    with client() as service, progress_bars(f"dataset {dataset_id}") as progress:
        report = draw(
            dataset_id,
            out or f"{dataset_id}-preview.png",
            client=service,
            annotation=annotation,
            terminology=terminology,
            plane=plane,
            mirror=mirror,
            view=view,
            fields=fields,
            storage_options=storage_options,
            progress=progress,
        )
    if report.failures:
        say(*missing_lines(report.failures))
    if as_json:
        echo_data(json.dumps(report.to_dict()))
    else:
        count = len(report.coordinates)
        missing = f", {len(report.failures)} of them without an image" if report.failures else ""
        echo(f"{report.path}: {count} {report.plane} sections in reference space {report.reference_space}{missing}")
    return 0 if report.ok else 1
