"""Lines between unlike labels of a plane. Knows of no files and of no picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabelPlane:
    """Labels of a plane of a reference space.

    Attributes
    ----------
    labels : ndarray, integer, shape (rows, columns)
    corner : tuple of float
        Where the first pixel begins, along the rows' axis and the columns', in um.
    size : tuple of float
        Of a pixel, likewise.
    """

    labels: NDArray[Any]
    corner: tuple[float, float]
    size: tuple[float, float]


def border_lines(plane: LabelPlane) -> NDArray[np.float64]:
    """Lines along the sides of pixels that lie between unlike labels, with the steps of slanting borders cut.

    They run through the middles of those sides. At a corner of pixels where two of them meet, a line joins their
    middles; where another number does, lines lead from the corner to each.

    Returns
    -------
    ndarray, float64, shape (lines, 2, 2)
        (column, row) coordinates of both ends of each, in um.
    """
    rows, columns = plane.labels.shape
    level = plane.labels[1:] != plane.labels[:-1]
    upright = plane.labels[:, 1:] != plane.labels[:, :-1]
    # For each corner of pixels, whether its sides to the left, right, above and below are such.
    sides = np.zeros((4, rows + 1, columns + 1), bool)
    sides[0, 1:-1, 1:] = sides[1, 1:-1, :-1] = level
    sides[2, 1:, 1:-1] = sides[3, :-1, 1:-1] = upright
    middles = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])
    joined = sides.sum(axis=0) == 2
    corners = np.argwhere(joined)[:, ::-1]
    pairs = [sides[:, joined].argmax(axis=0), 3 - sides[::-1, joined].argmax(axis=0)]
    lines = [np.stack([corners + middles[side] for side in pairs], axis=1)]
    for side, middle in zip(sides, middles, strict=True):
        corners = np.argwhere(side & ~joined)[:, ::-1]
        lines.append(np.stack([corners, corners + middle], axis=1))
    return np.asarray(np.concatenate(lines) * plane.size[::-1] + plane.corner[::-1])
