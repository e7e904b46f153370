"""The inverse of a displacement field: exact for an affine, by Newton's method for any other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .fields import AffineField, ArrayField, Coordinates, Field, Shape, blocks
from .kernels import invert

#: Points along an axis that the affine is fitted to, which Newton's method starts from.
_FITTED = 64


def inverse(field: Field, shape: Shape) -> Field:
    """The field over an image that maps its pixels to the points of a field's grid that map to them.

    Parameters
    ----------
    field : Field
    shape : tuple of int
        Rows and columns of the image.

    Raises
    ------
    InputError
        If the field has no finite point, or all lie on one line.
    """
    if isinstance(field, AffineField):
        return AffineField.of(shape, _affine_inverse(np.array(field.matrix)))
    values = np.empty((2, *field.shape))
    for _, (rows, columns) in blocks(field.chunks):
        values[:, rows, columns] = field.displacements(rows, columns)
    found = np.empty((2, *shape))
    invert(values, _affine_inverse(_fit(values)), found)
    found.setflags(write=False)
    return ArrayField(found[0], found[1], relative=False)


def _affine_inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = matrix[:, :2]
    if abs(np.linalg.det(linear)) < 1e-12 * np.abs(linear).max() ** 2 or not linear.any():
        raise InputError(f"a field of the affine {matrix.tolist()} has no inverse: it maps all points to one line")
    back = np.linalg.inv(linear)
    return np.hstack([back, -back @ matrix[:, 2:]])


def _fit(values: Coordinates) -> NDArray[np.float64]:
    """The affine that comes closest to a field: float64, (2, 3)."""
    height, width = values.shape[1:]
    rows, columns = (np.unique(np.linspace(0, n - 1, _FITTED).round().astype(int)) for n in (height, width))
    sample = values[:, rows[:, np.newaxis], columns].reshape(2, -1)
    places = np.stack([np.tile(columns, rows.size), np.repeat(rows, columns.size)])
    somewhere = np.isfinite(sample).all(axis=0)
    if not somewhere.any():
        raise InputError(f"a field of shape {(height, width)} without a finite point has no inverse")
    # Of displacements, so that along an axis of one pixel they stay the same.
    terms = np.vstack([places[:, somewhere], np.ones(somewhere.sum())]).T
    fitted = np.linalg.lstsq(terms, sample[:, somewhere].T, rcond=None)[0].T
    fitted[:, :2] += np.eye(2)
    return np.asarray(fitted)
