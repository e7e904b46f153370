"""The OME-Zarr 0.5 metadata of a registered volume. Pure dicts; tests hold them against the readers' own schemas.

Units are millimetres; the physical origin is the centre of the first voxel of the space's finest published
grid, so that a level of voxel size s has scale s and translation (s - anchor)/2 (in mm).
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

from .allen.records import Section, SectionDataset
from .grid import Grid
from .spaces import ORIENTATION

VERSION = "0.5"

CREDIT = {
    "citation": "Lein, E.S. et al. (2007) Genome-wide atlas of gene expression in the adult mouse brain. "
    "Nature 445, 168-176, doi:10.1038/nature05453; Allen Mouse Brain Atlas, Allen Institute for Brain Science",
    "terms": "https://alleninstitute.org/terms-of-use/",
}


def group(attributes: dict[str, Any]) -> dict[str, Any]:
    """A zarr v3 group document."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def multiscales(name: str, grid: Grid, levels: int, channels: bool, method: str) -> dict[str, Any]:
    """The multiscales block of an image (c, z, y, x) or of a label (z, y, x).

    Parameters
    ----------
    name : str
    grid : Grid
        Of level 0; every further level halves it.
    levels : int
    channels : bool
        Whether a channel axis leads.
    method : str
        How a level comes from its parent.
    """
    axes: list[dict[str, Any]] = [{"name": "c", "type": "channel"}] if channels else []
    for axis in "zyx":
        orientation = {"type": "anatomical", "value": ORIENTATION[axis]}
        axes.append({"name": axis, "type": "space", "unit": "millimeter", "orientation": orientation})
    lead = channels * [1.0]
    datasets = []
    for level in range(levels):
        size = grid.resolution * 2**level
        scale = lead + 3 * [size / 1000]
        translation = [0.0 * one for one in lead] + 3 * [(size - grid.space.anchor) / 2000]
        transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    return {"name": name, "axes": axes, "datasets": datasets, "metadata": {"method": method}}


def image_attributes(grid: Grid, levels: int, dataset: SectionDataset) -> dict[str, Any]:
    """Attributes of the root group of a finished volume, but for atlaszarr's own."""
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
        "ome": {
            "version": VERSION,
            "multiscales": [multiscales(name, grid, levels, channels=True, method=method)],
            "omero": {"name": name, "channels": channels, "rdefs": {"model": "color"}},
        }
    }


def labels_attributes() -> dict[str, Any]:
    """Attributes of the ``labels`` group."""
    return {"ome": {"version": VERSION, "labels": ["section"]}}


def section_attributes(grid: Grid, levels: int, sections: Sequence[Section]) -> dict[str, Any]:
    """Attributes of ``labels/section``, whose values are SectionImage ids: neighbours get unlike colours."""
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
        "ome": {
            "version": VERSION,
            "multiscales": [multiscales("section", grid, levels, channels=False, method=method)],
            "image-label": {"colors": colours, "properties": properties, "source": {"image": "../../"}},
        }
    }
