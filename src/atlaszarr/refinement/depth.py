"""The depth of sections: how well each fits the regions at other depths, and where a dataset and its sections lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .darkness import darkness
from .levels import RegionLevels
from .polynomial import CoarseSection
from .section import check_libraries, validate_section

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Offsets of depth in um at which a section is compared. Datasets off by 400 um with sections 400 um more are found;
#: the last offset leaves room beyond.
OFFSETS: Array = np.arange(-900.0, 901.0, 100.0)
#: A section is far off if it is corrected by more than this, or departs by more from the others, in um.
FAR = 300.0
#: The least unexplained share of the variance that counts: its logarithm is finite.
_LEAST_UNEXPLAINED = 1e-3
#: Offsets that are compared with an offset lie further from it than this, in um: nearer ones show nearly the same
#: regions.
_NEAR = 200.0
#: The least departure of a section from the depth of its dataset, in um: smaller ones are about as large as their
#: errors, and make the depths of sections irregular that are cut at regular intervals.
_LEAST_OWN = 100.0
#: How far a section must fit one depth better than others for its levels to count: a part of the rise of the dataset.
_CLEAR = 0.1
#: The least rise of a dataset whose depth is corrected. That of good datasets is 0.3 or more, and of single sections of
#: little contrast 0.1.
_LEAST_RISE = 0.02
#: What a section must gain by a correction of its own, and its lead there: parts of the rise of its curve.
_GAIN, _LEAD = 0.3, 0.15
#: The least agreement of a section with a correction of its own. At most 0.24 for those of the benchmark that are
#: upside down, but for one, and at least 0.32 for good ones of a third of the contrast.
LEAST_AGREEMENT = 0.25
#: The axes of an array that are reversed in a section upside down, mirrored, or both; and how much more it then agrees
#: when it is turned back.
_TURNS, _TURNED = ((0,), (1,), (0, 1)), 0.1


class DepthScores(NamedTuple):
    """How well a section fits an annotation at each offset of its depth.

    Attributes
    ----------
    explained : ndarray, float64, shape (offsets,)
        The share of the variance of the evened darkness that the regions, and the template, explain after a quick warp;
        0 where a plane has no brain.
    levels : RegionLevels
        Of the regions at the offset at which most is explained.
    """

    explained: Array
    levels: RegionLevels


def depth_scores(
    image: NDArray[np.uint8],
    inside: Mask,
    planes: Iterable[NDArray[Any]],
    resolution: float = 25.0,
    template: Iterable[NDArray[Any]] | None = None,
    compared: Mask | None = None,
) -> DepthScores:
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
    DepthScores

    Raises
    ------
    InputError
        If the shapes or dtypes do not fit, there is not one plane for each of `OFFSETS`, the resolution is not a whole
        fraction of 100 um, or SimpleITK or SciPy is not installed.
    """
    section = _coarse(image, inside, resolution, compared)
    explained: list[float] = []
    levels = RegionLevels.of(np.zeros(0, np.int64), np.zeros(0))
    for labels, grey in zip(planes, repeat(None) if template is None else template, strict=False):
        validate_section(image, inside, labels, grey)
        warp = section.fit(labels, grey, compared)
        if warp.explained > max(explained, default=0.0):
            levels = RegionLevels.of(section.joined(labels)[warp.stained], warp.seen[warp.stained])
        explained.append(warp.explained)
    return DepthScores(_of_all_offsets(explained), levels)


class DatasetDepth(NamedTuple):
    """Where a dataset lies.

    Attributes
    ----------
    correction : float
        What is added to the depths of all sections, in um.
    clear : ndarray, bool, shape (sections,)
        Whether each section fits one depth clearly better than those more than 200 um away: its levels count for
        others.
    """

    correction: float
    clear: Mask


