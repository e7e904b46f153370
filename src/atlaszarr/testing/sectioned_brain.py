"""A brain of which the emulator draws sections: labels, a tissue view and an expression view at any point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..geometry.spaces import reference_space

Array = NDArray[np.float64]
Triple = tuple[float, float, float]

_EXTENT = reference_space(9).extent
#: r of the midline, in um.
MIDLINE = _EXTENT[2] / 2
#: Pixels drawn at once: about 100 MB.
_AT_ONCE = 500_000


class SectionedBrain(ABC):
    """What the emulator needs of a brain.

    Attributes
    ----------
    background : tuple of float
        Grey levels (red, green, blue) outside the brain.
    is_symmetric : bool
        Whether the labels of the two hemispheres mirror each other.
    """

    background: Triple
    is_symmetric = False

    @abstractmethod
    def of_dataset(self, dataset_id: int) -> Self:
        """The brain with the greys of a section dataset; the same greys for the same id."""

    @abstractmethod
    def with_contrast(self, factor: float) -> Self:
        """The brain with the contrast between structures multiplied; InputError if its greys are not those of any."""

    @abstractmethod
    def labels(self, pir: ArrayLike) -> NDArray[np.uint32]:
        """The structure at each point.

        Parameters
        ----------
        pir : array_like, shape (..., 3)
            (p, i, r) in um of reference space 9.

        Returns
        -------
        ndarray, uint32, shape (...)
            Structure id; 0 outside the brain.
        """

    @abstractmethod
    def rgb(self, pir: ArrayLike, pixel: float = 0.0) -> Array:
        """The tissue view.

        Parameters
        ----------
        pir : array_like, shape (..., 3)
            (p, i, r) in um of reference space 9.
        pixel : float
            Size of a pixel in um: what is too fine for it is left out. 0 leaves nothing out.

        Returns
        -------
        ndarray, float64, shape (..., 3)
            Red, green and blue grey levels, 0 to 255, not rounded.
        """

    @abstractmethod
    def heat(self, pir: ArrayLike) -> Array:
        """Expression at points (..., 3) in um of reference space 9: float64, shape (...), 0 to 1."""

    def expression(self, pir: ArrayLike) -> Array:
        """The expression view: heat colours, black for no expression.

        Parameters
        ----------
        pir : array_like, shape (..., 3)
            (p, i, r) in um of reference space 9.

        Returns
        -------
        ndarray, float64, shape (..., 3)
            Red, green and blue grey levels, 0 to 255, not rounded.
        """
        heat = self.heat(pir)
        return np.stack([255.0 * heat * (2.0 - heat), 255.0 * heat * heat, 160.0 * heat * (1.0 - heat)], axis=-1)

    def annotation(self, resolution: float) -> NDArray[np.uint32]:
        """The labels of a whole grid of reference space 9, sampled at the voxel centres.

        Parameters
        ----------
        resolution : float
            Voxel size in um.

        Returns
        -------
        ndarray, uint32, shape (p, i, r)
            The `labels` at the centre (k + 1/2) resolution of each voxel; the shape at 25 um is (528, 320, 456).
        """
        shape = annotation_shape(resolution)
        axes = [(np.arange(n) + 0.5) * resolution for n in shape]
        volume = np.empty(shape, np.uint32)
        is_mirrored = self.is_symmetric and shape[2] * resolution == _EXTENT[2]
        columns = (shape[2] + 1) // 2 if is_mirrored else shape[2]
        points = np.empty((shape[1], columns, 3))
        points[..., 1], points[..., 2] = axes[1][:, np.newaxis], axes[2][:columns]
        for k, p in enumerate(axes[0]):
            points[..., 0] = p
            volume[k, :, :columns] = self.labels(points)
        volume[..., columns:] = volume[..., : shape[2] - columns][..., ::-1]
        return volume

    def draw(self, pixel_to_pir: ArrayLike, shape: tuple[int, int], expression: bool = False) -> NDArray[np.uint8]:
        """Draw a plane: `rgb` or `expression` at each pixel, rounded.

        Parameters
        ----------
        pixel_to_pir : array_like, shape (3, 3)
            (x, y, 1) of pixel centres to (p, i, r) in um of reference space 9.
        shape : tuple of int
            Rows and columns.
        expression : bool
            Draw the expression view instead of the tissue.

        Returns
        -------
        ndarray, uint8, shape (rows, columns, 3)
        """
        return draw_strips(shape, lambda top, part: self.draw_rows(pixel_to_pir, top, part, expression))

    def draw_rows(
        self, pixel_to_pir: ArrayLike, first_row: int, shape: tuple[int, int], expression: bool = False
    ) -> Array:
        """Rows of `draw` from `first_row`, before rounding: float64, shape (rows, columns, 3)."""
        affine = np.asarray(pixel_to_pir, np.float64)
        rows, columns = shape
        points = np.arange(columns)[:, np.newaxis] * affine[:, 0] + affine[:, 2]
        points = points + (np.arange(first_row, first_row + rows)[:, np.newaxis] * affine[:, 1])[:, np.newaxis]
        return self.expression(points) if expression else self.rgb(points, pixel_size(affine))


def draw_strips(shape: tuple[int, int], values: Callable[[int, tuple[int, int]], Array]) -> NDArray[np.uint8]:
    """Draw a picture in strips of rows, which bounds the memory.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the picture.
    values : callable
        Takes the first row of a strip and its shape (rows, columns); returns its grey levels, not rounded: a new array,
        float64, shape (rows, columns, 3).

    Returns
    -------
    ndarray, uint8, shape (rows, columns, 3)
        The rounded grey levels.
    """
    rows, columns = shape
    picture = np.empty((rows, columns, 3), np.uint8)
    height = max(1, _AT_ONCE // max(columns, 1))
    for top in range(0, rows, height):
        strip = values(top, (min(height, rows - top), columns))
        picture[top : top + height] = np.rint(strip, out=strip)
    return picture


def annotation_shape(resolution: float) -> tuple[int, ...]:
    """The shape (p, i, r) of reference space 9 at a voxel size in um."""
    return tuple(int(extent // resolution) for extent in _EXTENT)


def pixel_size(pixel_to_pir: ArrayLike | None) -> float:
    """The mean size of a pixel in um, of an affine (3, 3) from pixels to um; 0 without an affine."""
    return 0.0 if pixel_to_pir is None else float(np.linalg.norm(np.asarray(pixel_to_pir)[:, :2], axis=0).mean())
