"""A small open-data bucket of the phantom: slides of several sections, at odd offsets, written by tifffile."""

import io
import json
from pathlib import Path

import numpy as np
import tifffile

from atlaszarr.transforms import compose, tier_affine

#: Full-resolution pixels between the sections on a slide, and around them: odd, so that no tier begins with a section.
_GAP = (3243, 1717)


def places(images, per_slide):
    """{image id: (slide, x0, y0)} and {slide: (width, height)}; sections lie below one another."""
    found, sizes = {}, {}
    for first in range(0, len(images), per_slide):
        group = images[first : first + per_slide]
        name = f"section_image_{179717 + first}.tiff"
        y = _GAP[1] + 3 * first
        for n, image in enumerate(group):
            x = _GAP[0] + 101 * n
            found[image["id"]] = (name, x, y)
            y += image["height"] + 333 + 7 * n
        sizes[name] = (max(image["width"] for image in group) + 2 * _GAP[0] + 101 * per_slide + 55, y + 1001)
    return found, sizes


def slides(emulator, dataset, tiers, per_slide=2, lacking=()):
    """({key: uint8 (H, W, 3)}, record) of a dataset: whole slides at some tiers, on grey paper.

    `lacking` holds pairs of an image id and a tier that the record lacks.
    """
    images = emulator.catalogue.images_of(dataset)
    at, sizes = places(images, per_slide)
    pictures, entries = {}, []
    for image in images:
        name, x0, y0 = at[image["id"]]
        width, height = sizes[name]
        downsampling = {}
        for t in range(9):
            if (image["id"], t) not in lacking:
                downsampling[f"downsample_{t}"] = {
                    "width": image["width"] >> t, "height": image["height"] >> t, "x": x0 >> t, "y": y0 >> t,
                    "image_file_width": width >> t, "image_file_height": height >> t,
                }  # fmt: skip
        entries.append(
            {
                "bits_per_component": 8, "id": image["id"], "resolution": image["resolution"],
                "section_number": image["section_number"], "downsampling": downsampling, "image_file_name": name,
            }
        )  # fmt: skip
        for t in tiers:
            key = f"section_data_set_{dataset}/downsample_{t}/{name}"
            slide = pictures.setdefault(key, np.full((height >> t, width >> t, 3), 231, np.uint8))
            # A margin of two pixels, since the crop of a tier begins up to one before the section.
            left, top = (x0 >> t) - 2, (y0 >> t) - 2
            shape = ((image["height"] >> t) + 4, (image["width"] >> t) + 4)
            to_full = tier_affine(-t)  # of the slide, whose first pixel begins at (0, 0)
            shift = [[1, 0, left], [0, 1, top]]
            in_section = compose([[1, 0, -x0], [0, 1, -y0]], compose(to_full, shift))
            full_to_pir = emulator._painter.pixel_to_pir(image["id"], 0)
            affine = compose(full_to_pir, in_section)
            slide[top : top + shape[0], left : left + shape[1]] = emulator.phantom.draw(affine, shape)
    record = {"id": dataset, "section_thickness": 25.0, "section_images": entries}
    return pictures, record


def encoded(picture, **options):
    """A TIFF file of a slide."""
    body = io.BytesIO()
    tifffile.imwrite(body, picture, **({"photometric": "rgb", "metadata": None} | options))
    return body.getvalue()


def bucket(emulator, dataset, tiers, per_slide=2, lacking=(), **options):
    """{key: bytes} of a bucket with one dataset."""
    pictures, record = slides(emulator, dataset, tiers, per_slide, lacking)
    files = {key: encoded(picture, **options) for key, picture in pictures.items()}
    return {**files, f"section_data_set_{dataset}/section_data_set.json": json.dumps(record).encode()}


def write(files, folder):
    """Write the files of a bucket to a folder."""
    for key, body in files.items():
        path = Path(folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder
