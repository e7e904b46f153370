"""The displacement field of a section in millimetres, and the frame of the image that it leads to.

An image is taken to lie in millimetres too: its full-resolution pixel (X, Y) at (X, Y) times the pixel's size, along
the axes that its columns and rows run along in the field's orientation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.plane import PLANES
from ..sections.planes import SectionPlanes

_AXES = "zyx"


def field_in_mm(planes: SectionPlanes, section: int, rows: slice, columns: slice) -> NDArray[np.float64]:
    """The displacement of the pixels of a block: from where they lie in the space to where they lie in the image.

    Returns
    -------
    ndarray, float64, shape (3, rows, columns)
        Along (z, y, x) in mm; 0 across the plane.
    """
    plane, oriented = planes.plane, PLANES[planes.plane.name]
    frame = image_frame(planes, section, 0.0)
    field = np.zeros((3, rows.stop - rows.start, columns.stop - columns.start))
    x, y = planes.displacements[section].coordinates(rows, columns)
    for axis, pixels in ((oriented.columns, x), (oriented.rows, y)):
        field[axis] = frame["translation"][axis] + frame["scale"][axis] * pixels
    field[plane.rows] -= planes.grid.physical(plane.rows)[rows, np.newaxis]
    field[plane.columns] -= planes.grid.physical(plane.columns)[columns]
    return field


def image_frame(planes: SectionPlanes, section: int, thickness: float) -> dict[str, Any]:
    """Where the pixels of a tier image lie, in mm.

    Parameters
    ----------
    planes : SectionPlanes
    section : int
    thickness : float
        Of the section, in um.

    Returns
    -------
    dict
        ``axes``: those that its rows and its columns run along; ``scale`` and ``translation`` along (z, y, x): the
        size of a pixel, and the centre of the first.
    """
    record, request = planes.imaged.sections[section], planes.imaged.requests[section]
    oriented = PLANES[planes.plane.name]
    pixel = record.resolution / 1000
    scale, translation = [0.0] * 3, [0.0] * 3
    for axis in (oriented.columns, oriented.rows):
        scale[axis] = pixel * 2**request.downsample
        translation[axis] = (2**request.downsample - 1) / 2 * pixel
    scale[oriented.fixed] = thickness / 1000
    translation[oriented.fixed] = (planes.coordinates[section] - planes.grid.space.anchor / 2) / 1000
    return {"axes": [_AXES[oriented.rows], _AXES[oriented.columns]], "scale": scale, "translation": translation}
