"""A phantom brain as reference volumes of an atlas: NRRD files of labels and of intensities.

The headers record the orientation: p from anterior, i from superior, r from left.
"""

from __future__ import annotations

import io
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from ..geometry.spaces import reference_space
from .sectioned_brain import SectionedBrain

#: Directions of p, i and r in NRRD's space left-posterior-superior.
_DIRECTIONS = ((0, 1, 0), (0, 0, -1), (-1, 0, 0))


def annotation_nrrd(phantom: SectionedBrain, resolution: float) -> bytes:
    """An NRRD file of the `annotation` of a phantom: uint32 labels (p, i, r). Every call returns the same bytes.

    Parameters
    ----------
    phantom : SectionedBrain
    resolution : float
        Voxel size in um.
    """
    return _nrrd(phantom.annotation(resolution), resolution)


def template_nrrd(phantom: SectionedBrain, resolution: float) -> bytes:
    """An NRRD file of intensities: uint16 (p, i, r), the mean of the tissue view's channels at each voxel's centre.

    Parameters
    ----------
    phantom : SectionedBrain
    resolution : float
        Voxel size in um.
    """
    planes, rows, columns = (int(extent // resolution) for extent in reference_space(9).extent)
    volume = np.empty((planes, rows, columns), np.uint16)
    for k in range(planes):
        first = ((k + 0.5) * resolution, 0.5 * resolution, 0.5 * resolution)
        # Columns of a coronal plane lie along r, rows along i.
        plane = [[0, 0, first[0]], [0, resolution, first[1]], [resolution, 0, first[2]]]
        volume[k] = np.rint(phantom.draw_rows(plane, 0, (rows, columns)).mean(axis=-1))
    return _nrrd(volume, resolution)


def _nrrd(volume: NDArray[Any], resolution: float) -> bytes:
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array(_DIRECTIONS) * resolution,
        "space origin": np.zeros(3),
        "space units": ["um", "um", "um"],
        "encoding": "gzip",
    }
    out = io.BytesIO()
    nrrd.write(out, volume, header, compression_level=1)
    head, _, voxels = out.getvalue().partition(b"\n\n")
    # The comment holds the time of writing.
    lines = [line for line in head.split(b"\n") if not line.startswith(b"#")]
    return b"\n".join([*lines, b"", voxels])
