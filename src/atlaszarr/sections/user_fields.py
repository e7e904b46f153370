"""Displacement fields of a user's own for sections: what fits the planes of a grid, and how its voxels see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..allen.records import SectionDataset
from ..boxes import Region
from ..displacement.displacement import Displacement
from ..errors import InputError
from ..geometry.grid import Grid
from ..geometry.plane import Plane
from .alignment import plane_of


@dataclass(frozen=True, eq=False)
class PlaneField:
    """A displacement field that holds wherever across its plane a voxel lies.

    Attributes
    ----------
    plane : Plane
    displacement : Displacement
        Pixel (column, row) of the plane to pixel (X, Y) of the section's tier image.
    """

    plane: Plane
    displacement: Displacement

    def over(self, region: Region) -> NDArray[np.float64]:
        """(X, Y) of the voxels of a block: float64, shape (2, z, y, x), of length 1 across the plane."""
        rows, columns = self.plane.rows, self.plane.columns
        xy = self.displacement.coordinates(region[rows], region[columns])
        return np.expand_dims(xy if rows < columns else xy.swapaxes(1, 2), 1 + self.plane.fixed)


def plane_fields(
    displacement: Mapping[int, Displacement], dataset: SectionDataset, grid: Grid
) -> dict[int, PlaneField]:
    """The fields of sections over a grid, checked.

    Parameters
    ----------
    displacement : mapping of int to Displacement
        By SectionImage id.
    dataset : SectionDataset
        With a 3-D alignment.
    grid : Grid

    Returns
    -------
    dict of int to PlaneField
        By SectionImage id.

    Raises
    ------
    InputError
        If a section is none of the dataset's, or a field is not over the grid of its plane.
    """
    if not displacement:
        return {}  # whatever their plane
    plane = plane_of(dataset)
    check_fields(displacement, dataset, plane, grid)
    return {image_id: PlaneField(plane, field) for image_id, field in displacement.items()}


def check_fields(fields: Mapping[int, Displacement], dataset: SectionDataset, plane: Plane, grid: Grid) -> None:
    """Refuse fields that are not for the sections of a dataset as planes of a grid.

    Parameters
    ----------
    fields : mapping of int to Displacement
        By SectionImage id.
    dataset : SectionDataset
    plane : Plane
    grid : Grid

    Raises
    ------
    InputError
        If they are no mapping, a section is none of the dataset's, or a field is not over the grid of the plane.
    """
    if not isinstance(fields, Mapping):
        raise InputError(f"displacement is of type {type(fields).__name__}; give fields by SectionImage id")
    known = {section.image_id for section in dataset.sections}
    if unknown := sorted(set(fields) - known, key=str):
        raise InputError(
            f"displacement is given for section image {unknown[0]}, which is none of those that dataset "
            f"{dataset.id} can register"
        )
    shape = plane.shape(grid)
    for image_id, field in fields.items():
        if not isinstance(field, Displacement):
            raise InputError(f"displacement of section image {image_id} is no Displacement but {type(field).__name__}")
        if field.shape != shape:
            raise InputError(
                f"displacement of section image {image_id} is over {' x '.join(map(str, field.shape))} pixels, but the "
                f"{plane.name} plane at {grid.resolution:g} um has {shape[0]} x {shape[1]}"
            )
