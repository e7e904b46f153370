"""The phantom brain as reference volumes of an atlas: NRRD files of labels and of intensities.

The headers record the orientation: p from anterior, i from superior, r from left.
"""

from __future__ import annotations

import io
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from .phantom import Phantom

#: Directions of p, i and r in NRRD's space left-posterior-superior.
_DIRECTIONS = ((0, 1, 0), (0, 0, -1), (-1, 0, 0))


def annotation_nrrd(phantom: Phantom, resolution: float) -> bytes:
    """An NRRD file of `Phantom.annotation`: uint32 labels (p, i, r). Every call returns the same bytes.

    Parameters
    ----------
    phantom : Phantom
    resolution : float
        Voxel size in um.
    """
    return _nrrd(phantom.annotation(resolution), resolution)


def template_nrrd(phantom: Phantom, resolution: float) -> bytes:
    """An NRRD file of intensities: uint16 (p, i, r), the mean of the tissue view's channels at each voxel's centre.

    Parameters
    ----------
    phantom : Phantom
    resolution : float
        Voxel size in um.
    """
    shape = phantom.annotation(resolution).shape
    volume = np.empty(shape, np.uint16)
    for k in range(shape[0]):
        first = ((k + 0.5) * resolution, 0.5 * resolution, 0.5 * resolution)
        # Columns of a coronal plane lie along r, rows along i.
        plane = [[0, 0, first[0]], [0, resolution, first[1]], [resolution, 0, first[2]]]
        volume[k] = np.rint(phantom.draw_rows(plane, 0, shape[1:]).mean(axis=-1))
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
