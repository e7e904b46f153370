"""A bucket of slides as the Allen Institute's open data have them, drawn from the phantom.

Its layout is that of ``s3://allen-mouse-brain-atlas``:

- ``section_data_sets.json``: the datasets of the bucket,
- ``section_data_set_<ID>/section_data_set.json``: one dataset, with the place of every section on its slide,
- ``section_data_set_<ID>/downsample_<T>/<image_file_name>``: a whole slide at tier T, as TIFF.

Alignments are not in it. The place of a section at tier T is its place at full resolution divided by 2^T, rounded down.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import tifffile

from ..stores.target import Target
from .drawing import Drawing, Painter, Pixels
from .records import Record

#: Tiers that the records list: as those of section dataset 100055044.
TIERS = range(9)
#: Tiers that are written by default: from 8.4 um (tier 3), which a grid of 10 um takes, of images of 1.049 um.
WRITTEN = range(3, 9)
#: Rows of a strip: 64 rows of 1200 pixels are 230 kB, 5 % of a slide of 25 um.
_ROWS = 64
#: Side of a tile in pixels, the default of most writers.
_TILE = 256


def on_slides(images: Iterable[Mapping[str, Any]], per_slide: int = 3, gap: int = 701) -> list[Record]:
    """Put the section images of a dataset on slides that several of them share, one below the other.

    The places are odd, so that none is a whole number of pixels at a coarser tier.

    Parameters
    ----------
    images : iterable of dict
        SectionImage records.
    per_slide : int
        Largest number of sections on a slide.
    gap : int
        Pixels of full resolution around a section.

    Returns
    -------
    list of dict
        Copies of the records in the same order, with other ``x``, ``y``, ``image_width``, ``image_height``; those on
        one slide have the same ``path``.
    """
    records = [dict(image) for image in images]
    for first in range(0, len(records), per_slide):
        slide = records[first : first + per_slide]
        bottom = gap
        for position, record in enumerate(slide):
            record |= {"x": (gap + 38 * position) | 1, "y": bottom | 1, "path": slide[0]["path"]}
            bottom = record["y"] + record["height"] + gap
        size = {"image_width": max(r["x"] + r["width"] for r in slide) + gap, "image_height": bottom}
        for record in slide:
            record.update(size)
    return records


def write_bucket(
    painter: Painter,
    target: Target,
    datasets: Iterable[int],
    *,
    tiers: Iterable[int] = WRITTEN,
    tiled: bool = False,
    compression: str | None = None,
    lost: Mapping[int, Collection[int]] | None = None,
) -> list[str]:
    """Write section datasets of an emulator in the layout of the open-data bucket.

    Section images with the same ``path`` in their records share a slide.

    Parameters
    ----------
    painter : Painter
        Draws the sections; see `atlaszarr.testing.Emulator.write_bucket`.
    target : Target
        The bucket, or a folder.
    datasets : iterable of int
        Ids of section datasets; their images need an alignment.
    tiers : iterable of int
        Tiers of which slides are written; the records list `TIERS`.
    tiled : bool
        Store a slide in tiles of 256 x 256 pixels; otherwise in strips of 64 rows.
    compression : str, optional
        A compression of `tifffile.TiffWriter.write`, for instance ``zlib``.
    lost : mapping of int to collection of int, optional
        Tiers that the record of an image lacks, by image id.

    Returns
    -------
    list of str
        Keys of the slides.
    """
    keys = []
    records = []
    for id in datasets:
        slides: dict[str, list[Record]] = {}
        for image in painter.catalogue.images_of(id):
            slides.setdefault(image["path"], []).append(image)
        names = {path: f"section_image_{images[0]['id']}.tiff" for path, images in slides.items()}
        folder = f"section_data_set_{id}"
        record = _dataset(painter, id, slides, names, lost or {})
        records.append({key: value for key, value in record.items() if key != "section_images"})
        target.write(f"{folder}/section_data_set.json", json.dumps(record).encode())
        for tier in tiers:
            for path, images in slides.items():
                key = f"{folder}/downsample_{tier}/{names[path]}"
                target.write(key, tiff(slide(painter, images, tier), tiled, compression))
                keys.append(key)
    target.write("section_data_sets.json", json.dumps(records).encode())
    return keys


def slide(painter: Painter, images: Iterable[Record], tier: int) -> Pixels:
    """Draw a slide at a tier: the sections at their places, and the phantom's background between them.

    Parameters
    ----------
    painter : Painter
    images : iterable of dict
        Records of the section images on the slide.
    tier : int

    Returns
    -------
    ndarray, uint8, shape (height, width, 3)
        Pixel (X, Y) is the section at full-resolution pixel ((X + 1/2) 2^tier - 1/2 - x, (Y + 1/2) 2^tier - 1/2 - y),
        with the x and y of its record.
    """
    images = list(images)
    whole = np.empty((images[0]["image_height"] >> tier, images[0]["image_width"] >> tier, 3), np.uint8)
    whole[:] = np.rint(painter.phantom.background).astype(np.uint8)
    for image in images:
        left, top = image["x"] >> tier, image["y"] >> tier
        # Also the pixels that the section covers in part.
        right, bottom = (-(-(image[at] + image[side]) >> tier) for at, side in (("x", "width"), ("y", "height")))
        right, bottom = min(right, whole.shape[1]), min(bottom, whole.shape[0])
        offset = (left - image["x"] / 2**tier, top - image["y"] / 2**tier)
        whole[top:bottom, left:right] = painter.draw(image, Drawing(tier), offset, (bottom - top, right - left))
    return whole


def tiff(pixels: Pixels, tiled: bool = False, compression: str | None = None) -> bytes:
    """Encode pixels as TIFF; the parameters are those of `write_bucket`."""
    body = io.BytesIO()
    stored: dict[str, Any] = {"tile": (_TILE, _TILE)} if tiled else {"rowsperstrip": _ROWS}
    # Without tifffile's own description: the files are the same for all of its versions.
    tifffile.imwrite(body, pixels, photometric="rgb", compression=compression, metadata=None, software=False, **stored)
    return body.getvalue()


def _dataset(
    painter: Painter,
    id: int,
    slides: Mapping[str, list[Record]],
    names: Mapping[str, str],
    lost: Mapping[int, Collection[int]],
) -> Record:
    """A record of the bucket, with the keys of that of section dataset 100055044."""
    record = painter.catalogue.dataset(id) or {}
    plane = next(
        (p["name"] for p in painter.catalogue.models["PlaneOfSection"] if p["id"] == record["plane_of_section_id"]),
        None,
    )
    return {
        "id": id,
        "section_thickness": record["section_thickness"],
        "treatments": [{"name": treatment["name"]} for treatment in record["treatments"]],
        "genes": [{"acronym": gene["acronym"], "entrez_id": gene["entrez_id"]} for gene in record["genes"]],
        "probes": [],
        "plane_of_section": {"name": plane},
        "specimen": record["specimen"],
        "section_images": [
            {
                "bits_per_component": 8,
                "id": image["id"],
                "resolution": image["resolution"],
                "section_number": image["section_number"],
                "downsampling": {
                    f"downsample_{tier}": _place(image, tier) for tier in TIERS if tier not in lost.get(image["id"], ())
                },
                "image_file_name": names[path],
            }
            for path, images in slides.items()
            for image in images
        ],
    }


def _place(image: Record, tier: int) -> dict[str, int]:
    """The place of a section on its slide at a tier, in pixels."""
    figures = {
        "width": image["width"],
        "height": image["height"],
        "x": image["x"],
        "y": image["y"],
        "image_file_width": image["image_width"],
        "image_file_height": image["image_height"],
    }
    return {name: figure >> tier for name, figure in figures.items()}
