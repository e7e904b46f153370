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
    """The sides of pixels where the label on the other side is another one, joined to lines as long as can be.

    Returns
    -------
    ndarray, float64, shape (lines, 2, 2)
        (column, row) coordinates of both ends of each, in um.
    """
    level = _runs(plane.labels[1:] != plane.labels[:-1])
    upright = _runs((plane.labels[:, 1:] != plane.labels[:, :-1]).T)
    # A run is (which line, first pixel, behind the last); lines lie behind the pixel of their number.
    ends = [
        np.stack([level[:, [1, 2]], np.repeat(level[:, :1] + 1, 2, axis=1)], axis=-1),
        np.stack([np.repeat(upright[:, :1] + 1, 2, axis=1), upright[:, [1, 2]]], axis=-1),
    ]
    return np.asarray(np.concatenate(ends) * plane.size[::-1] + plane.corner[::-1])


def _runs(marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The runs of True along the last axis: (row, start, stop), shape (runs, 3)."""
    steps = np.diff(np.pad(marked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, stops) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return np.stack([rows, starts, stops], axis=-1)
