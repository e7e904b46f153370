"""A quick warp of a section by polynomials, that makes the regions of a plane explain most of its darkness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .arrays import binned, pixels_joined, points_of, sampled
from .darkness import evened, tissue
from .levels import RegionLevels
from .regions import PlaneRegions

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Degree of the polynomials in x and y: the warp makes up for errors within the plane, which would hide the depth.
_DEGREE = 3
#: Standard deviation of the smoothing of the section in pixels, and steps, at each level.
_LEVELS = ((2.0, 6), (1.0, 6))
#: What a coefficient of 1 pixel adds to the logarithm of the unexplained share: a constant, linear and higher terms.
#: They keep the warp from fitting the texture.
_COSTS = (3e-5, 3e-4, 1e-3)
#: The unit of the polynomials, as a multiple of the root mean square distance of the brain from its centre.
_UNIT = 1.5
#: The longest change of a coefficient in a step, in pixels.
_STEP = 2.0


@dataclass(frozen=True, eq=False)
class PolynomialWarp:
    """A warp of an image to regions.

    Attributes
    ----------
    affine : ndarray, float64, shape (2, 3)
        The affine that is nearest to the warp over the brain: (x, y, 1) in pixels of the plane to (x, y) in pixels of
        the image.
    explained : float
        The share of the variance of the image that the regions, and a template, explain, 0 to 1; 0 without a brain or
        variance.
    seen : ndarray, float64, shape (rows, columns)
        The warped image, in the pixels of the plane.
    valid : ndarray, bool, shape (rows, columns)
        The pixels that were compared.
    stained : ndarray, bool, shape (rows, columns)
        Those of them that show tissue.
    """

    affine: Array
    explained: float
    seen: Array
    valid: Mask
    stained: Mask

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> Self:
        """Of a plane in which nothing can be compared."""
        nowhere = np.zeros(shape, bool)
        return cls(np.eye(2, 3), 0.0, np.zeros(shape), nowhere, nowhere)


@dataclass(frozen=True, eq=False)
class CoarseSection:
    """A section at 100 um, whose warp to the labels of a plane takes some 20 ms.

    Attributes
    ----------
    evened : ndarray, float64, shape (rows, columns)
        Its darkness, by `darkness.evened`.
    shown : ndarray, bool, shape (rows, columns)
        Whether each pixel lies inside the section image.
    stained : ndarray, bool, shape (rows, columns)
        Whether it shows tissue.
    factor : int
        Pixels of the plane that are joined along each axis.
    """

    evened: Array
    shown: Mask
    stained: Mask
    factor: int
    resolution: ClassVar[float] = 100.0

    @classmethod
    def of(cls, darkness: Array, inside: Mask, resolution: float) -> Self:
        """The section with a darkness in the pixels of a plane, of a size in um.

        Raises
        ------
        InputError
            If the resolution is not a whole fraction of 100 um.
        """
        factor = pixels_joined(cls.resolution, resolution)
        dark, shown = binned(darkness, factor), binned(inside.astype(np.float64), factor) > 0.99
        stained = tissue(dark, cls.resolution) & shown
        return cls(evened(dark, stained, cls.resolution), shown, stained, factor)

    def fit(
        self,
        labels: NDArray[Any],
        template: NDArray[Any] | None = None,
        compared: Mask | None = None,
        margin: float | None = None,
    ) -> PolynomialWarp:
        """Warp the section to labels, and the grey levels of a template, both in the pixels of a plane.

        `compared` are the pixels that take part, by default all; `margin` is that of the regions.
        """
        regions, levels = PlaneRegions.of(self.joined(labels), self.resolution), None
        if margin is not None:
            regions = replace(regions, margin=margin)
        if template is not None:
            grey = binned(template.astype(np.float64), self.factor)
            levels = evened(grey / max(float(grey.max()), 1.0), regions.brain, self.resolution)
        return self._warp(regions, compared, levels)

    def agreement(self, labels: NDArray[Any], expected: RegionLevels, compared: Mask | None = None) -> float:
        """Warp the section to what is expected of it, and correlate them.

        Parameters
        ----------
        labels, compared
            Same as in `fit`.
        expected : RegionLevels

        Returns
        -------
        float
            The correlation of the section with the expected levels, -1 to 1, after their means within the brain and
            outside are subtracted from both; 0 without a brain or variance.
        """
        joined = self.joined(labels)
        painted = expected.painted(joined)
        brain = PlaneRegions.of((joined != 0).astype(np.int64), self.resolution)
        warp = self._warp(brain, compared, painted)
        means = _Projection.of(brain.indices[warp.valid], warp.valid[warp.valid])
        seen, wanted = (means.rest(each[warp.valid]) for each in (warp.seen, painted))
        length = float(np.sqrt((seen**2).sum() * (wanted**2).sum()))
        return float((seen * wanted).sum()) / length if length else 0.0

    def turned(self, axes: tuple[int, ...], labels: NDArray[Any]) -> Self:
        """The section with axes of its array reversed, its tissue moved to the middle of the brain of a plane."""
        from scipy import ndimage

        turned, brain = np.flip(self.stained, axes), self.joined(labels) != 0
        if not (turned.any() and brain.any()):
            return self
        move = np.subtract(ndimage.center_of_mass(brain), ndimage.center_of_mass(turned)).round()
        moved = [
            np.asarray(ndimage.shift(np.flip(each, axes).astype(np.float64), move, order=0))
            for each in (self.evened, self.shown, self.stained)
        ]
        return replace(self, evened=moved[0], shown=moved[1] > 0, stained=moved[2] > 0)

    def joined(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The labels in the middle of each group of pixels that are joined."""
        rows, columns = labels.shape
        padded = np.pad(labels, ((0, -rows % self.factor), (0, -columns % self.factor)), mode="edge")
        middle = slice(self.factor // 2, None, self.factor)
        return padded[middle, middle]

    def _warp(self, regions: PlaneRegions, compared: Mask | None, template: Array | None) -> PolynomialWarp:
        near = regions.near
        if compared is not None:
            near = near & (binned(compared.astype(np.float64), self.factor) > 0.99)
        return fit_polynomial(self.evened, self.shown, self.stained, regions, near, template)


def fit_polynomial(
    image: Array, shown: Mask, stained: Mask, regions: PlaneRegions, near: Mask, template: Array | None = None
) -> PolynomialWarp:
    """Find the warp by polynomials of degree 3 at which regions explain most of an image.

    Parameters
    ----------
    image : ndarray, float64, shape (rows, columns)
        Evened, so that its outline is no stronger than its regions.
    shown : ndarray, bool, shape (rows, columns)
        The pixels of the image whose values are known.
    stained : ndarray, bool, shape (rows, columns)
        Those that show tissue: the others have no part in the means of the regions, and are not compared deep within
        the brain, where tissue is lost.
    regions : PlaneRegions
        In the same pixels.
    near : ndarray, bool, shape (rows, columns)
        The pixels of the plane that are compared.
    template : ndarray, float64, shape (rows, columns), optional
        An image whose multiple explains what the regions do not.

    Returns
    -------
    PolynomialWarp

    Notes
    -----
    Gauss-Newton steps on the logarithm of the unexplained share of the variance, with the means of the regions at each
    step those of the tissue of the warped image. Paper is expected outside the brain.
    """
    from scipy import ndimage

    polynomials = _Polynomials.of(regions.brain)
    warp = np.zeros((2, len(polynomials.costs)))
    for sigma, steps in _LEVELS:
        smooth = np.asarray(ndimage.gaussian_filter(image, sigma))
        for _ in range(steps):
            seen = _Seen.of(smooth, shown, stained, polynomials.displaced(warp), regions, near, template)
            if seen is None:
                return PolynomialWarp.none(image.shape)
            step = seen.step(warp, polynomials)
            warp = warp + step * min(1.0, _STEP / max(float(np.abs(step).max()), 1e-12))
    points = polynomials.displaced(warp)
    last = _Seen.of(image, shown, stained, points, regions, near, template)
    if last is None:
        return PolynomialWarp.none(image.shape)
    affine = polynomials.nearest_affine(warp, regions.brain)
    return PolynomialWarp(affine, max(1.0 - last.unexplained, 0.0), sampled(image, points), last.valid, last.stained)


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
        rows, columns = np.nonzero(brain if brain.any() else ~brain)
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

    def nearest_affine(self, warp: Array, where: Mask) -> Array:
        """The affine, (2, 3), that is nearest to a warp, (2, n), in a mask."""
        points = points_of(where.shape)
        basis = np.concatenate([points, np.ones((1, *where.shape))]) * where
        products = np.einsum("irc,jrc->ij", basis, basis)
        if np.linalg.matrix_rank(products) < 3:
            return np.eye(2, 3)
        return np.asarray(np.linalg.solve(products, np.einsum("irc,jrc->ij", basis, self.displaced(warp))).T)


# Sums are those of einsum, not of BLAS, which adds in another order on another number of threads.


@dataclass(frozen=True, eq=False)
class _Seen:
    """A warped image, and what is not explained of it; 0 where nothing is compared.

    Attributes
    ----------
    valid, stained : ndarray, bool, shape (rows, columns)
        The pixels that are compared, and those of them that show tissue.
    centred : ndarray, float64, shape (rows, columns)
        The image less its mean.
    rest : ndarray, float64, shape (rows, columns)
        What the regions and the template do not explain.
    slopes : ndarray, float64, shape (2, rows, columns)
        The derivatives of the image along x and y.
    """

    valid: Mask
    stained: Mask
    centred: Array
    rest: Array
    slopes: Array

    @classmethod
    def of(
        cls,
        image: Array,
        shown: Mask,
        stained: Mask,
        points: Array,
        regions: PlaneRegions,
        near: Mask,
        template: Array | None,
    ) -> _Seen | None:
        seen = sampled(image, points)
        has_tissue = sampled(stained.astype(np.float64), points, 0.0) > 0.5
        valid = near & (sampled(shown.astype(np.float64), points, 0.0) > 0.99) & (has_tissue | ~regions.deep)
        if not (valid & regions.brain).any():
            return None
        values = seen[valid]
        centred, rest = np.zeros(seen.shape), np.zeros(seen.shape)
        centred[valid] = values - values.mean()
        if not centred.any():
            return None
        meant = (has_tissue & regions.brain)[valid]
        projection = _Projection.of(regions.indices[valid], meant, None if template is None else template[valid])
        rest[valid] = projection.rest(values)
        down, across = (np.where(valid, part, 0.0) for part in np.gradient(seen))
        return cls(valid, valid & has_tissue, centred, rest, np.stack([across, down]))

    @property
    def unexplained(self) -> float:
        """The share of the variance that is not explained."""
        return float((self.rest**2).sum()) / float((self.centred**2).sum())

    def step(self, warp: Array, polynomials: _Polynomials) -> Array:
        """The change of the coefficients of a warp, (2, n), at which least is unexplained."""
        count = len(polynomials.costs)
        basis = polynomials.monomials[:count]
        rest, total = max(float((self.rest**2).sum()), 1e-9), float((self.centred**2).sum())
        # The means are kept: those of the next step follow from its warp.
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
    meant: Mask
    """The pixels that have a part in the means; without any, that of a region is 0."""
    counts: Array
    template: Array | None
    """Less the means of its regions, of length 1."""

    @classmethod
    def of(cls, indices: NDArray[np.int64], meant: Mask, template: Array | None = None) -> _Projection:
        counts = np.maximum(np.bincount(indices, meant), 1.0)
        found = cls(indices, meant, counts, None)
        if template is None:
            return found
        rest = found.rest(template)
        return cls(indices, meant, counts, rest / max(float(np.sqrt((rest**2).sum())), 1e-12))

    def rest(self, values: Array) -> Array:
        """The rest of values of the pixels."""
        out = values - (np.bincount(self.indices, values * self.meant) / self.counts)[self.indices]
        return out if self.template is None else out - float((out * self.template).sum()) * self.template
