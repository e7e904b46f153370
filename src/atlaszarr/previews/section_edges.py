"""The edges of section images in a reference space, named by their sides. No I/O, no drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..allen.records import SectionDataset
from ..geometry.plane import Plane
from ..geometry.spaces import reference_space
from ..transforms import apply, image_to_reference

#: The low and the high end of p, i and r.
ENDS = (("anterior", "posterior"), ("superior", "inferior"), ("left", "right"))
#: What neuroscientists call p, i and r: anteroposterior, dorsoventral and mediolateral.
LETTERS = ("AP", "DV", "ML")


@dataclass(frozen=True, eq=False)
class Edges:
    """One of the four edges, such as the superior one, of each section image.

    Attributes
    ----------
    name : str
        The end of `axis` at which the edges lie: one of `ENDS`.
    axis : int
        0 p, 1 i, 2 r. In a view along this axis, the sections are lines side by side.
    ends : ndarray, float64, shape (sections, 2, 3)
        (p, i, r) of both ends of each edge, in um.
    """

    name: str
    axis: int
    ends: NDArray[np.float64]


def corners_in_space(dataset: SectionDataset, mirror: bool = False) -> NDArray[np.float64]:
    """The corners of the section images in the reference space.

    Parameters
    ----------
    dataset : SectionDataset
    mirror : bool
        Whether to mirror left to right; see `atlaszarr.sections.alignment.align_sections`.

    Returns
    -------
    ndarray, float64, shape (sections, 4, 3)
        (p, i, r) in um of the full-resolution pixels (0, 0), (width, 0), (width, height), (0, height).

    Raises
    ------
    RecordError
        If the dataset has no 3-D alignment.
    """
    tvr, _ = dataset.alignment
    corners = np.empty((len(dataset.sections), 4, 3))
    for corner, section in zip(corners, dataset.sections, strict=True):
        w, h = section.width, section.height
        corner[:] = image_to_reference([(0, 0), (w, 0), (w, h), (0, h)], section.depth, section.tsv, tvr)
    return apply(reference_space(dataset.space).mirror, corners) if mirror else corners


def edges_of(corners: NDArray[np.float64], plane: Plane) -> tuple[Edges, ...]:
    """Group the edges of section images by side, also for images that are rotated or mirrored.

    Parameters
    ----------
    corners : ndarray, float64, shape (sections, 4, 3)
        The corners in order around each image.
    plane : Plane
        Plane of the sections.

    Returns
    -------
    tuple of Edges
        The edges at both ends of the axis `plane.rows`, then of the axis `plane.columns`.
    """
    edges = np.stack([corners, np.roll(corners, -1, axis=1)], axis=2)  # (sections, edge, end, pir)
    midpoints = edges.mean(axis=2)
    across = midpoints[:, [2, 3]] - midpoints[:, [0, 1]]  # from an edge to the opposite one
    down, aside = np.abs(across[..., plane.rows]), np.abs(across[..., plane.columns])
    # One pair of opposite edges is above and below, the other left and right; choose the assignment that fits better.
    turned = down[:, 0] * aside[:, 1] < down[:, 1] * aside[:, 0]
    sections = np.arange(len(corners))
    sides = []
    for axis, pair in ((plane.rows, turned.astype(int)), (plane.columns, 1 - turned.astype(int))):
        reversed_ = across[sections, pair, axis] < 0
        for end, name in enumerate(ENDS[axis]):
            sides.append(Edges(name, axis, edges[sections, pair + 2 * (reversed_ ^ bool(end))]))
    return tuple(sides)
