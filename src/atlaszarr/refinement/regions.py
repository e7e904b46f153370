"""The regions of an annotation in a plane, and the mean of a section image within each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: The mean of the whole brain counts as much as that of a label of this area, in um2: 20 pixels of 25 um. The mean of a
#: smaller label follows its texture, and would fit wherever the label lies.
PRIOR_AREA = 20 * 25.0**2
#: What lies within this distance of the brain is compared too, since it shows the outline, in um: a recorded
#: registration is off by some 300 um.
_MARGIN = 400.0
#: A part of the tissue is lost if it covers less of the brain than this: whole sections of the benchmark cover 0.96 or
#: more, with tears and holes 0.91, half a section 0.55.
_WHOLE = 0.9


@dataclass(frozen=True, eq=False)
class PlaneRegions:
    """The regions of an annotation in the plane of a section.

    Attributes
    ----------
    indices : ndarray, int64, shape (rows, columns)
        The index of the label of each pixel.
    count : int
        Number of labels.
    brain : ndarray, bool, shape (rows, columns)
        Where the label is not 0.
    near : ndarray, bool, shape (rows, columns)
        The brain and 400 um around it.
    resolution : float
        Pixel size in um.
    margin : float
        How far within the outline of the brain paper shows that tissue is displaced, in um; deeper, that it is lost.
    """

    indices: NDArray[np.int64]
    count: int
    brain: Mask
    near: Mask
    resolution: float
    margin: float = _MARGIN

    @cached_property
    def deep(self) -> Mask:
        """The brain that lies deeper than the margin within its outline, bool, shape (rows, columns)."""
        from scipy import ndimage

        return np.asarray(ndimage.distance_transform_edt(self.brain, sampling=self.resolution) > self.margin)

    def for_tissue(self, stained: Mask) -> Self:
        """The regions for tissue in the same pixels: without a margin, if a part of it is lost.

        A section would else be stretched until it fills the brain.
        """
        return self if stained.sum() >= _WHOLE * self.brain.sum() else replace(self, margin=0.0)

    @classmethod
    def of(cls, labels: NDArray[Any], resolution: float) -> Self:
        """The regions of labels of shape (rows, columns), 0 outside the brain, with pixels of a size in um."""
        from scipy import ndimage

        found, indices = np.unique(labels, return_inverse=True)
        brain = np.asarray(labels) != 0
        # Without a brain, distances are not defined.
        near = ndimage.distance_transform_edt(~brain, sampling=resolution) <= _MARGIN if brain.any() else brain
        return cls(indices.reshape(labels.shape).astype(np.int64), len(found), brain, near, resolution)

    def means(self, image: Array, valid: Mask, template: Array | None = None) -> Array:
        """Paint each region with the mean of an image within it; 0 outside the brain.

        Parameters
        ----------
        image : ndarray, float64, shape (rows, columns)
            In the pixels of the plane.
        valid : ndarray, bool, shape (rows, columns)
            The pixels whose values count.
        template : ndarray, float64, shape (rows, columns), optional
            The multiple of it that fits the image best is added, less its mean in each region.

        Returns
        -------
        ndarray, float64, shape (rows, columns)
            Means of small regions are drawn to that of the brain.
        """
        counts, sums = self._sums(image, valid)
        inside = valid & self.brain
        overall = float(image[inside].mean()) if inside.any() else 0.0
        weight = PRIOR_AREA / self.resolution**2
        painted = np.where(self.brain, ((sums + weight * overall) / (counts + weight))[self.indices], 0.0)
        if template is None:
            return painted
        rest = np.where(self.brain, template - self.means(template, valid), 0.0)
        return painted + _slope((image - painted)[inside], rest[inside]) * rest

    def explained(self, image: Array, valid: Mask, template: Array | None = None) -> float:
        """The share of the variance of an image in the brain that labels, and a template, explain, 0 to 1."""
        inside = valid & self.brain
        if not inside.any():
            return 0.0
        values = image[inside]
        total = float(((values - values.mean()) ** 2).sum())
        rest = self._rest(image, inside)
        if template is not None:
            other = self._rest(template, inside)
            rest = rest - _slope(rest, other) * other
        return 1.0 - float((rest**2).sum()) / total if total > 0 else 0.0

    def _rest(self, image: Array, valid: Mask) -> Array:
        """The values of an image at valid pixels less the means of their labels."""
        counts, sums = self._sums(image, valid)
        return np.asarray(image[valid] - (sums / np.maximum(counts, 1))[self.indices[valid]])

    def _sums(self, image: Array, valid: Mask) -> tuple[Array, Array]:
        indices = self.indices[valid]
        counts = np.bincount(indices, minlength=self.count).astype(np.float64)
        sums = np.bincount(indices, weights=image[valid], minlength=self.count).astype(np.float64)
        return counts, sums


def _slope(values: Array, by: Array) -> float:
    """The multiple of `by` that is nearest to values; both have the mean 0."""
    length = float((by**2).sum())
    return float((values * by).sum()) / length if length else 0.0
