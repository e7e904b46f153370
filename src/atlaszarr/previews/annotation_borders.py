"""Lines between different labels of a plane. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabelPlane:
    """Labels on a plane of a reference space.

    Attributes
    ----------
    labels : ndarray, integer, shape (rows, columns)
    corner : tuple of float
        Lower corner of the first pixel along the axes of rows and columns, in um.
    size : tuple of float
        Pixel size along the same axes, in um.
    """

    labels: NDArray[Any]
    corner: tuple[float, float]
    size: tuple[float, float]


def border_lines(plane: LabelPlane) -> NDArray[np.float64]:
    """Lines along the sides between pixels of different labels, with the steps of oblique borders smoothed.

    If two such sides meet at a corner, a line joins their midpoints. At any other corner, lines join the corner and the
    midpoint of each side.

    Returns
    -------
    ndarray, float64, shape (lines, 2, 2)
        (column, row) position of both ends of each line, in um.
    """
    rows, columns = plane.labels.shape
    horizontal = plane.labels[1:] != plane.labels[:-1]
    vertical = plane.labels[:, 1:] != plane.labels[:, :-1]
    # For each corner of a pixel, whether labels differ across the side to the left of it, right, above and below.
    sides = np.zeros((4, rows + 1, columns + 1), bool)
    sides[0, 1:-1, 1:] = sides[1, 1:-1, :-1] = horizontal
    sides[2, 1:, 1:-1] = sides[3, :-1, 1:-1] = vertical
    midpoints = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])
    joined = sides.sum(axis=0) == 2
    corners = np.argwhere(joined)[:, ::-1]
    pairs = [sides[:, joined].argmax(axis=0), 3 - sides[::-1, joined].argmax(axis=0)]
    lines = [np.stack([corners + midpoints[side] for side in pairs], axis=1)]
    for side, midpoint in zip(sides, midpoints, strict=True):
        corners = np.argwhere(side & ~joined)[:, ::-1]
        lines.append(np.stack([corners, corners + midpoint], axis=1))
    return np.asarray(np.concatenate(lines) * plane.size[::-1] + plane.corner[::-1])
