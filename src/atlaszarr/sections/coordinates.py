"""What every lazy dataset says of its grid, as xarray takes it: where its voxels lie, and what they are of."""

from __future__ import annotations

from typing import Any

from .. import credit
from ..allen.records import SectionDataset
from ..geometry.grid import Grid
from ..geometry.spaces import AXES


def coordinates_along(grid: Grid, axis: int, dimension: str) -> dict[str, Any]:
    """The places of the voxels along an axis (0 p, 1 i, 2 r), for a dimension.

    Returns
    -------
    dict of str to tuple
        Under the dimension's name those of the OME-Zarr that `build` writes, in mm; under p_um, i_um or r_um those of
        the reference space, in um. float64.
    """
    return {
        dimension: (dimension, grid.physical(axis), {"units": "mm"}),
        f"{AXES[axis]}_um": (dimension, grid.centres(axis), {"units": "um"}),
    }


def attributes(dataset: SectionDataset, grid: Grid, mirror: bool) -> dict[str, Any]:
    """What a dataset is registered to, and whom to credit."""
    return {
        "section_dataset": dataset.id,
        "reference_space": grid.space.id,
        "mirrored": int(mirror),
        "resolution_um": grid.resolution,
        "anchor_um": grid.space.anchor,
        **credit.SECTIONS,
    }
