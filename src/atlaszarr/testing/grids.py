"""The expression grids of the phantom brain, as the service sends them: a zip of MetaImage, float32, -1 for no data.

A grid of the P56 spaces has a point every 200 um from edge to edge of the space: 67 x 41 x 58. A point is inside the
brain or has no data; sagittal datasets have data at low r only, as those of the Allen Institute.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.spaces import reference_space
from .sectioned_brain import SectionedBrain

#: The quantities of a grid.
QUANTITIES = ("energy", "density", "intensity")
#: Distance of two points, in um.
_STEP = 200.0
_SAGITTAL = 2
_SPACES = (9, 10)
#: The time of the members of a zip, so that its bytes are always the same.
_TIME = (2007, 1, 11, 0, 0, 0)


def grid_values(phantom: SectionedBrain, dataset: Mapping[str, Any]) -> dict[str, NDArray[np.float32]] | None:
    """The grids of a dataset by their quantity; None if its reference space is not of the adult mouse.

    Density is the red channel of the expression view as a part of 255, intensity the mean of the channels of the tissue
    view where density is not 0, else 0, and energy their product.

    Parameters
    ----------
    phantom : SectionedBrain
        With the greys of the dataset.
    dataset : mapping
        A SectionDataSet record.

    Returns
    -------
    dict of str to ndarray, float32, shape (p, i, r), or None
    """
    if dataset.get("reference_space_id") not in _SPACES:
        return None
    axes = [np.arange(round(n / _STEP) + 1) * _STEP for n in reference_space(9).extent]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    density = phantom.expression(points)[..., 0] / 255
    intensity = np.where(density > 0, phantom.rgb(points).mean(axis=-1), 0)
    has_data = phantom.labels(points) > 0
    if dataset.get("plane_of_section_id") == _SAGITTAL:
        has_data &= points[..., 2] < reference_space(9).extent[2] / 2
    found = {"density": density, "intensity": intensity, "energy": density * intensity}
    return {name: np.where(has_data, values, -1).astype(np.float32) for name, values in found.items()}


def grid_archive(phantom: SectionedBrain, dataset: Mapping[str, Any], include: Sequence[str]) -> bytes | None:
    """The zip of the grids of a dataset; None if it has none."""
    if (grids := grid_values(phantom, dataset)) is None:
        return None
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in include:
            values = grids[name]
            header = _HEADER.format(shape=" ".join(map(str, values.shape)), step=f"{_STEP:g}", name=name)
            archive.writestr(zipfile.ZipInfo(f"{name}.mhd", _TIME), header)
            archive.writestr(zipfile.ZipInfo(f"{name}.raw", _TIME), values.astype("<f4").tobytes(order="F"))
    return body.getvalue()


#: The header of a real grid, of dataset 69289763.
_HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
CenterOfRotation = 0 0 0
AnatomicalOrientation = RAI
ElementSpacing = {step} {step} {step}
DimSize = {shape}
ElementType = MET_FLOAT
ElementDataFile = {name}.raw
"""
