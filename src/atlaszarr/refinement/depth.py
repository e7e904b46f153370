"""The depth of sections: how well each fits the regions at other depths, and where a dataset and its sections lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .darkness import darkness
from .polynomial import CoarseSection
from .section import RefinedSection, check_libraries, validate_section

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Offsets of depth in um at which a section is compared. Datasets off by 400 um with sections 400 um more are found;
#: the last offset leaves room beyond.
OFFSETS: Array = np.arange(-900.0, 901.0, 100.0)
#: A section is far off if its depth is corrected by more than this, in um.
FAR = 300.0
#: The least unexplained share of the variance that counts: its logarithm is finite.
_LEAST_UNEXPLAINED = 1e-3
#: Offsets that are compared with an offset lie further from it than this, in um: nearer ones show nearly the same
#: regions.
_NEAR = 200.0
#: The least departure of a section from the depth of its dataset, in um: smaller ones are about as large as their
#: errors, and make the depths of sections irregular that are cut at regular intervals.
_LEAST_OWN = 100.0
#: What a section must gain by a correction of its own, its lead there, and the lead of a clear fit: parts of the rise.
_GAIN, _LEAD, _CLEAR = 0.3, 0.12, 0.07
#: The lead of a clear fit at a depth of its own. Of 27 such sections of which a half is lost the depth was right to 118
#: um in all, and the lead above this in 21; of seven upside down the depth was wrong, and the lead above this in two.
_CLEAR_ALONE = 0.3
#: A section whose curve is clear at no depth is moved if its correlation on the unseen half rises by this factor and
#: difference. In the benchmark it rises to 1.8 times and by 0.08 at least for sections of little contrast that were
#: rightly moved, and by 0.03 at most for others and those upside down.
_LEAST_FACTOR, _LEAST_DIFFERENCE = 1.5, 0.05


def depth_scores(
    image: NDArray[np.uint8],
    inside: Mask,
    planes: Iterable[NDArray[Any]],
    resolution: float = 25.0,
    template: Iterable[NDArray[Any]] | None = None,
    compared: Mask | None = None,
) -> Array:
    """Score how well a section fits an annotation at each offset of its depth.

    Parameters
    ----------
    image : ndarray, uint8, shape (rows, columns, 3)
        The section in the plane, as its recorded alignment registers it; brightfield.
    inside : ndarray, bool, shape (rows, columns)
        Whether each pixel lies inside the section image.
    planes : iterable of ndarray, integer, shape (rows, columns)
        The annotation at the same pixels if the section were deeper by each of `OFFSETS`, in their order; 0 outside the
        brain. They are taken one after another.
    resolution : float
        Pixel size in um: 100, or a whole fraction of it such as 50, 25 or 10.
    template : iterable of ndarray, shape (rows, columns), optional
        The grey levels of a template in the same planes.
    compared : ndarray, bool, shape (rows, columns), optional
        The pixels that take part, at every offset; by default all.

    Returns
    -------
    ndarray, float64, shape (offsets,)
        The share of the variance of the evened darkness that the regions, and the template, explain after a quick warp;
        0 where a plane has no brain.

    Raises
    ------
    InputError
        If the shapes or dtypes do not fit, there is not one plane for each of `OFFSETS`, the resolution is not a whole
        fraction of 100 um, or SimpleITK or SciPy is not installed.
    """
    check_libraries()
    validate_section(image, inside, inside.astype(np.uint8))
    shown = inside if compared is None else inside & compared
    section = CoarseSection.of(darkness(image, shown), shown, resolution)
    found = []
    for labels, grey in zip(planes, repeat(None) if template is None else template, strict=False):
        validate_section(image, inside, labels, grey)
        found.append(section.fit(labels, grey, compared).explained)
    if len(found) != len(OFFSETS):
        raise InputError(
            f"{len(found)} planes are given; give one for each of the {len(OFFSETS)} offsets", code="invalid-length"
        )
    return np.array(found)


@dataclass(frozen=True, eq=False)
class DepthCorrection:
    """The corrected depths of the sections of a dataset.

    Attributes
    ----------
    dataset : float
        What is added to the depths of all sections, in um.
    sections : ndarray, float64, shape (sections,)
        What is added to the depth of each section, that of the dataset included, in um.
    far : ndarray, bool, shape (sections,)
        Whether a section fits better more than 300 um from the depth that the correction of the dataset gives it,
        corrected or not; all, if the correction of the dataset exceeds 300 um.
    clear : ndarray, bool, shape (sections,)
        Whether a section fits its corrected depth clearly better than those more than 200 um away, and still more so if
        the correction is its own. One that is upside down does not; one with little contrast does.
    doubtful : ndarray, float64, shape (sections,)
        Where a section fits best that has the correction of the dataset and does not fit it clearly, if that is over
        100 um away, as a correction in um; its fits at both tell, see `is_better_depth`. NaN for other sections.
    """

    dataset: float
    sections: Array
    far: Mask
    clear: Mask
    doubtful: Array

    @property
    def refused(self) -> Array:
        """What is added to the depth of each section, in um, if its fit within its plane is refused.

        That of the dataset, unless the section clearly fits a depth of its own: tissue that says so is right already
        within its plane, or a part of it is lost. float64, shape (sections,).
        """
        return np.where(self.clear, self.sections, self.dataset)


def correct_depths(depths: ArrayLike, scores: ArrayLike) -> DepthCorrection:
    """Find where a dataset and its sections lie.

    Parameters
    ----------
    depths : array_like, shape (sections,)
        Recorded depths, in um.
    scores : array_like, shape (sections, offsets)
        By `depth_scores`.

    Returns
    -------
    DepthCorrection

    Raises
    ------
    InputError
        If the shapes do not fit.

    Notes
    -----
    Sections are cut at regular intervals, so that all have one correction: the offset at which the median over the
    sections of their curves is highest. A curve is minus the logarithm of the unexplained share of the variance, and
    the rise of the dataset is the median over sections of how far the highest point of a curve lies above its median. A
    section has a correction of its own if its curve is higher there than at the offset of the dataset by over 0.3 of
    the rise, and than at all offsets more than 200 um from its highest point by over 0.12 of it, and the correction
    differs from that of the dataset by over 100 um. What is highest at the first or last offset is not corrected, since
    its peak lies beyond. A section fits its corrected depth clearly if its curve is higher there than at those offsets
    by over 0.07 of the rise, and by over 0.3 if the correction is its own.
    """
    recorded, values = np.asarray(depths, np.float64), np.asarray(scores, np.float64)
    if recorded.ndim != 1 or values.shape != (len(recorded), len(OFFSETS)):
        raise InputError(
            f"depths and scores have shapes {recorded.shape} and {values.shape}; give (sections,) and (sections, "
            f"{len(OFFSETS)})",
            code="shape-mismatch",
        )
    curves = -np.log(np.maximum(1.0 - values, _LEAST_UNEXPLAINED))
    highest = curves.max(axis=1)
    if not curves.any():
        still, none = np.zeros(len(curves)), np.zeros(len(curves), bool)
        return DepthCorrection(0.0, still, none, none, np.full(len(curves), np.nan))
    rise = float(np.median(highest - np.median(curves, axis=1)))
    common = _peak(np.median(curves - highest[:, np.newaxis], axis=0))
    dataset = common if _is_peak(common) else 0.0
    own = np.array([_peak(curve) for curve in curves])
    gains = highest - [float(np.interp(dataset, OFFSETS, curve)) for curve in curves]
    is_better = gains > _GAIN * rise
    leads = np.array([_lead(curve, peak) for curve, peak in zip(curves, own, strict=True)])
    is_elsewhere = _is_peak(own) & (np.abs(own - dataset) > _LEAST_OWN)
    found = np.where(is_better & (leads > _LEAD * rise) & is_elsewhere, own, dataset)
    least = np.where(found == dataset, _CLEAR, _CLEAR_ALONE)
    clear = np.array([_lead(curve, peak) for curve, peak in zip(curves, found, strict=True)]) > least * rise
    far = (np.abs(dataset) > FAR) | (is_better & (np.abs(own - dataset) > FAR))
    doubtful = np.where((found == dataset) & ~clear & is_elsewhere, own, np.nan)
    return DepthCorrection(dataset, found, far, clear, doubtful)


class SectionDepths(NamedTuple):
    """The corrections of the depth of a section that are tried, in um.

    Attributes
    ----------
    correction : float
        At which it is fitted.
    refused : float
        Which it has if that fit is refused; see `DepthCorrection.refused`.
    doubtful : float or None
        At which it is fitted too, and which it has if it fits better there; see `DepthCorrection.doubtful`.
    """

    correction: float
    refused: float
    doubtful: float | None = None


def fit_at_depths(fit: Callable[[float], RefinedSection], depths: SectionDepths) -> tuple[RefinedSection, float, float]:
    """Fit a section at the depths that are tried.

    Parameters
    ----------
    fit : callable
        Fits the section, given the correction of its depth in um.
    depths : SectionDepths

    Returns
    -------
    section : RefinedSection
    fitted : float
        The correction at which it is fitted, in um.
    correction : float
        That which it has, in um.
    """
    section = fit(depths.correction)
    if depths.doubtful is not None and is_better_depth(section, other := fit(depths.doubtful)):
        return other, depths.doubtful, depths.doubtful
    return section, depths.correction, depths.correction if section.kept else depths.refused


def is_better_depth(here: RefinedSection, there: RefinedSection) -> bool:
    """Whether a section that is fitted at two depths clearly fits better at the second."""
    return there.unseen > max(_LEAST_FACTOR * here.unseen, here.unseen + _LEAST_DIFFERENCE)


def passing(depths: ArrayLike, corrections: ArrayLike, dataset: float) -> Mask:
    """Whether sections with a correction of their own pass others, or reach them.

    Parameters
    ----------
    depths, corrections : array_like, shape (sections,)
        Recorded depths, and what is added to them, in um.
    dataset : float
        The correction of sections without one of their own, in um.

    Returns
    -------
    ndarray, bool, shape (sections,)
    """
    before, moves = np.asarray(depths, np.float64), np.asarray(corrections, np.float64)
    after = before + moves
    found = np.zeros(before.shape, bool)
    for k in np.flatnonzero(moves != dataset):
        found[k] = ((before - before[k]) * (after - after[k]) <= 0)[before != before[k]].any()
    return found


def _peak(scores: Array) -> float:
    """The offset at which a curve is highest, by a parabola through the highest point and its neighbours."""
    best = int(np.argmax(scores))
    if best in (0, len(scores) - 1):
        return float(OFFSETS[best])
    low, middle, high = scores[best - 1 : best + 2].tolist()
    bend = low - 2.0 * middle + high
    shift = 0.5 * (low - high) / bend if bend < 0 else 0.0
    return float(OFFSETS[best] + min(max(shift, -1.0), 1.0) * (OFFSETS[1] - OFFSETS[0]))


def _is_peak(offsets: ArrayLike) -> Mask:
    """Whether the highest points of curves are peaks: that of one that is highest at its end lies beyond."""
    values = np.asarray(offsets, np.float64)
    return np.asarray((values > OFFSETS[0]) & (values < OFFSETS[-1]))


def _lead(curve: Array, offset: float) -> float:
    """How much higher a curve is near an offset than far from it."""
    away = np.abs(OFFSETS - offset)
    return float(curve[away <= _NEAR / 2].max() - curve[away > _NEAR].max())
