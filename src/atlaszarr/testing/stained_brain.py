"""A brain as the emulator draws it: labels at any point, stained with greys that differ between section datasets.

A subclass gives the structure at a point. The darkness of a structure is that of a Nissl stain, changed for each
dataset by its id, so that no registration can know the greys of a section from those of another dataset.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .brain_kernels import Slots, brain_paint
from .sectioned_brain import Array, SectionedBrain, Triple

#: Darkness of a Nissl stain, the mean of the structures.
MEAN_DARKNESS = 0.42
#: Standard deviation of the darkness of a structure between datasets. A Nissl stain spreads about 0.2 over structures.
_VARIATION = 0.07
#: Part of the structures that a dataset expresses, in which the stain is dark; its darkness and expression, from to.
_EXPRESSED, _DARK, _EXPRESSION = 0.08, (0.7, 1.0), (0.4, 1.0)
#: The texture: sides of its cells in um, and amplitudes as parts of the darkness; cell bodies are 13 um wide.
_OCTAVES = ((90.0, 0.11), (36.0, 0.12))
_BODIES = (22.0, 1.5)
_TEXTURE = 1


class StainedBrain(SectionedBrain):
    """A brain of labels.

    Parameters
    ----------
    ids : ndarray, uint32, shape (n,)
        The structure of each slot; that of slot 0 is 0.
    darkness : ndarray, float64, shape (n,)
        Of each slot in a Nissl stain, 0 (paper) to 1; what is 0 is so in all datasets.

    Attributes
    ----------
    levels : ndarray, float64, shape (n,)
        Darkness of each slot in the dataset.
    expressed : ndarray, float64, shape (n,)
        Expression of each slot in the dataset, 0 to 1.
    """

    background: Triple = (240.0, 239.0, 236.0)
    ink: Triple = (62.0, 40.0, 105.0)

    def __init__(self, ids: NDArray[np.uint32], darkness: Array) -> None:
        self.ids, self._darkness = ids, darkness
        self.levels = darkness
        self.expressed = np.zeros(len(darkness))
        self.dataset_id: int | None = None

    @abstractmethod
    def slots(self, pir: ArrayLike) -> Slots:
        """The slot of `ids` at each point: uint16, shape (...)."""

    def of_dataset(self, dataset_id: int) -> Self:
        """Same as in `SectionedBrain`."""
        other = copy.copy(self)
        tissue = self._darkness > 0
        draws = np.array([np.random.default_rng([dataset_id, int(id)]).random(5) for id in self.ids])
        # The sum of three uniform variables has the mean 1.5 and the standard deviation 0.5.
        change = 2.0 * _VARIATION * (draws[:, :3].sum(axis=1) - 1.5)
        levels = np.clip(self._darkness + change, 0.08, 0.95)
        is_expressed = tissue & (draws[:, 3] < _EXPRESSED)
        dark = _DARK[0] + (_DARK[1] - _DARK[0]) * draws[:, 4]
        levels = np.where(is_expressed, np.maximum(levels, dark), levels)
        other.levels = np.where(tissue, levels, 0.0)
        other.expressed = np.where(is_expressed, _EXPRESSION[0] + (_EXPRESSION[1] - _EXPRESSION[0]) * draws[:, 4], 0.0)
        other.dataset_id = dataset_id
        return other

    def with_contrast(self, factor: float) -> Self:
        """The brain with the difference of each structure's darkness from `MEAN_DARKNESS` multiplied by a factor."""
        other = copy.copy(self)
        scaled = MEAN_DARKNESS + (self.levels - MEAN_DARKNESS) * factor
        other.levels = np.where(self._darkness > 0, np.clip(scaled, 0.0, 1.0), 0.0)
        return other

    def labels(self, pir: ArrayLike) -> NDArray[np.uint32]:
        """Same as in `SectionedBrain`."""
        return np.asarray(self.ids[self.slots(pir)])

    def rgb(self, pir: ArrayLike, pixel: float = 0.0) -> Array:
        """Same as in `SectionedBrain`; texture is left out in cells of less than two pixels, faint in less than six."""
        points = np.asarray(pir, np.float64)
        texture = np.array([*_OCTAVES, _BODIES])
        if pixel > 0:
            texture[:, 1] *= np.clip(texture[:, 0] / (4.0 * pixel) - 0.5, 0.0, 1.0)
        octaves = np.ascontiguousarray(texture[:-1][texture[:-1, 1] > 0])
        size, amplitude = texture[-1].tolist()
        paper, ink = np.array(self.background), np.array(self.ink)
        slots = self.slots(points)
        return brain_paint(points, slots, self.levels, octaves, (size, amplitude), paper, ink, _TEXTURE)

    def heat(self, pir: ArrayLike) -> Array:
        """Same as in `SectionedBrain`."""
        return np.asarray(self.expressed[self.slots(pir)])

    def is_uniform(self, pir: ArrayLike, distance: float) -> NDArray[np.bool_]:
        """Whether a point has the label of the 26 points around it, at a distance along the axes and diagonals.

        Parameters
        ----------
        pir : array_like, shape (..., 3)
            (p, i, r) in um of reference space 9.
        distance : float
            In um.

        Returns
        -------
        ndarray, bool, shape (...)
        """
        points = np.asarray(pir, np.float64)
        slots = self.slots(points)
        same = np.ones(slots.shape, bool)
        for step in np.ndindex(3, 3, 3):
            direction = np.array(step, np.float64) - 1.0
            length = float(np.linalg.norm(direction)) or 1.0
            same &= self.slots(points + direction * (distance / length)) == slots
        return same
