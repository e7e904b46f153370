"""Planes of section and their axes in a reference space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .grid import Grid


@dataclass(frozen=True)
class Plane:
    """A plane of section and its axes in the reference space: 0 p, 1 i, 2 r.

    Attributes
    ----------
    name : str
    fixed : int
        The axis across the plane, along which slice coordinates are measured.
    rows, columns : int
        The axes along which row and column indices increase. In the members of `PLANES`, superior is up, and anterior
        left or, in the transverse plane, up.
    """

    name: str
    fixed: int
    rows: int
    columns: int

    @property
    def as_stored(self) -> Plane:
        """The same plane with rows and columns in the order of an array (z, y, x)."""
        return replace(self, rows=min(self.rows, self.columns), columns=max(self.rows, self.columns))

    def shape(self, grid: Grid) -> tuple[int, int]:
        """Rows and columns of the plane over a grid."""
        return grid.shape[self.rows], grid.shape[self.columns]

    def to_reference(self, grid: Grid, coordinate: float) -> NDArray[np.float64]:
        """Affine from pixels (column, row) at a slice coordinate to (p, i, r), in um: float64, shape (3, 3)."""
        affine = np.zeros((3, 3))
        affine[self.columns, 0] = affine[self.rows, 1] = grid.resolution
        affine[[self.columns, self.rows], 2] = grid.resolution / 2
        affine[self.fixed, 2] = coordinate
        return affine


PLANES = {
    plane.name: plane for plane in (Plane("coronal", 0, 1, 2), Plane("sagittal", 2, 1, 0), Plane("transverse", 1, 0, 2))
}
