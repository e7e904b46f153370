"""A quick warp of a section by polynomials, that makes the regions of a plane explain most of its darkness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrays import points_of, sampled
from .regions import PlaneRegions

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Degree of the polynomials in x and y.
_DEGREE = 3
#: Standard deviation of the smoothing of the section in pixels, and steps, at each level.
_LEVELS = ((2.0, 6), (1.0, 6))
#: What a coefficient of 1 pixel adds to the logarithm of the unexplained share: a constant, linear and higher terms.
_COSTS = (3e-5, 3e-4, 1e-3)
#: The unit of the polynomials, as a multiple of the root mean square distance of the brain from its centre.
_UNIT = 1.5
#: The longest change of a coefficient in a step, in pixels.
_STEP = 2.0


def explained_by_warp(image: Array, shown: Mask, regions: PlaneRegions, template: Array | None = None) -> float:
    """Warp an image to regions, and find the share of its variance that they explain.

    Parameters
    ----------
    image : ndarray, float64, shape (rows, columns)
        Evened, so that its outline is no stronger than its regions.
    shown : ndarray, bool, shape (rows, columns)
        The pixels whose values are known.
    regions : PlaneRegions
        In the same pixels.
    template : ndarray, float64, shape (rows, columns), optional
        An image whose multiple explains what the regions do not.

    Returns
    -------
    float
        0 to 1; 0 without a brain or variance.

    Notes
    -----
    Gauss-Newton steps on the logarithm of the unexplained share of the variance, over the brain and what is near, with
    the means of the regions at each step those of the warped image (variable projection: Golub and Pereyra 1973, SIAM
    Journal on Numerical Analysis 10, 413-432).
    """
    from scipy import ndimage

    if not regions.brain.any():
        return 0.0
    basis, costs = _polynomials(regions.brain)
    warp = np.zeros((2, len(basis)))
    for sigma, steps in _LEVELS:
        smooth = np.asarray(ndimage.gaussian_filter(image, sigma))
        for _ in range(steps):
            seen = _Seen.of(smooth, shown, warp, basis, regions, template)
            if seen is None:
                return 0.0
            step = seen.step(warp, costs)
            warp = warp + step * min(1.0, _STEP / max(float(np.abs(step).max()), 1e-12))
    last = _Seen.of(image, shown, warp, basis, regions, template)
    return 1.0 - last.unexplained if last is not None else 0.0


def _polynomials(brain: Mask) -> tuple[Array, Array]:
    """The polynomials over a grid, (n, rows, columns), about 1 at the outline of the brain, and their costs (n,)."""
    rows, columns = np.nonzero(brain)
    centre = np.array([columns.mean(), rows.mean()])
    unit = max(_UNIT * float(np.sqrt(columns.var() + rows.var())), 1.0)
    x, y = (points_of(brain.shape) - centre[:, np.newaxis, np.newaxis]) / unit
    powers = [(degree - j, j) for degree in range(_DEGREE + 1) for j in range(degree + 1)]
    costs = [_COSTS[min(a + b, len(_COSTS) - 1)] for a, b in powers]
    return np.stack([x**a * y**b for a, b in powers]), np.array(costs)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A warped image at the pixels that are compared.

    Attributes
    ----------
    rest : ndarray, float64, shape (pixels,)
        What the regions and the template do not explain.
    centred : ndarray, float64, shape (pixels,)
        The image less its mean.
    slopes : ndarray, float64, shape (2 n, pixels)
        The derivatives of the image by the coefficients of the warp.
    projection : _Projection
    """

    rest: Array
    centred: Array
    slopes: Array
    projection: _Projection

    @classmethod
    def of(
        cls, image: Array, shown: Mask, warp: Array, basis: Array, regions: PlaneRegions, template: Array | None
    ) -> _Seen | None:
        points = points_of(image.shape) + np.tensordot(warp, basis, 1)
        seen = sampled(image, points)
        valid = regions.near & (sampled(shown.astype(np.float64), points, 0.0) > 0.99)
        if not (valid & regions.brain).any():
            return None
        values = np.asarray(seen[valid])
        centred = values - values.mean()
        if not centred.any():
            return None
        down, across = (np.asarray(part) for part in np.gradient(seen))
        inside = basis[:, valid]
        slopes = np.concatenate([across[valid] * inside, down[valid] * inside])
        projection = _Projection.of(regions.indices[valid], None if template is None else template[valid])
        return cls(projection.rest(values[np.newaxis])[0], centred, slopes, projection)

    @property
    def unexplained(self) -> float:
        """The share of the variance that is not explained."""
        return float(self.rest @ self.rest) / float(self.centred @ self.centred)

    def step(self, warp: Array, costs: Array) -> Array:
        """The change of the coefficients of a warp, (2, n), at which least is unexplained."""
        rest = max(float(self.rest @ self.rest), 1e-9)
        total = float(self.centred @ self.centred)
        # The product of the rest, which is projected, with the slopes is that with the projected slopes.
        gradient = self.slopes @ self.rest / rest - self.slopes @ self.centred / total
        around = self.slopes - self.slopes.mean(axis=1, keepdims=True)
        weights = np.tile(costs, 2)
        curvature = around @ around.T / rest + np.diag(weights + 1e-9)
        found = np.linalg.solve(curvature, -gradient - weights * warp.ravel())
        return np.asarray(found.reshape(warp.shape))


@dataclass(frozen=True, eq=False)
class _Projection:
    """What the means of regions and a multiple of a template leave of the values of pixels."""

    indices: NDArray[np.int64]
    counts: Array
    template: Array | None
    """Less the means of its regions, of length 1."""

    @classmethod
    def of(cls, indices: NDArray[np.int64], template: Array | None) -> _Projection:
        counts = np.maximum(np.bincount(indices), 1).astype(np.float64)
        found = cls(indices, counts, None)
        if template is None:
            return found
        rest = np.asarray(found.rest(template[np.newaxis])[0])
        return cls(indices, counts, rest / max(float(np.linalg.norm(rest)), 1e-12))

    def rest(self, values: Array) -> Array:
        """The rest of values of shape (n, pixels)."""
        means = np.stack([np.bincount(self.indices, weights=row) / self.counts for row in values])
        out = values - means[:, self.indices]
        return out if self.template is None else out - np.outer(out @ self.template, self.template)
