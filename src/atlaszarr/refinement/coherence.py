"""Fields that agree across sections: what a section claims against its neighbours is damped."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

Array = NDArray[np.float64]

#: How many neighbours on each side are needed.
WINDOW = 12
#: Standard deviation of the weight of a neighbour by its distance in depth, in um.
_DISTANCE = 650.0
#: How far a field departs from those of its neighbours by the errors of the fit: its affine part and the rest, in um.
#: The median error of fitted fields of clean and torn sections in the benchmark is 16 to 28 um.
_AFFINE_ERROR, _REST_ERROR = 30.0, 50.0
#: A departure of more than so many errors counts as true if the section fits at least this part as well as the others.
_CLEAR, _AS_WELL = 3.0, 0.8
#: Squared departures of up to so many squared errors are errors: otherwise sections keep a few per cent of their own,
#: which is rougher along depth than fields that are smooth.
_MARGIN = 1.5


def coherent(fields: ArrayLike, depths: ArrayLike, weights: ArrayLike, middle: int) -> Array:
    """Find the field of a section that agrees with those of its neighbours.

    Parameters
    ----------
    fields : array_like, shape (sections, 2, rows, columns)
        Of a section and its up to `WINDOW` neighbours on each side, in um of the plane.
    depths : array_like, shape (sections,)
        Their corrected depths, in um.
    weights : array_like, shape (sections,)
        What each field is worth, 0 or more: `RefinedSection.weight`.
    middle : int
        The index of the section.

    Returns
    -------
    ndarray, float64, shape (2, rows, columns)
        In um. A section of weight 0, which keeps its recorded registration, has no part in the fields of others, and
        its own field is returned as it is: what its neighbours say was not seen in its own tissue.

    Raises
    ------
    InputError
        If the shapes do not fit.

    Notes
    -----
    A field is the sum of its affine part, in which sections differ by their mounting, and a rest. Each part is drawn
    to a local linear regression along depth (Cleveland 1979, Journal of the American Statistical Association 74,
    829-836), in which a section far from the others counts little. The share s of its departure that a section keeps
    is that of the variance between sections in the variance of the departures, s = v / (v + e^2), for an error e of the
    fit of 30 um in the affine and 50 um in the rest: v is the median over the neighbours of d^2 - 1.5 e^2, at least 0,
    for the departure d of each from the regression of the others. If the section itself departs by more than 3 e and
    fits its tissue nearly as well as the others do, v is its own.
    """
    values, places, worth = (np.asarray(each, np.float64) for each in (fields, depths, weights))
    if values.ndim != 4 or values.shape[1] != 2 or not places.shape == worth.shape == values.shape[:1]:
        raise InputError(
            f"fields, depths and weights have shapes {values.shape}, {places.shape} and {worth.shape}; give (sections, "
            "2, rows, columns), (sections,) and (sections,)",
            code="shape-mismatch",
        )
    counts = np.flatnonzero(worth > 0)
    if worth[middle] <= 0 or len(counts) < 3:
        return np.array(values[middle])
    values, places, worth = values[counts], places[counts], worth[counts]
    own = int(np.searchsorted(counts, middle))
    affine = _affine_parts(values)
    rest = values - affine
    found = np.zeros(values.shape[1:])
    for part, error in ((affine, _AFFINE_ERROR), (rest, _REST_ERROR)):
        found += np.einsum("s,sirc->irc", _mixture(part, places, worth, own, error), part)
    return found


def _affine_parts(fields: Array) -> Array:
    """The affine fields that are nearest to fields of shape (sections, 2, rows, columns)."""
    _, _, rows, columns = fields.shape
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    basis = np.stack([np.ones(rows * columns), x / columns - 0.5, y / rows - 0.5])
    # Sums of einsum are the same on any number of threads; those of BLAS are not.
    products = np.einsum("ip,fp->if", basis, fields.reshape(-1, rows * columns))
    coefficients = np.linalg.solve(np.einsum("ip,jp->ij", basis, basis), products)
    return np.asarray(np.einsum("if,ip->fp", coefficients, basis).reshape(fields.shape))


def _mixture(part: Array, depths: Array, worth: Array, own: int, error: float) -> Array:
    """How much of each field of shape (sections, 2, rows, columns) the coherent field of one of them has."""
    count = len(part)
    flat = part.reshape(count, -1)
    # Squared lengths of all combinations of the fields follow from their products, per pixel.
    products = np.einsum("ip,jp->ij", flat, flat) * (2.0 / flat.shape[1])

    def departure(section: int, weights: Array) -> float:
        difference = -_regression(depths, np.where(np.arange(count) == section, 0.0, weights), section)
        difference[section] += 1.0
        return max(float(difference @ products @ difference), 0.0)

    squares = np.array([departure(section, worth) for section in range(count)])
    others = np.arange(count) != own
    scale = 2.0 * max(error**2, float(np.median(squares)))
    weights = worth / (1.0 + squares / scale)
    between = max(float(np.median(squares[others])) - _MARGIN * error**2, 0.0)
    square = departure(own, weights)
    if square > (_CLEAR * error) ** 2 and worth[own] >= _AS_WELL * float(np.median(worth[others])):
        between = max(between, square - error**2)
    share = between / (between + error**2)
    mixture = (1.0 - share) * _regression(depths, weights, own)
    mixture[own] += share
    return np.asarray(mixture)


def _regression(depths: Array, weights: Array, section: int) -> Array:
    """How much of each section a local linear regression along depth has at one of them."""
    away = (depths - depths[section]) / _DISTANCE
    near = weights * np.exp(-0.5 * away**2)
    near = near / max(float(near.sum()), 1e-300)
    mean = float(near @ away)
    spread = float(near @ (away - mean) ** 2)
    # A ridge keeps the slope small where all sections lie at one depth.
    return np.asarray(near * (1.0 - mean * (away - mean) / (spread + 0.01)))
