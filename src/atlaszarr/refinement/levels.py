"""How dark the regions of sections are, and what some sections lead to expect of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .regions import PRIOR_AREA

Array = NDArray[np.float64]

#: Standard deviation of the weight of sections along depth, in um: a region is stained alike over some millimetres.
_ALIKE = 1000.0
#: The mean of all counts as much as that of a label of this area, in pixels of 100 um.
_PRIOR_AREA = PRIOR_AREA / 100.0**2


@dataclass(frozen=True, eq=False)
class RegionLevels:
    """The levels of regions: the mean of one section, or of several, within each.

    Attributes
    ----------
    labels : ndarray, int64, shape (regions,)
        Ascending, without 0.
    means : ndarray, float64, shape (regions,)
        Of the evened darkness, see `atlaszarr.refinement.darkness.evened`.
    areas : ndarray, float64, shape (regions,)
        What each mean is worth: its area in pixels of 100 um; of several sections the sum, less for distant ones.
    """

    labels: NDArray[np.int64]
    means: Array
    areas: Array

    @classmethod
    def of(cls, labels: NDArray[Any], values: Array) -> Self:
        """The levels of the values of pixels, by their labels; both of shape (pixels,)."""
        inside = labels != 0
        found, indices = np.unique(labels[inside].astype(np.int64), return_inverse=True)
        areas: Array = np.bincount(indices, minlength=len(found)).astype(np.float64)
        return cls(found, np.asarray(np.bincount(indices, values[inside], len(found)) / areas), areas)

    @classmethod
    def expected(cls, sections: Sequence[Self], distances: ArrayLike) -> Self:
        """The mean levels of sections at distances along depth: nearer ones count more.

        Parameters
        ----------
        sections : sequence of RegionLevels
            At least one.
        distances : array_like, shape (sections,)
            In um, finite.
        """
        far = np.abs(np.asarray(distances, np.float64))
        # Relative to the nearest section: the weights of distant ones alone would vanish.
        weights = np.exp(-0.5 * (far**2 - far.min() ** 2) / _ALIKE**2)
        found, indices = np.unique(np.concatenate([each.labels for each in sections]), return_inverse=True)
        each = np.concatenate([weight * section.areas for weight, section in zip(weights, sections, strict=True)])
        areas: Array = np.bincount(indices, each, len(found)).astype(np.float64)
        sums = np.bincount(indices, each * np.concatenate([section.means for section in sections]), len(found))
        is_seen = areas > 0
        return cls(found[is_seen], sums[is_seen] / areas[is_seen], areas[is_seen])

    def painted(self, labels: NDArray[Any]) -> Array:
        """The level of each pixel: drawn to the mean of all where little is known of a label, 0 outside the brain.

        Parameters
        ----------
        labels : ndarray, integer, shape (rows, columns)

        Returns
        -------
        ndarray, float64, shape (rows, columns)
        """
        total = float(self.areas.sum())
        overall = float((self.areas * self.means).sum()) / total if total else 0.0
        found, indices = np.unique(np.asarray(labels).astype(np.int64), return_inverse=True)
        at = np.minimum(np.searchsorted(self.labels, found), max(len(self.labels) - 1, 0))
        known = self.labels[at] == found if len(self.labels) else np.zeros(len(found), bool)
        levels = np.full(len(found), overall)
        areas = self.areas[at[known]]
        levels[known] = (areas * self.means[at[known]] + _PRIOR_AREA * overall) / (areas + _PRIOR_AREA)
        levels[found == 0] = 0.0
        return levels[indices].reshape(labels.shape)

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {"labels": self.labels.tolist(), "means": self.means.tolist(), "areas": self.areas.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(np.array(content["labels"], np.int64), *(np.array(content[k], float) for k in ("means", "areas")))
