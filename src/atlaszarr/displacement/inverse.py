"""The inverse of a displacement field: exact for an affine, by Newton's method for any other field."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .fields import AffineField, ArrayField, Coordinates, Field, Shape, blocks
from .kernels import invert

#: Points along an axis of the affine fit that Newton's method starts from.
_FIT_POINTS = 64


def inverse(field: Field, shape: Shape) -> Field:
    """Invert a field: map each pixel of an image to the point of the field's grid that maps to it.

    Parameters
    ----------
    field : Field
    shape : tuple of int
        Rows and columns of the image.

    Raises
    ------
    InputError
        If the field has no finite point, or all its points lie on one line.
    """
    if isinstance(field, AffineField):
        return AffineField.of(shape, _affine_inverse(np.array(field.matrix)))
    values = np.empty((2, *field.shape))
    for _, (rows, columns) in blocks(field.chunks):
        values[:, rows, columns] = field.displacements(rows, columns)
    points = np.empty((2, *shape))
    invert(values, _affine_inverse(_fit(values)), points)
    points.setflags(write=False)
    return ArrayField(points[0], points[1], relative=False)


def _affine_inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = matrix[:, :2]
    if abs(np.linalg.det(linear)) < 1e-12 * np.abs(linear).max() ** 2 or not linear.any():
        raise InputError(
            f"field with the affine {matrix.tolist()} has no inverse; it maps all points to one line",
            code="not-invertible",
        )
    back = np.linalg.inv(linear)
    return np.hstack([back, -back @ matrix[:, 2:]])


def _fit(values: Coordinates) -> NDArray[np.float64]:
    """The least-squares fit of an affine to a field: float64, shape (2, 3)."""
    height, width = values.shape[1:]
    rows, columns = (np.unique(np.linspace(0, n - 1, _FIT_POINTS).round().astype(int)) for n in (height, width))
    sample = values[:, rows[:, np.newaxis], columns].reshape(2, -1)
    points = np.stack([np.tile(columns, rows.size), np.repeat(rows, columns.size)])
    finite = np.isfinite(sample).all(axis=0)
    if not finite.any():
        raise InputError(
            f"field of shape {(height, width)} has no inverse; it has no finite point", code="not-invertible"
        )
    # Displacements are fitted, so that they are constant along an axis of one pixel.
    terms = np.vstack([points[:, finite], np.ones(finite.sum())]).T
    fitted = np.linalg.lstsq(terms, sample[:, finite].T, rcond=None)[0].T
    fitted[:, :2] += np.eye(2)
    return np.asarray(fitted)
