"""A 2-D affine between a section and the means of its regions, by SimpleITK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..transforms import apply
from .arrays import points_of, sampled

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Pixels that are joined at the two levels of resolution, and the standard deviation of the smoothing in pixels. The
#: deformation that follows corrects what the full resolution would add.
_JOINED, _SMOOTHING = (4, 2), (2.0, 1.0)
#: Of the descent: longest and shortest step in pixels, most steps, and what a step is multiplied with on a turn.
_STEP, _SHORTEST, _STEPS, _RELAXATION = 0.25, 1e-3, 100, 0.6


def fit_affine(target: Array, image: Array, target_mask: Mask, image_mask: Mask, start: Array) -> Array:
    """Find the affine at which an image correlates best with a target.

    Parameters
    ----------
    target, image : ndarray, float64, shape (rows, columns)
    target_mask, image_mask : ndarray, bool, shape (rows, columns)
        The pixels that are compared.
    start : ndarray, float64, shape (2, 3)
        The affine to start from.

    Returns
    -------
    ndarray, float64, shape (2, 3)
        (x, y, 1) in pixels of the target to (x, y) in pixels of the image; the same on any number of threads.
        `start`, if the search fails, as where the masks do not overlap, or leads to a lower correlation.

    Notes
    -----
    SimpleITK's correlation metric over all pixels, by a regular-step gradient descent at two levels.
    """
    sitk: Any = import_module("SimpleITK")  # it has no types

    if not target_mask.any() or not image_mask.any():
        return start
    with _one_thread(sitk):
        return _fit(sitk, target, image, target_mask, image_mask, start)


def _fit(sitk: Any, target: Array, image: Array, target_mask: Mask, image_mask: Mask, start: Array) -> Array:
    def as_image(array: NDArray[Any]) -> Any:
        return sitk.GetImageFromArray(np.ascontiguousarray(array, np.uint8 if array.dtype == bool else np.float64))

    rows, columns = np.nonzero(target_mask)
    centre = np.array([columns.mean(), rows.mean()])
    transform = sitk.AffineTransform(2)
    transform.SetCenter(centre.tolist())
    transform.SetMatrix(start[:, :2].ravel().tolist())
    transform.SetTranslation((start[:, :2] @ centre + start[:, 2] - centre).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(as_image(target_mask))
    method.SetMetricMovingMask(as_image(image_mask))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        _STEP, _SHORTEST, _STEPS, relaxationFactor=_RELAXATION, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(_JOINED)
    method.SetSmoothingSigmasPerLevel(_SMOOTHING)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(as_image(target), as_image(image))
    except RuntimeError:  # no overlap, or no gradient
        return start
    linear = np.reshape(transform.GetMatrix(), (2, 2))
    shift = np.array(transform.GetTranslation()) + centre - linear @ centre
    found = np.column_stack([linear, shift])
    if not np.isfinite(found).all() or np.linalg.det(linear) <= 0:
        return start
    before, after = (_correlation(target, image, target_mask, image_mask, each) for each in (start, found))
    return found if after > before else start


def _correlation(target: Array, image: Array, target_mask: Mask, image_mask: Mask, affine: Array) -> float:
    """The correlation coefficient of a target and an image under an affine, -1 to 1."""
    points = np.moveaxis(apply(affine, np.moveaxis(points_of(target.shape), 0, -1)), -1, 0)
    valid = target_mask & (sampled(image_mask.astype(np.float64), np.ascontiguousarray(points), 0.0) > 0.5)
    if not valid.any():
        return -1.0
    first, second = target[valid], sampled(image, np.ascontiguousarray(points))[valid]
    first, second = first - first.mean(), second - second.mean()
    length = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / length if length else -1.0


class _Running:
    """The fits that run in this process, and the number of threads of ITK before the first of them."""

    lock = Lock()
    count = 0
    threads = 0


@contextmanager
def _one_thread(sitk: Any) -> Iterator[None]:
    """Let ITK sum on one thread: sums in another order have other bytes.

    Inner filters of a registration take their number from the setting of the process, which is restored.
    """
    process = sitk.ProcessObject
    with _Running.lock:
        if not _Running.count:
            _Running.threads = process.GetGlobalDefaultNumberOfThreads()
            process.SetGlobalDefaultNumberOfThreads(1)
        _Running.count += 1
    try:
        yield
    finally:
        with _Running.lock:
            _Running.count -= 1
            if not _Running.count:
                process.SetGlobalDefaultNumberOfThreads(_Running.threads)


def rescaled(affine: Array, side: float) -> Array:
    """An affine between two grids, (2, 3), in pixels that are `side` times as wide."""
    out = affine.copy()
    centre = (side - 1.0) / 2.0
    out[:, 2] = (affine[:, :2].sum(axis=1) * centre + affine[:, 2] - centre) / side
    return out