def correct_dataset(scores: ArrayLike) -> DatasetDepth:
    """Find where a dataset lies.

    Parameters
    ----------
    scores : array_like, shape (sections, offsets)
        `DepthScores.explained` of its sections.

    Returns
    -------
    DatasetDepth

    Raises
    ------
    InputError
        If the shape does not fit, or a score is not finite.

    Notes
    -----
    Sections are cut at regular intervals, so that all have one correction: the offset at which the median over the
    sections of their curves, each less its highest point, is highest. A curve is minus the logarithm of the unexplained
    share of the variance; its rise is how far its highest point lies above its median, and that of the dataset the
    median of these. A section is clear if its curve is higher, by over 0.1 of the rise of the dataset, at its highest
    point than at all offsets more than 200 um away. What is highest at the first or last offset is neither corrected
    nor clear, since its peak lies beyond; nor is a dataset whose rise is below 0.02.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 2 or values.shape[1] != len(OFFSETS):
        raise InputError(f"scores has shape {values.shape}; give (sections, {len(OFFSETS)})", code="shape-mismatch")
    if not np.isfinite(values).all():
        raise InputError("scores has values that are not finite; give shares from 0 to 1", code="invalid-array")
    curves = [_Curve.of(each) for each in values]
    rise = float(np.median([curve.rise for curve in curves])) if curves else 0.0
    if rise < _LEAST_RISE:
        return DatasetDepth(0.0, np.zeros(len(curves), bool))
    common = _Curve(np.median([curve.values - curve.highest for curve in curves], axis=0))
    clear = [curve.has_peak and curve.lead > _CLEAR * rise for curve in curves]
    return DatasetDepth(common.peak if common.has_peak else 0.0, np.array(clear))


class Expectation(NamedTuple):
    """What the other sections of a dataset lead to expect of one.

    Attributes
    ----------
    correction : float
        That of the depth of the dataset, in um.
    levels : RegionLevels or None
        None if too few other sections are clear.
    """

    correction: float
    levels: RegionLevels | None = None


class SectionDepth(NamedTuple):
    """Where a section lies.

    Attributes
    ----------
    correction : float
        What is added to its depth, that of the dataset included, in um.
    agreement : float or None
        With what is expected of it there; None if nothing is.
    far : bool
        Whether its correction or that of the dataset exceeds 300 um, or it agrees better more than 300 um from where
        the dataset lies, even if it is not corrected.
    turned : bool
        Whether it agrees more with what is expected of it upside down, mirrored, or both. A coronal or transverse
        section that is mirrored looks much as before.
    """

    correction: float
    agreement: float | None
    far: bool
    turned: bool = False


def find_section(
    image: NDArray[np.uint8],
    inside: Mask,
    planes: Sequence[NDArray[Any]],
    expected: Expectation,
    resolution: float = 25.0,
    compared: Mask | None = None,
) -> SectionDepth:
    """Find where a section lies by what the other sections of its dataset lead to expect of it.

    Parameters
    ----------
    image, inside, planes, resolution, compared
        Same as in `depth_scores`.
    expected : Expectation

    Returns
    -------
    SectionDepth
        That of the dataset, if no levels are expected.

    Raises
    ------
    InputError
        Same as in `depth_scores`.

    Notes
    -----
    At each offset, the section is warped to the expected levels of the regions and correlated with them; see
    `correct_section` for the depth that follows. Unlike means of its own, the levels of other sections do not follow
    the texture of a section: one of little contrast agrees with them less, but at its own depth alone, and one that is
    upside down hardly anywhere. A section is turned if, at the offset that is nearest to its depth, it agrees more by
    over 0.1 upside down, mirrored or both, and its agreement then is over 0.25; it has the depth of the dataset.
    """
    if (levels := expected.levels) is None:
        return SectionDepth(expected.correction, None, abs(expected.correction) > FAR)
    section = _coarse(image, inside, resolution, compared)
    found = []
    for labels in planes:
        validate_section(image, inside, labels)
        found.append(section.agreement(labels, levels, compared))
    agreement = _of_all_offsets(found)
    depth = correct_section(agreement, expected.correction)
    nearest = int(np.abs(OFFSETS - depth.correction).argmin())
    plane = planes[nearest]
    turned = max(section.turned(axes, plane).agreement(plane, levels, compared) for axes in _TURNS)
    if turned > max(float(agreement[nearest]) + _TURNED, LEAST_AGREEMENT):
        here = float(np.interp(expected.correction, OFFSETS, agreement))
        return SectionDepth(expected.correction, here, depth.far, turned=True)
    return depth


def correct_section(agreement: ArrayLike, dataset: float) -> SectionDepth:
    """Find where a section lies.

    Parameters
    ----------
    agreement : array_like, shape (offsets,)
        By `find_section`: correlations, -1 to 1.
    dataset : float
        The correction of its dataset, in um.

    Returns
    -------
    SectionDepth

    Notes
    -----
    The curve of a section is minus the logarithm of one minus the squared agreement, its rise how far its highest point
    lies above its median. The section has a correction of its own if its curve is higher there by over 0.3 of the rise
    than at the offset of the dataset, and by over 0.15 than at all offsets more than 200 um away, the agreement is over
    0.25, and the correction differs from that of the dataset by over 100 um. What is highest at the first or last
    offset is not corrected, since its peak lies beyond.
    """
    found = np.asarray(agreement, np.float64)
    curve = _Curve.of(np.maximum(found, 0.0) ** 2)
    gain = curve.highest - float(np.interp(dataset, OFFSETS, curve.values))
    is_better = gain > _GAIN * curve.rise and float(found.max()) > LEAST_AGREEMENT
    departure = abs(curve.peak - dataset)
    departs = is_better and curve.has_peak and curve.lead > _LEAD * curve.rise and departure > _LEAST_OWN
    correction = curve.peak if departs else dataset
    far = max(abs(dataset), abs(correction), departure if is_better else 0.0) > FAR
    return SectionDepth(correction, float(np.interp(correction, OFFSETS, found)), far)


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


def _coarse(image: NDArray[np.uint8], inside: Mask, resolution: float, compared: Mask | None) -> CoarseSection:
    check_libraries()
    validate_section(image, inside, inside.astype(np.uint8))
    shown = inside if compared is None else inside & compared
    return CoarseSection.of(darkness(image, shown), shown, resolution)


def _of_all_offsets(found: Sequence[float]) -> Array:
    if len(found) != len(OFFSETS):
        raise InputError(
            f"{len(found)} planes are given; give one for each of the {len(OFFSETS)} offsets", code="invalid-length"
        )
    return np.array(found)


@dataclass(frozen=True, eq=False)
class _Curve:
    """How well something fits at each of `OFFSETS`."""

    values: Array

    @classmethod
    def of(cls, explained: Array) -> _Curve:
        """Minus the logarithm of the share of the variance that is not explained."""
        return cls(-np.log(np.maximum(1.0 - explained, _LEAST_UNEXPLAINED)))

    @property
    def highest(self) -> float:
        return float(self.values.max())

    @property
    def rise(self) -> float:
        """How far the highest point lies above the median."""
        return self.highest - float(np.median(self.values))

    @property
    def lead(self) -> float:
        """How far the highest point lies above all offsets that are not near it."""
        return self.highest - float(self.values[np.abs(OFFSETS - self.peak) > _NEAR].max())

    @cached_property
    def peak(self) -> float:
        """The offset of the highest point, by a parabola through it and its neighbours."""
        best = int(np.argmax(self.values))
        if best in (0, len(self.values) - 1):
            return float(OFFSETS[best])
        low, middle, high = self.values[best - 1 : best + 2].tolist()
        bend = low - 2.0 * middle + high
        shift = 0.5 * (low - high) / bend if bend < 0 else 0.0
        return float(OFFSETS[best] + shift * (OFFSETS[1] - OFFSETS[0]))

    @property
    def has_peak(self) -> bool:
        """Whether the highest point is a peak: the peak of a curve that is highest at its end lies beyond."""
        return bool(OFFSETS[0] < self.peak < OFFSETS[-1])
