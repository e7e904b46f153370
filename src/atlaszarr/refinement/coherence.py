"""Fields that agree across sections: what a section claims against its neighbours is damped."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: How many neighbours on each side are needed.
WINDOW = 3
#: Standard deviation of the weight of a neighbour by its distance in depth, in um.
_DISTANCE = 300.0


def coherent(fields: ArrayLike, depths: ArrayLike, weights: ArrayLike, middle: int) -> Array:
    """Find the field of a section that agrees with those of its neighbours.

    Parameters
    ----------
    fields : array_like, shape (k, 2, rows, columns)
        Of a section and its up to `WINDOW` neighbours on each side in order of depth, in um of the plane.
    depths : array_like, shape (k,)
        Their corrected depths, in um.
    weights : array_like, shape (k,) or (k, rows, columns)
        How much each is worth, 0 or more: `RefinedSection.weight`, which is 0 for a section that keeps its recorded
        registration: it says nothing of its neighbours, and its own field is returned as it is.
    middle : int
        The index of the section.

    Returns
    -------
    ndarray, float64, shape (2, rows, columns)
    """
    values, places = np.asarray(fields, np.float64), np.asarray(depths, np.float64)
    worth = np.asarray(weights, np.float64)
    worth = worth[:, np.newaxis] if worth.ndim == 3 else worth.reshape(-1, 1, 1, 1)
    if not worth[middle].any():
        return np.array(values[middle])
    away = (places - places[middle]).reshape(-1, 1, 1, 1)
    worth = worth * np.exp(-0.5 * (away / _DISTANCE) ** 2)
    return np.asarray((worth * values).sum(axis=0) / np.maximum(worth.sum(axis=0), 1e-12))
