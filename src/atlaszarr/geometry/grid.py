"""Grid: a reference space at a resolution, with its voxel centres and physical coordinates. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .spaces import AXES, ReferenceSpace


@dataclass(frozen=True)
class Grid:
    """Cubic voxels over a reference space, with array axes (z, y, x) = (p, i, r).

    Voxel k spans [k s, (k + 1) s) um and is sampled at its centre, (k + 1/2) s.

    Attributes
    ----------
    space : ReferenceSpace
    resolution : float
        Voxel size s, in um.
    """

    space: ReferenceSpace
    resolution: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.resolution) and 0 < self.resolution <= min(self.space.extent)):
            raise InputError(
                f"resolution {self.resolution:g} um must be positive and at most {min(self.space.extent):g}, "
                f"the shortest side of reference space {self.space.id}",
                code="out-of-range",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (z, y, x), rounded up to include the whole space."""
        z, y, x = (math.ceil(round(extent / self.resolution, 9)) for extent in self.space.extent)
        return z, y, x

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Reference-space coordinates of the voxel centres along an axis (0 p, 1 i, 2 r): float64, in um."""
        return (np.arange(self.shape[axis], dtype=np.float64) + 0.5) * self.resolution

    def physical(self, axis: int) -> NDArray[np.float64]:
        """OME-Zarr coordinates of the voxel centres along an axis: float64, in mm, (um - anchor/2) / 1000.

        From the scale and the translation of an image, rounded to 1e-12 mm: coordinates that are computed so elsewhere
        are equal to the last bit, and xarray drops voxels whose coordinates are not.
        """
        return np.round(self.first + self.size * np.arange(self.shape[axis], dtype=np.float64), 12)

    @property
    def size(self) -> float:
        """The scale of an image over the grid: the side of a voxel in mm."""
        return self.resolution / 1000

    @property
    def first(self) -> float:
        """The translation of an image over the grid: the `physical` coordinate of the first voxel, in mm."""
        return (self.resolution - self.space.anchor) / 2000

    def coordinates(self, axis: int, dimension: str) -> dict[str, tuple[str, NDArray[np.float64], dict[str, str]]]:
        """The voxel centres along an axis (0 p, 1 i, 2 r) as xarray coordinates of a dimension.

        Returns
        -------
        dict of str to tuple
            Dimension, float64 values and attributes of two coordinates: `physical`, in mm, under the dimension's name,
            and `centres`, in um, as p_um, i_um or r_um.
        """
        return {
            dimension: (dimension, self.physical(axis), {"units": "mm"}),
            f"{AXES[axis]}_um": (dimension, self.centres(axis), {"units": "um"}),
        }

    @property
    def to_reference(self) -> NDArray[np.float64]:
        """Affine from voxel indices (z, y, x) to (p, i, r) of the voxel centres, in um: float64, shape (3, 4)."""
        affine = np.zeros((3, 4))
        np.fill_diagonal(affine, self.resolution)
        affine[:, 3] = self.resolution / 2
        return affine
