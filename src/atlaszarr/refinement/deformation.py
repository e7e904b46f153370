"""A very smooth deformation of a section, by local correlation with the means of its regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..transforms import apply
from .affine import rescaled
from .arrays import binned, enlarged, moved, points_of, sampled

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Half of the side of the squares in which two images are correlated, in pixels: squares of 450 um at 50 um.
RADIUS = 4
#: Standard deviation of the smoothing of an update, and of the whole field every fourth step, in pixels of the level:
#: an update is smoothed by 1.4 mm at the first level and by 0.7 mm at the second. Fields that vary over less fit the
#: outline better and the regions worse.
_SMOOTHING, _WHOLE, _WHOLE_EVERY = 14.0, 1.5, 4
#: Pixels joined to smooth an update, which has no detail left at a quarter of its standard deviation.
_JOINED = 4
#: Pixels joined, and steps, at each level of resolution.
_LEVELS = ((2, 40), (1, 40))
#: The longest displacement of a step in pixels, so short that no step folds; what the force is expected to fall by at
#: each step.
_STEP, _FALL = 0.4, 0.98
#: Variance that is added to those of both images, so that squares with little contrast, of a standard deviation below
#: 0.05 of the darkness, have little force.
_VARIANCE = 3e-3
#: Variance below which a square is flat.
_FLAT = 1e-5


def fit_deformation(target: Array, image: Array, mask: Mask, affine: Array) -> Array:
    """Find the smooth field at which an image correlates locally with a target.

    Parameters
    ----------
    target : ndarray, float64, shape (rows, columns)
    image : ndarray, float64, shape (rows, columns)
        0 to 1, and so is the target.
    mask : ndarray, bool, shape (rows, columns)
        Pixels of the target that are compared. A few of them may be moved beyond the edge of the image, where its
        outermost pixels are repeated.
    affine : ndarray, float64, shape (2, 3)
        From pixels of the target, after the deformation, to pixels of the image.

    Returns
    -------
    ndarray, float64, shape (2, rows, columns)
        Displacements in pixels, x first, before the affine.

    Notes
    -----
    The gradient of the squared local correlation coefficient (Avants et al. 2008, Medical Image Analysis 12, 26-41),
    smoothed by a Gaussian; each step is composed with the field so far.
    """
    field = np.zeros((2, *target.shape))
    for factor, steps in _LEVELS:
        small = [binned(each, factor) for each in (target, image, mask.astype(np.float64))]
        start = np.stack([binned(part, factor) for part in field]) / factor
        found = _fit_level(small[0], small[1], small[2], rescaled(affine, factor), start, steps)
        field = enlarged(found, factor, target.shape) if factor > 1 else found
    return field


def _fit_level(target: Array, image: Array, weight: Array, affine: Array, field: Array, steps: int) -> Array:
    from scipy import ndimage

    def smooth(array: Array, sigma: float) -> Array:
        return np.asarray(ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=3.0))

    grid = points_of(target.shape)
    joined = (grid + 0.5) / _JOINED - 0.5
    local = LocalCorrelation(target, weight)
    expected = 0.0
    for step in range(steps):
        points = np.moveaxis(apply(affine, np.moveaxis(grid + field, 0, -1)), -1, 0)
        seen = sampled(image, points)
        force = local.force(seen)
        down, across = np.gradient(seen)
        parts = [smooth(binned(force * slope, _JOINED), _SMOOTHING / _JOINED) for slope in (across, down)]
        update = np.stack([sampled(part, joined) for part in parts])
        longest = float(np.sqrt((update**2).sum(axis=0)).max())
        if longest < 1e-12:
            break
        # The first step has the full length, and the steps fall with the force.
        expected = max(expected * _FALL, longest)
        update *= _STEP / expected
        field = moved(field, grid + update) - grid
        if step % _WHOLE_EVERY == _WHOLE_EVERY - 1:
            field = np.stack([smooth(part, _WHOLE) for part in field])
    return field


class LocalCorrelation:
    """The correlation of images with a target in a square around each pixel.

    Parameters
    ----------
    target : ndarray, float64, shape (rows, columns)
    weight : ndarray, float64, shape (rows, columns)
        Of the pixels, 0 to 1.
    """

    def __init__(self, target: Array, weight: Array) -> None:
        self._weight = weight
        self._sum = np.maximum(self._box(weight), 1e-6)
        self._mean = self._box(target * weight) / self._sum
        self._variance = np.maximum(self._box(target * target * weight) / self._sum - self._mean**2, 0.0)
        self._target = target

    def force(self, image: Array) -> Array:
        """The derivative of the squared correlation by each pixel of an image, for the square around it."""
        mean, variance, covariance = self._moments(image)
        variance += _VARIANCE
        scale = 2.0 * covariance / ((self._variance + _VARIANCE) * variance)
        rest = self._target - self._mean - covariance / variance * (image - mean)
        return np.asarray(scale * rest * self._weight)

    def coefficients(self, image: Array) -> Array:
        """The correlation coefficient around each pixel, -1 to 1; near 0 where either image is flat."""
        _, variance, covariance = self._moments(image)
        variances = np.maximum(self._variance, _FLAT) * np.maximum(variance, _FLAT)
        return np.asarray(covariance / np.sqrt(variances))

    def _moments(self, image: Array) -> tuple[Array, Array, Array]:
        weighted = image * self._weight
        mean = self._box(weighted) / self._sum
        variance = np.maximum(self._box(image * weighted) / self._sum - mean**2, 0.0)
        return mean, variance, self._box(self._target * weighted) / self._sum - self._mean * mean

    def _box(self, array: Array) -> Array:
        from scipy import ndimage

        return np.asarray(ndimage.uniform_filter(array, 2 * RADIUS + 1, mode="constant"))
