"""Made-up section datasets in the API's JSON shape: for planes, sizes and pixels that the recorded ones do not have.

Section dataset 909 is one of them. It is real, and the classic getting-started page loops over it, but its alignment
is not known here: what this module gives under that id is invented, and its name says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.plane import PLANES
from ..geometry.spaces import reference_space
from .records import Record, image_record, product_records

_PLANE_IDS = {"coronal": 1, "sagittal": 2, "transverse": 6}
_THICKNESS = 25.0
_LINEAR_2D = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2))


def invented(
    id: int = 909,
    plane: str = "coronal",
    numbers: Iterable[int] = range(100, 420, 40),
    size: tuple[int, int] = (6000, 4400),
    resolution: float = 1.9,
    space: int = 9,
    turned: float = 3.0,
    tilted: float = 1.0,
) -> tuple[Record, list[Record]]:
    """A section dataset whose images are centred on the reference space, and its section images.

    Parameters
    ----------
    id : int
        Image ids are 1000 times it, plus the section number.
    plane : str
    numbers : iterable of int
        Section numbers; a section is 25 um thick. Coronal ones rise from posterior to anterior.
    size : tuple of int
        Width and height of every image in pixels.
    resolution : float
        Size of a pixel in um.
    space : int
        Reference space.
    turned, tilted : float
        Degrees by which the images lie turned in their plane, and their plane tilted about their rows.
    """
    lying, extent = PLANES[plane], np.array(reference_space(space).extent)
    tvr = np.zeros((3, 4))
    slope = math.sin(math.radians(tilted))
    tvr[lying.columns, 0] = tvr[lying.rows, 1] = 1.0
    tvr[lying.fixed] = [0.0, slope, -1.0 if plane == "coronal" else 1.0, -slope * extent[lying.rows] / 2]
    tvr[lying.fixed, 3] += extent[lying.fixed] if plane == "coronal" else 0.0
    angle = math.radians(turned)
    linear = resolution * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.array([(side - 1) / 2 for side in size])
    shift = extent[[lying.columns, lying.rows]] / 2 - linear @ middle
    tsv = np.column_stack([linear, shift])
    record = {
        "blue_channel": None,
        "delegate": False,
        "expression": True,
        "failed": False,
        "green_channel": None,
        "id": id,
        "name": "invented: not the alignment of any real dataset",
        "plane_of_section_id": _PLANE_IDS[plane],
        "qc_date": None,
        "red_channel": None,
        "reference_space_id": space,
        "section_thickness": _THICKNESS,
        "specimen_id": None,
        "sphinx_id": id,
        "alignment3d": _flat("tvr", tvr) | _flat("trv", _inverse(tvr)),
        "genes": [],
        "products": product_records()[:1],
        "specimen": None,
        "treatments": [],
    }
    images = []
    for number in numbers:
        image = image_record(1000 * id + number, id, number, size, resolution=resolution, expression=True)
        images.append(image | {"alignment2d": _flat("tsv", tsv) | _flat("tvs", _inverse(tsv))})
    return record, images


def _inverse(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.linalg.inv(affine[:, :-1])
    return np.column_stack([linear, -linear @ affine[:, -1]])


def _flat(name: str, affine: NDArray[np.float64]) -> dict[str, Any]:
    """An alignment under the names that the API has for its numbers."""
    if len(affine) == 2:
        return {f"{name}_{k:02d}": float(affine[place]) for k, place in enumerate(_LINEAR_2D)}
    numbers = [*affine[:, :3].ravel().tolist(), *affine[:, 3].tolist()]
    return {f"{name}_{k:02d}": number for k, number in enumerate(numbers)}
