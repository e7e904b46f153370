"""Fields that agree across sections: what a section claims against its neighbours is damped."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

Array = NDArray[np.float64]

#: The most neighbours on each side that are read. Twelve are too few where sections lie 80 to 100 um apart.
WINDOW = 24
#: Fields that are smooth in depth: their standard deviation, and the distance over which they change, in um. The
#: likelihood of the fitted affine parts of coronal datasets in the benchmark is highest at 100 um or more and 2000 to
#: 2500 um. Where it is highest at less, neighbours share errors of the fit.
_SMOOTH, _DISTANCE = 100.0, 2200.0
#: Standard deviations of their mean in um and of their slope along depth, so wide that neither is drawn to 0.
_MEAN, _SLOPE = 1000.0, 0.1
#: Standard deviation of the error of the fit of a section of median weight, over the plane, in um: of the affine part
#: and of the rest. The medians of each dataset of the benchmark are at most 25 um for both where all sections are
#: clean, and up to 40 um for the rest where sections are damaged.
_AFFINE_ERROR, _REST_ERROR = 25.0, 40.0
#: A section that departs by more than so many standard deviations has a larger variance: of its own field if its weight
#: is at least this share of the median of the others, and what they lead to expect is worth less than this share of it;
#: else of its error. Good fits in the benchmark depart by at most
#: 2.1.
_CLEAR, _AS_WELL = 2.5, 0.8


def coherent(
    fields: ArrayLike,
    depths: ArrayLike,
    weights: ArrayLike,
    middle: int,
    weigh: Callable[[Array], float] | None = None,
) -> Array:
    """Find the field of a section that agrees with those of its neighbours.

    Parameters
    ----------
    fields : array_like, shape (sections, 2, rows, columns)
        Of a section and its up to `WINDOW` neighbours on each side, in um of the plane; at least two rows and columns.
    depths : array_like, shape (sections,)
        Their corrected depths, in um.
    weights : array_like, shape (sections,)
        What each field is worth, 0 or more: `RefinedSection.weight`.
    middle : int
        The index of the section, from 0.
    weigh : callable, optional
        Returns what another field of the section, float64 of shape (2, rows, columns), is worth by its tissue: its
        correlation on the unseen half, `Figures.unseen`.

    Returns
    -------
    ndarray, float64, shape (2, rows, columns)
        In um. A section of weight 0 has no part in the fields of others, and its own field is returned as it is: what
        its neighbours say was not seen in its own tissue. So are all fields if fewer than three sections count.

    Raises
    ------
    InputError
        If the shapes do not fit, or a depth or weight is not finite.

    Notes
    -----
    A field is the sum of its affine part, in which sections differ by their mounting, and a rest. Each part is taken
    for the sum of a field that is smooth in depth (a Gaussian process with a squared exponential covariance, a mean and
    a slope), one of the section itself, and an error of the fit of 25 um in the affine and 40 um in the rest, as root
    mean squares over the plane. The variance of the error is inversely proportional to the weight of the section, and
    grows towards the ends of the window. The result is the best linear prediction of the first two (Rasmussen and
    Williams 2006, Gaussian Processes for Machine Learning, eq. 2.25).

    The variance of the sections' own fields is that of their departures from the line between their neighbours
    (Gasser, Sroka and Jennen-Steinmetz 1986, Biometrika 73, 625-633; the median over the window), less that of the
    errors: 0 where neighbours differ by no more. If a section departs from what the others predict (Rasmussen and
    Williams, eq. 5.12) by more than 2.5 standard deviations, its variance is raised: all at once, then that of the
    section itself until it departs by so many. It is the variance of its own field if the section fits its tissue
    nearly as well as the others do, and its tissue fits what the others lead to expect less well; else that of its
    error.

    Errors of single sections are recognised among at least eight others that count; where a quarter of the sections or
    more are wrong, departures pass for what sections differ by.
    """
    values, places, worth = (np.asarray(each, np.float64) for each in (fields, depths, weights))
    shape = values.shape
    if len(shape) != 4 or shape[1] != 2 or min(shape[2:]) < 2 or not places.shape == worth.shape == shape[:1]:
        raise InputError(
            f"fields, depths and weights have shapes {shape}, {places.shape} and {worth.shape}; give (sections, 2, "
            "rows, columns), (sections,) and (sections,)",
            code="shape-mismatch",
        )
    if not 0 <= middle < shape[0] or not np.isfinite([places, worth]).all():
        raise InputError(
            f"section {middle} of {shape[0]}, or a depth or weight, is not a number that can be used; give finite "
            "depths and weights, and an index from 0",
            code="not-finite",
        )
    # Sections enter and leave the window without a step.
    order = np.argsort(np.argsort(places, kind="stable"))
    nearness = np.maximum(1.0 - ((order - order[middle]) / (WINDOW + 1.0)) ** 2, 0.0)
    counted = np.flatnonzero(worth * nearness > 0)
    if worth[middle] <= 0 or len(counted) < 3:
        return np.array(values[middle])
    values, places, worth, nearness = values[counted], places[counted], worth[counted], nearness[counted]
    own = int(np.searchsorted(counted, middle))
    median = float(np.median(worth))
    fits_as_well = bool(worth[own] >= _AS_WELL * float(np.median(np.delete(worth, own))))
    affine = _affine_parts(values)
    rest = values - affine
    kept, damped = (np.zeros(values.shape[1:]) for _ in range(2))
    for part, error in ((affine, _AFFINE_ERROR), (rest, _REST_ERROR)):
        variances = error**2 * median / (worth * nearness)
        mixtures = _mixtures(part, places, variances, error**2, own)
        kept += np.einsum("s,sirc->irc", mixtures[0], part)
        damped += np.einsum("s,sirc->irc", mixtures[1], part)
    if not fits_as_well or np.array_equal(kept, damped):
        return damped
    return damped if weigh is not None and weigh(damped) >= _AS_WELL * worth[own] else kept


def _affine_parts(fields: Array) -> Array:
    """The affine fields that are nearest to fields of shape (sections, 2, rows, columns)."""
    _, _, rows, columns = fields.shape
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    basis = np.stack([np.ones(rows * columns), x / columns - 0.5, y / rows - 0.5])
    # Sums of einsum are the same on any number of threads; those of BLAS are not.
    products = np.einsum("ip,fp->if", basis, fields.reshape(-1, rows * columns))
    coefficients = np.linalg.solve(np.einsum("ip,jp->ij", basis, basis), products)
    return np.asarray(np.einsum("if,ip->fp", coefficients, basis).reshape(fields.shape))


def _mixtures(part: Array, depths: Array, errors: Array, error: float, own: int) -> tuple[Array, Array]:
    """How much of each field of shape (sections, 2, rows, columns) the coherent field of section `own` has.

    First if a clear departure of the section is one of its own field, then if it is an error. `errors` are the
    variances of the errors of the fields, and `error` is that of one of median weight, in um2.
    """
    flat = part.reshape(len(part), -1)
    # Squared lengths of all combinations of the fields follow from their products, per pixel.
    products = np.einsum("ip,jp->ij", flat, flat) * (2.0 / flat.shape[1])
    between = max(_variance_between(products, depths) - error, 0.0)
    away = depths - depths[own]
    apart = (depths[:, np.newaxis] - depths) / _DISTANCE
    expected = _SMOOTH**2 * np.exp(-0.5 * apart**2) + _MEAN**2 + _SLOPE**2 * np.outer(away, away)

    def excess(more: Array) -> Array:
        inverse = np.linalg.inv(expected + np.diag(between + errors + more))
        variances = 1.0 / np.diag(inverse)
        squares = np.einsum("ij,jk,ik->i", inverse, products, inverse) * variances**2
        return np.asarray(np.maximum(squares / _CLEAR**2 - variances, 0.0))

    more = excess(np.zeros(len(part)))
    # The section is judged by the others, in which those that depart count little.
    more[own] = 0.0
    more[own] = excess(more)[own]
    whole, covariances = expected + np.diag(between + errors + more), expected[own].copy()
    covariances[own] += between
    damped = np.asarray(np.linalg.solve(whole, covariances))
    if not more[own]:
        return damped, damped
    covariances[own] += more[own]
    return np.asarray(np.linalg.solve(whole, covariances)), damped


def _variance_between(products: Array, depths: Array) -> float:
    """The variance of what differs from section to section: a median over all that have neighbours on both sides."""
    order = np.argsort(depths, kind="stable")
    squares = []
    for low, middle, high in zip(order, order[1:], order[2:], strict=False):
        length = float(depths[high] - depths[low])
        part = float(depths[middle] - depths[low]) / length if length else 0.5
        combined = np.array([part - 1.0, 1.0, -part])
        three = np.ix_([low, middle, high], [low, middle, high])
        squares.append(float(combined @ products[three] @ combined) / float(combined @ combined))
    return float(np.median(squares))
