"""Refine the registration of one section: fit it, and keep what is fitted if a part that was not fitted shows it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..displacement.displacement import Displacement
from ..errors import InputError
from ..transforms import apply
from .affine import fit_affine, rescaled
from .arrays import binned, enlarged, pixels_joined, points_of, sampled, smallest_jacobian
from .darkness import darkness, tissue
from .deformation import RADIUS, LocalCorrelation, fit_deformation
from .polynomial import CoarseSection
from .regions import PlaneRegions

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Reason = Literal[
    "refined",
    "no rise on the unseen half",
    "right nearby",
    "no contrast",
    "orientation",
    "affine",
    "jacobian",
    "tissue",
]

#: The libraries of `atlaszarr[refine]` by their modules.
_LIBRARIES = {"SimpleITK": "SimpleITK", "scipy": "SciPy"}
#: Pixel size at which sections are fitted, in um.
FITTED = 50.0
#: Times that the affine and the deformation are fitted, each time to means made anew. An affine starts from the one
#: before; a deformation starts from 0, so that what it did for worse means is not kept.
_AFFINES, _DEFORMATIONS = 2, 3
#: Standard deviation of the smoothing of the means that an affine and a deformation are fitted to, in pixels.
_AFFINE_SMOOTHING, _MEANS_SMOOTHING = 1.0, 0.8
#: Side of the squares of the checkerboard whose colours are fitted and judged, in um. A deformation is smoothed by 0.7
#: mm, so that what it does in a black square follows from the white ones around: it fits there only if it is right.
_SQUARE = 1000.0
#: Pixels of the fitted grid between what is judged and the outline of the brain: the outline fits whatever the regions
#: do.
_INNER = RADIUS + 1
#: The least rise of the local correlation on the unseen half for which a section is moved, and as a part of it before,
#: so that a section that fits well is not moved by noise; and the least rise if the Dice coefficient falls. It rises by
#: 0.005 or more for displaced sections of the benchmark; for those that are right it changes by 0.006 at most, while
#: their correlation once rose by 0.09.
LEAST_RISE, LEAST_GAIN, CLEAR_RISE = 0.02, 0.2, 0.1
#: Offsets of depth in um at which a section may fit without being moved, since its depth is right to some 50 um: a
#: deformation within the plane makes up for an error of depth in part.
NEARBY = (-50.0, -25.0, 25.0, 50.0)
#: The least correlation on the unseen half, fitted or not, of a section whose regions differ.
LEAST_UNSEEN = 0.01
#: The least share of the variance within the brain that the regions explain, where the record puts the section.
LEAST_EXPLAINED = 0.02
#: The hard limits: displacement of the affine in um, Jacobian, Dice of the tissue and the brain. Good sections of the
#: benchmark keep away from them (the least Jacobian is 0.50), half a section does not.
LARGEST_AFFINE, LEAST_JACOBIAN, LEAST_DICE = 1000.0, 0.3, 0.9


@dataclass(frozen=True)
class Figures:
    """How well a registration fits a section.

    Attributes
    ----------
    correlation : float
        The median of the local correlation between the section and the means of its regions, over tissue of the
        brain at least 250 um from its outline. The fit maximizes it.
    unseen : float
        The same over the squares of a checkerboard that were not fitted, with the means of the other squares.
    dice : float
        Dice coefficient of the tissue and the brain of the annotation.
    """

    correlation: float
    unseen: float
    dice: float


@dataclass(frozen=True, eq=False)
class RefinedSection:
    """The refined registration of a section.

    Attributes
    ----------
    field : ndarray, float64, shape (2, rows, columns)
        For each pixel of the plane, the displacement in um of the plane, x first, to the point where the recorded
        registration shows its tissue; 0 if the section keeps the recorded registration.
    resolution : float
        Pixel size in um.
    kept : bool
        Whether the fitted registration is kept.
    reason : str
        ``refined``; or why it is not kept: ``no rise on the unseen half``, ``right nearby`` (the registration that is
        given fits better at a depth nearby), ``no contrast``, ``orientation`` (the section is turned); or a hard limit
        that it exceeds: ``affine``, ``jacobian``, ``tissue``.
    before, after : Figures
        Of the registration that is given, and of the fitted one: of the fit to the white squares if that is not kept,
        otherwise of the fit to all, except `unseen`, which is always of the fit to the white squares.
    affine : float
        Median displacement by the fitted affine over the brain, in um.
    deformation : tuple of float
        Median and 95th percentile of the displacement by the fitted deformation over the brain, in um.
    jacobian : float
        Least determinant of the Jacobian of the fitted registration, over the whole plane: a fold outside the brain
        counts too.
    """

    field: Array
    resolution: float
    kept: bool
    reason: Reason
    before: Figures
    after: Figures
    affine: float
    deformation: tuple[float, float]
    jacobian: float

    def refused(self, reason: Reason) -> RefinedSection:
        """The same section with the registration that is given."""
        return replace(self, field=np.zeros_like(self.field), kept=False, reason=reason)

    @property
    def weight(self) -> float:
        """What the field is worth next to those of other sections: its unseen correlation, 0 if it is not kept."""
        return max(self.after.unseen, 0.0) if self.kept else 0.0

    @property
    def unseen(self) -> float:
        """The correlation on the unseen half with the registration that fits it better, kept or not."""
        return max(self.before.unseen, self.after.unseen)

    @cached_property
    def displacement(self) -> Displacement:
        """The field in pixels of the plane: ``recorded.compose(refined.displacement)`` is the refined registration."""
        return Displacement.from_deltas(*(self.field / self.resolution))


def refine_section(
    image: NDArray[np.uint8],
    inside: Mask,
    labels: NDArray[Any],
    resolution: float = 25.0,
    *,
    template: NDArray[Any] | None = None,
    hold_out: Collection[int] = (),
    nearby: Iterable[NDArray[Any]] = (),
) -> RefinedSection:
    """Refine the registration of a section to the labels of an annotation.

    Parameters
    ----------
    image : ndarray, uint8, shape (rows, columns, 3)
        The section in the plane, as its recorded alignment registers it; brightfield.
    inside : ndarray, bool, shape (rows, columns)
        Whether each pixel lies inside the section image.
    labels : ndarray, integer, shape (rows, columns)
        The annotation at the same pixels; 0 outside the brain.
    resolution : float
        Pixel size in um: 50, or a whole fraction of it such as 25 or 10.
    template : ndarray, shape (rows, columns), optional
        The grey levels of a template at the same pixels. The multiple, positive or negative, of what they differ within
        each region that fits best is added to the means that the section is fitted to and judged by.
    hold_out : collection of int
        Labels that take no part in the fit, for judging it there. The figures count all.
    nearby : iterable of ndarray, integer, shape (rows, columns)
        The annotation in planes nearby, such as those at `NEARBY`.

    Returns
    -------
    RefinedSection
        The same bytes on any number of threads.

    Raises
    ------
    InputError
        If the shapes or dtypes do not fit, the resolution is not a whole fraction of 50 um, or SimpleITK or
        SciPy is not installed.

    Notes
    -----
    A quick warp, an affine and a smooth deformation, one after another, maximize the correlation with the mean of the
    section in every region, which is computed anew in each round: any stain is fitted, without a template. They are
    fitted to the white squares of a checkerboard of 1 mm and judged on the black ones; if the local correlation rises
    there by at least 0.02 and by a fifth, and by at least 0.1 if the Dice coefficient falls, they are fitted to all.
    They are not if the section correlates more there with a plane nearby without being moved.
    """
    check_libraries()
    fitting = _Fitting.of(image, inside, labels, resolution, template, hold_out)
    identity = _Registration(np.eye(2, 3), np.zeros((2, *fitting.fitted.shape)))
    if fitting.contrast < LEAST_EXPLAINED:
        figures = fitting.figures(identity)
        return fitting.result(identity, "no contrast", figures, figures)
    trial = fitting.fit(fitting.white)
    before, judged = (fitting.figures(each) for each in (identity, trial))
    least = max(LEAST_RISE, LEAST_GAIN * before.unseen, CLEAR_RISE if judged.dice < before.dice else 0.0)
    if judged.unseen - before.unseen < least:
        is_flat = max(judged.unseen, before.unseen) < LEAST_UNSEEN
        return fitting.result(trial, "no contrast" if is_flat else "no rise on the unseen half", before, judged)
    if any(fitting.unseen_at(other) > judged.unseen for other in nearby):
        return fitting.result(trial, "right nearby", before, judged)
    whole = fitting.fit(np.ones(fitting.white.shape, bool))
    after = fitting.figures(whole)
    after = Figures(after.correlation, judged.unseen, after.dice)
    return fitting.result(whole, fitting.exceeded(whole, after), before, after)


def figures_of(
    image: NDArray[np.uint8],
    inside: Mask,
    labels: NDArray[Any],
    field: Array,
    resolution: float = 25.0,
    *,
    template: NDArray[Any] | None = None,
) -> Figures:
    """How well a section fits the labels of an annotation when it is displaced by a field; nothing is fitted.

    Parameters
    ----------
    image, inside, labels, resolution, template
        Same as in `refine_section`.
    field : ndarray, float64, shape (2, rows, columns)
        As in `RefinedSection`, in um and x first; 0 for the recorded registration.

    Raises
    ------
    InputError
        Same as in `refine_section`.
    """
    check_libraries()
    return _Fitting.of(image, inside, labels, resolution, template, ()).figures(_Displaced(field / resolution))


def check_libraries() -> None:
    """Raise an InputError if the libraries of the refinement are not installed."""
    if missing := [library for module, library in _LIBRARIES.items() if find_spec(module) is None]:
        raise InputError(
            f"a refinement needs {' and '.join(missing)}; install atlaszarr[refine]", code="missing-dependency"
        )


@dataclass(frozen=True, eq=False)
class _Registration:
    """An affine after a deformation, in pixels of the fitted grid.

    Attributes
    ----------
    affine : ndarray, float64, shape (2, 3)
    deformation : ndarray, float64, shape (2, rows, columns)
    """

    affine: Array
    deformation: Array

    def points(self, factor: int, shape: tuple[int, int]) -> Array:
        """Where the pixels of a finer grid lie in the section, in pixels of that grid: shape (2, rows, columns)."""
        field = enlarged(self.deformation, factor, shape) if factor > 1 else self.deformation
        moved_points = np.moveaxis(points_of(shape) + field, 0, -1)
        return np.ascontiguousarray(np.moveaxis(apply(rescaled(self.affine, 1 / factor), moved_points), -1, 0))


@dataclass(frozen=True, eq=False)
class _Displaced:
    """A registration that is given as a field in pixels of the plane, float64, shape (2, rows, columns)."""

    field: Array

    def points(self, factor: int, shape: tuple[int, int]) -> Array:
        """Same as in `_Registration`, in the pixels of the field."""
        return points_of(shape) + self.field


@dataclass(frozen=True, eq=False)
class _Fitting:
    """What a section is fitted with: arrays in the pixels of the plane, except `fitted` and `white`."""

    dark: Array
    shown: Array
    stained: Array
    """1 where there is tissue, 0 on paper."""
    labels: NDArray[Any]
    regions: PlaneRegions
    held_out: Mask
    template: Array | None
    factor: int
    fitted: Array
    """The darkness in the fitted grid."""
    white: Mask
    """The white squares of the checkerboard, in the fitted grid."""

    @classmethod
    def of(
        cls,
        image: NDArray[np.uint8],
        inside: Mask,
        labels: NDArray[Any],
        resolution: float,
        template: NDArray[Any] | None,
        hold_out: Collection[int],
    ) -> _Fitting:
        factor = pixels_joined(FITTED, resolution)
        validate_section(image, inside, labels, template)
        held_out = np.isin(labels, np.array(sorted(hold_out), np.int64))
        dark = darkness(image, inside, inside & ~held_out)
        fitted = binned(dark, factor)
        side = round(_SQUARE / FITTED)
        rows, columns = (np.arange(n) // side for n in fitted.shape)
        white = (rows[:, np.newaxis] + columns) % 2 == 0
        levels = None if template is None else template.astype(np.float64)
        stained = tissue(dark, resolution)
        regions = PlaneRegions.of(labels, resolution).for_tissue(stained | ~inside)
        shown = inside.astype(np.float64)
        return cls(dark, shown, stained.astype(np.float64), labels, regions, held_out, levels, factor, fitted, white)

    @property
    def contrast(self) -> float:
        """The share of the variance of the section that its regions explain, as it is recorded."""
        return self.regions.explained(self.dark, self.shown > 0, self.template)

    def fit(self, seen: Mask) -> _Registration:
        """Fit the pixels of a mask of the fitted grid."""
        fine = self._fine(seen)
        shape = self.fitted.shape
        flat = np.zeros((2, *shape))
        shown = binned(self.shown, self.factor) > 0.99
        coarse = CoarseSection.of(self.dark, (self.shown > 0) & ~self.held_out, self.regions.resolution)
        warp = coarse.fit(self.labels, self.template, fine & ~self.held_out, self.regions.margin)
        affine = rescaled(warp.affine, FITTED / coarse.resolution)
        for _ in range(_AFFINES):
            target, valid = self._target(_Registration(affine, flat), fine, _AFFINE_SMOOTHING)
            affine = fit_affine(target, self.fitted, valid, shown, affine)
        deformation = flat
        for _ in range(_DEFORMATIONS):
            target, valid = self._target(_Registration(affine, deformation), fine, _MEANS_SMOOTHING)
            deformation = fit_deformation(target, self.fitted, valid, affine)
        return _Registration(affine, deformation)

    def figures(self, registration: _Registration | _Displaced) -> Figures:
        """How well a registration fits: over all, and over the black squares."""
        dark, shown, stained = self._seen(registration)
        near = self.regions.near & shown
        seen = binned(dark, self.factor)
        inner = self._inner(seen, shown)
        correlation = self._median(dark, seen, near & stained, near, inner)
        # The means of the fitted squares, so that those that are judged have no part in what they are compared with.
        black = self._fine(~self.white)
        unseen = self._median(dark, seen, near & stained & ~black, near & black, inner & ~self.white)
        is_tissue = tissue(dark, self.regions.resolution)
        size = int(is_tissue.sum() + self.regions.brain.sum())
        dice = 2.0 * int((is_tissue & self.regions.brain).sum()) / size if size else 0.0
        return Figures(correlation, unseen, dice)

    def unseen_at(self, labels: NDArray[Any]) -> float:
        """The correlation over the black squares with the labels of another plane, of the registration as given."""
        regions = PlaneRegions.of(labels, self.regions.resolution)
        still = _Registration(np.eye(2, 3), np.zeros((2, *self.fitted.shape)))
        return replace(self, labels=labels, regions=regions).figures(still).unseen

    def exceeded(self, registration: _Registration, figures: Figures) -> Reason:
        """The hard limit that a registration exceeds, or ``refined``."""
        affine, _, jacobian = self._moves(registration)
        if affine > LARGEST_AFFINE:
            return "affine"
        if jacobian < LEAST_JACOBIAN:
            return "jacobian"
        return "tissue" if figures.dice < LEAST_DICE else "refined"

    def result(self, registration: _Registration, reason: Reason, before: Figures, after: Figures) -> RefinedSection:
        """The section with a registration that was fitted, which is kept if the reason is ``refined``."""
        resolution, shape = self.regions.resolution, self.dark.shape
        kept = reason == "refined"
        field = np.zeros((2, *shape))
        if kept:
            field = (registration.points(self.factor, shape) - points_of(shape)) * resolution
        affine, deformation, jacobian = self._moves(registration)
        return RefinedSection(field, resolution, kept, reason, before, after, affine, deformation, jacobian)

    def _moves(self, registration: _Registration) -> tuple[float, tuple[float, float], float]:
        """How far the affine and the deformation move the brain, in um, and the least Jacobian of the plane."""
        brain = binned(self.regions.brain.astype(np.float64), self.factor) > 0.5
        if not brain.any():
            return 0.0, (0.0, 0.0), 1.0
        grid = points_of(brain.shape)
        by_affine = _Registration(registration.affine, np.zeros(grid.shape)).points(1, brain.shape) - grid
        lengths = [np.hypot(*part)[brain] * FITTED for part in (by_affine, registration.deformation)]
        median, p95 = np.percentile(lengths[1], [50, 95]).tolist()
        whole = registration.points(1, brain.shape) - grid
        return float(np.median(lengths[0])), (median, p95), smallest_jacobian(whole, np.ones(brain.shape, bool))

    def _seen(self, registration: _Registration | _Displaced) -> tuple[Array, Mask, Mask]:
        """The darkness of the section, where it is shown, and where it has tissue, under a registration."""
        points = registration.points(self.factor, self.dark.shape)
        dark, shown, stained = (sampled(each, points, 0.0) for each in (self.dark, self.shown, self.stained))
        return dark, shown > 0.99, stained > 0.5

    def _target(self, registration: _Registration, fine: Mask, smoothing: float) -> tuple[Array, Mask]:
        """The means of the regions under a registration, and the pixels to compare, in the fitted grid.

        Paper has no part in the means: it would make the regions light that lie outside the tissue, and so explain
        tissue that is displaced by a layer. Paper deep within the brain is where tissue is lost, and is not compared.
        """
        from scipy import ndimage

        dark, shown, stained = self._seen(registration)
        valid = self.regions.near & shown & fine & ~self.held_out
        valid &= stained | ~self.regions.deep
        means = binned(self.regions.means(dark, valid & stained, self.template), self.factor)
        target = np.asarray(ndimage.gaussian_filter(means, smoothing))
        return target, binned(valid.astype(np.float64), self.factor) > 0.5

    def _fine(self, mask: Mask) -> Mask:
        """A mask of the fitted grid in the pixels of the plane."""
        rows, columns = self.dark.shape
        return mask.repeat(self.factor, axis=0).repeat(self.factor, axis=1)[:rows, :columns]

    def _inner(self, seen: Array, shown: Mask) -> Mask:
        """Tissue of the brain whose squares of correlation lie within it, so that its outline shows nothing."""
        from scipy import ndimage

        brain = binned((self.regions.brain & shown).astype(np.float64), self.factor) > 0.5
        within = np.pad(brain & tissue(seen, FITTED), 1)
        return np.asarray(ndimage.distance_transform_edt(within)[1:-1, 1:-1] > _INNER)

    def _median(self, dark: Array, seen: Array, fitted: Mask, compared: Mask, judged: Mask) -> float:
        """The median correlation, over pixels `judged`, of pixels `compared` with the means of pixels `fitted`."""
        if not judged.any():
            return 0.0
        means = binned(self.regions.means(dark, fitted, self.template), self.factor)
        weight = binned(compared.astype(np.float64), self.factor)
        return float(np.median(LocalCorrelation(means, weight).coefficients(seen)[judged]))


def validate_section(
    image: NDArray[np.uint8], inside: Mask, labels: NDArray[Any], template: NDArray[Any] | None = None
) -> None:
    """Raise an InputError if the arrays of a section and its plane do not fit one another."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"section image of dtype {image.dtype} and shape {image.shape} must be uint8, (rows, columns, 3)",
            code="invalid-array",
        )
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels of dtype {labels.dtype} must be whole numbers", code="invalid-array")
    if inside.dtype != bool:
        raise InputError(f"inside of dtype {inside.dtype} must be bool", code="invalid-array")
    if not image.shape[:2] == inside.shape == labels.shape:
        raise InputError(
            f"image, inside and labels have shapes {image.shape[:2]}, {inside.shape} and {labels.shape}; give one "
            "plane",
            code="shape-mismatch",
        )
    if template is not None and (template.dtype.kind not in "iuf" or template.shape != labels.shape):
        raise InputError(
            f"template of dtype {template.dtype} and shape {template.shape} must be numbers, {labels.shape}",
            code="invalid-array",
        )
    if template is not None and not np.isfinite(template).all():
        raise InputError("the template has values that are not finite; replace them by 0", code="invalid-array")
