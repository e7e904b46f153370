"""Labels of an annotation: converted to uint32, and compared with a terminology."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..terminology.rows import LARGEST_LABEL
from ..terminology.terminology import Terminology

#: What labels must be.
_WHOLE = "labels must be whole numbers from 0"
_SIDES = f"{_WHOLE}; if a negative one marks a side of a structure, save absolute values: the midline tells the sides"
#: How many unknown labels a remark names.
_NAMED = 20


def as_labels(values: NDArray[Any], name: str) -> NDArray[np.uint32]:
    """Convert voxels to labels.

    Parameters
    ----------
    values : ndarray
        Any integer or floating point dtype, or bool.
    name : str
        Name of the file, for messages.

    Returns
    -------
    ndarray, uint32

    Raises
    ------
    InputError
        If a value is negative, above 4294967295, fractional or NaN; or so large that its floating point dtype does not
        represent every integer of that size, so that it may be another label that was rounded.
    """
    kind = values.dtype.kind
    if kind == "b" or (kind == "u" and values.dtype.itemsize <= 4):
        return values.astype(np.uint32, copy=False)
    if kind == "f":
        exact = 2 ** (np.finfo(values.dtype).nmant + 1)
        whole = np.trunc(values) == values
        _refuse(values, values < 0, name, _SIDES)
        _refuse(values, ~whole, name, _WHOLE)
        _refuse(values, values >= exact, name, f"{values.dtype} is exact below {exact} only; save integers")
    else:
        _refuse(values, values < 0, name, _SIDES)
    _refuse(values, values > LARGEST_LABEL, name, f"labels must be at most {LARGEST_LABEL}")
    return values.astype(np.uint32)


def unknown_labels(labels: NDArray[np.uint32], terminology: Terminology) -> tuple[int, ...]:
    """The labels, other than 0, that no structure has."""
    known = np.array([0, *terminology.by_value], np.uint32)
    return tuple(int(label) for label in np.setdiff1d(labels, known))


def unknown_labels_remark(unknown: tuple[int, ...], name: str) -> str:
    """A remark that names the labels without a structure."""
    named = ", ".join(map(str, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
    what = "a label" if len(unknown) == 1 else f"{len(unknown)} labels"
    return f"{name} has {what} of no structure in the terminology: {named}"


def _refuse(values: NDArray[Any], invalid: NDArray[np.bool_], name: str, reason: str) -> None:
    if invalid.any():
        label = values[invalid].ravel()[0]
        raise InputError(f"{name} holds the label {label}; {reason}", code="invalid-label")
