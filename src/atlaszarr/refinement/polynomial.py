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
    polynomials = _Polynomials.of(regions.brain)
    warp = np.zeros((2, len(polynomials.costs)))
    for sigma, steps in _LEVELS:
        smooth = np.asarray(ndimage.gaussian_filter(image, sigma))
        for _ in range(steps):
            seen = _Seen.of(smooth, shown, polynomials.displaced(warp), regions, template)
            if seen is None:
                return 0.0
            step = seen.step(warp, polynomials)
            warp = warp + step * min(1.0, _STEP / max(float(np.abs(step).max()), 1e-12))
    last = _Seen.of(image, shown, polynomials.displaced(warp), regions, template)
    return 1.0 - last.unexplained if last is not None else 0.0


@dataclass(frozen=True, eq=False)
class _Polynomials:
    """The polynomials of a warp over a grid, about 1 at the outline of the brain.

    Attributes
    ----------
    monomials : ndarray, float64, shape (m, rows, columns)
        Up to twice the degree; the first n are the polynomials.
    costs : ndarray, float64, shape (n,)
    products : ndarray, int64, shape (n, n)
        Which of the monomials is the product of each two polynomials.
    """

    monomials: Array
    costs: Array
    products: NDArray[np.int64]

    @classmethod
    def of(cls, brain: Mask) -> _Polynomials:
        rows, columns = np.nonzero(brain)
        centre = np.array([columns.mean(), rows.mean()])
        unit = max(_UNIT * float(np.sqrt(columns.var() + rows.var())), 1.0)
        x, y = (points_of(brain.shape) - centre[:, np.newaxis, np.newaxis]) / unit
        powers = [(degree - j, j) for degree in range(2 * _DEGREE + 1) for j in range(degree + 1)]
        count = sum(a + b <= _DEGREE for a, b in powers)
        costs = [_COSTS[min(a + b, len(_COSTS) - 1)] for a, b in powers[:count]]
        products = [[powers.index((a + c, b + d)) for c, d in powers[:count]] for a, b in powers[:count]]
        x_powers, y_powers = (np.stack([each**k for k in range(2 * _DEGREE + 1)]) for each in (x, y))
        monomials = np.stack([x_powers[a] * y_powers[b] for a, b in powers])
        return cls(monomials, np.array(costs), np.array(products))

    def displaced(self, warp: Array) -> Array:
        """The points that a warp, (2, n), moves the pixels to: shape (2, rows, columns)."""
        shape = self.monomials.shape[1:]
        return np.asarray(points_of(shape) + np.einsum("in,nrc->irc", warp, self.monomials[: len(self.costs)]))


# Sums are those of einsum, not of BLAS, which adds in another order on another number of threads.


@dataclass(frozen=True, eq=False)
class _Seen:
    """A warped image, and what is not explained of it; 0 where nothing is compared.

    Attributes
    ----------
    valid : ndarray, bool, shape (rows, columns)
        The pixels that are compared.
    centred : ndarray, float64, shape (rows, columns)
        The image less its mean.
    rest : ndarray, float64, shape (rows, columns)
        What the regions and the template do not explain.
    slopes : ndarray, float64, shape (2, rows, columns)
        The derivatives of the image along x and y.
    """

    valid: Mask
    centred: Array
    rest: Array
    slopes: Array

    @classmethod
    def of(
        cls, image: Array, shown: Mask, points: Array, regions: PlaneRegions, template: Array | None
    ) -> _Seen | None:
        seen = sampled(image, points)
        valid = regions.near & (sampled(shown.astype(np.float64), points, 0.0) > 0.99)
        if not (valid & regions.brain).any():
            return None
        values = seen[valid]
        centred, rest = np.zeros(seen.shape), np.zeros(seen.shape)
        centred[valid] = values - values.mean()
        if not centred.any():
            return None
        projection = _Projection.of(regions.indices[valid], None if template is None else template[valid])
        rest[valid] = projection.rest(values)
        down, across = (np.where(valid, part, 0.0) for part in np.gradient(seen))
        return cls(valid, centred, rest, np.stack([across, down]))

    @property
    def unexplained(self) -> float:
        """The share of the variance that is not explained."""
        return float((self.rest**2).sum()) / float((self.centred**2).sum())

    def step(self, warp: Array, polynomials: _Polynomials) -> Array:
        """The change of the coefficients of a warp, (2, n), at which least is unexplained."""
        count = len(polynomials.costs)
        basis = polynomials.monomials[:count]
        rest, total = max(float((self.rest**2).sum()), 1e-9), float((self.centred**2).sum())
        # The product of the rest, which is projected, with the slopes is that with the projected slopes.
        gradient = np.einsum("irc,rc,nrc->in", self.slopes, self.rest / rest - self.centred / total, basis).ravel()
        squares = np.stack([self.slopes[0] ** 2, self.slopes[0] * self.slopes[1], self.slopes[1] ** 2])
        sums = np.einsum("krc,mrc->km", squares, polynomials.monomials)[:, polynomials.products]
        means = np.einsum("irc,nrc->in", self.slopes, basis).ravel()
        around = np.block([[sums[0], sums[1]], [sums[1], sums[2]]]) - np.outer(means, means) / self.valid.sum()
        costs = np.tile(polynomials.costs, 2)
        curvature = around / rest + np.diag(costs + 1e-9)
        return np.asarray(np.linalg.solve(curvature, -gradient - costs * warp.ravel()).reshape(warp.shape))


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
        rest = found.rest(template)
        return cls(indices, counts, rest / max(float(np.sqrt((rest**2).sum())), 1e-12))

    def rest(self, values: Array) -> Array:
        """The rest of values of the pixels."""
        out = values - (np.bincount(self.indices, weights=values) / self.counts)[self.indices]
        return out if self.template is None else out - float((out * self.template).sum()) * self.template
