"""What OME-Zarr has to say of a registered volume. Pure dicts; tests hold them against the readers' own schemas.

Units are millimetres; the physical origin is the centre of the first voxel of the space's finest published
grid, so that a level of voxel size s has scale s and translation (s - anchor)/2 (in mm).
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

from .allen.records import Section, SectionDataset
from .grid import Grid
from .ome import Geometry, multiscales
from .pyramid import Pyramid
from .spaces import ORIENTATION


def geometry(grid: Grid) -> Geometry:
    """Where the voxels of a grid lie, in mm."""
    size = grid.resolution / 1000
    offset = (grid.resolution - grid.space.anchor) / 2000
    return Geometry((size,) * 3, (offset,) * 3, "millimeter", ORIENTATION)


def image(version: str, grid: Grid, pyramid: Pyramid, dataset: SectionDataset) -> dict[str, Any]:
    """Of the root group of a finished volume."""
    name = " ".join([f"Section dataset {dataset.id}", *dataset.genes])
    method = "mean of the covered voxels among 2 x 2 x 2"
    channels = [
        {
            "label": label,
            "color": colour,
            "active": True,
            "window": {"min": 0.0, "max": 255.0, "start": 0.0, "end": 255.0},
        }
        for label, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    ]
    return {
        "multiscales": [multiscales(version, name, "czyx", geometry(grid), pyramid, method)],
        "omero": {"name": name, "channels": channels, "rdefs": {"model": "color"}},
    }


def provenance(version: str, grid: Grid, pyramid: Pyramid, sections: Sequence[Section]) -> dict[str, Any]:
    """Of ``labels/section``, whose values are SectionImage ids: neighbours get unlike colours."""
    colours, properties = [], []
    for position, section in enumerate(sections):
        red, green, blue = colorsys.hsv_to_rgb(position * 0.381966 % 1, 0.7, 1.0)
        rgba = [round(255 * part) for part in (red, green, blue)] + [255]
        colours.append({"label-value": section.image_id, "rgba": rgba})
        properties.append(
            {
                "label-value": section.image_id,
                "section_number": section.section_number,
                "depth_um": section.depth,
            }
        )
    method = "most frequent label other than 0 among 2 x 2 x 2"
    return {
        "multiscales": [multiscales(version, "section", "zyx", geometry(grid), pyramid, method)],
        "image-label": {"colors": colours, "properties": properties, "source": {"image": "../../"}},
    }
