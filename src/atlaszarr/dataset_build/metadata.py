"""What OME-Zarr has to say of a registered volume. Pure dicts; tests hold them against the readers' own schemas.

Units are millimetres; the physical origin is the centre of the first voxel of the space's finest published
grid, so that a level of voxel size s has scale s and translation (s - anchor)/2 (in mm).
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

from ..allen.records import Section, SectionDataset
from ..engine.ome import Geometry, multiscales
from ..engine.pyramid import Pyramid
from ..geometry.grid import Grid
from ..geometry.spaces import ORIENTATION


def geometry(grid: Grid) -> Geometry:
    """Where the voxels of a grid lie, in mm."""
    size = grid.resolution / 1000
    offset = (grid.resolution - grid.space.anchor) / 2000
    return Geometry((size,) * 3, (offset,) * 3, "millimeter", ORIENTATION)


def plane_geometry(grid: Grid, fixed: int, coordinate: float, thickness: float) -> Geometry:
    """Where the voxels of a plane lie, in mm.

    Parameters
    ----------
    grid : Grid
    fixed : int
        The axis across it, of (z, y, x): a single voxel, as long as the section is thick.
    coordinate, thickness : float
        Slice coordinate and section thickness in um.
    """
    flat = geometry(grid)
    first = (coordinate - grid.space.anchor / 2) / 1000
    sz, sy, sx = (thickness / 1000 if axis == fixed else size for axis, size in enumerate(flat.scale))
    tz, ty, tx = (first if axis == fixed else offset for axis, offset in enumerate(flat.translation))
    return Geometry((sz, sy, sx), (tz, ty, tx), flat.unit, flat.orientation)


def title(dataset: SectionDataset) -> str:
    """What a dataset is called."""
    return " ".join([f"Section dataset {dataset.id}", *dataset.genes])


def image(version: str, geometry: Geometry, pyramid: Pyramid, name: str) -> dict[str, Any]:
    """Of the group of a registered image."""
    method = f"mean of the covered voxels among {_neighbours(pyramid)}"
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
        "multiscales": [multiscales(version, name, "czyx", geometry, pyramid, method)],
        "omero": {"name": name, "channels": channels, "rdefs": {"model": "color"}},
    }


def provenance(version: str, geometry: Geometry, pyramid: Pyramid, sections: Sequence[Section]) -> dict[str, Any]:
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
    method = f"most frequent label other than 0 among {_neighbours(pyramid)}"
    return {
        "multiscales": [multiscales(version, "section", "zyx", geometry, pyramid, method)],
        "image-label": {"colors": colours, "properties": properties, "source": {"image": "../../"}},
    }


def _neighbours(pyramid: Pyramid) -> str:
    """How many voxels of a level make one of the next."""
    return " x ".join("1" if n == 1 else "2" for n in pyramid.shape)
