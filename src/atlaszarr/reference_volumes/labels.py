"""Labels of an annotation: converted to uint32, distinct, and compared with a terminology."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..terminology.terminology import Terminology

#: Of labels, as uint32 holds them.
_LARGEST = 2**32 - 1
#: Unknown labels that a sentence names.
_NAMED = 20


def as_labels(values: NDArray[Any], name: str) -> NDArray[np.uint32]:
    """Voxels as labels.

    Parameters
    ----------
    values : ndarray
        Any integer or floating point dtype, or bool.
    name : str
        Of the file, for messages.

    Returns
    -------
    ndarray, uint32

    Raises
    ------
    InputError
        If a value is negative, above 4294967295, fractional or NaN; or so large that its floating point dtype does not
        hold every whole number there, so that it may be another label that was rounded.
    """
    kind = values.dtype.kind
    if kind == "b" or (kind == "u" and values.dtype.itemsize <= 4):
        return values.astype(np.uint32, copy=False)
    if kind == "f":
        exact = 2 ** (np.finfo(values.dtype).nmant + 1)
        whole = np.trunc(values) == values
        _refuse(values, ~(whole & (values >= 0)), name, "labels must be whole numbers from 0")
        _refuse(values, values >= exact, name, f"{values.dtype} is exact below {exact} only; save integers")
    else:
        _refuse(values, values < 0, name, "labels must be whole numbers from 0")
    _refuse(values, values > _LARGEST, name, f"labels must be at most {_LARGEST}")
    return values.astype(np.uint32)


def distinct(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The labels that occur, sorted, without 0."""
    flat = labels.ravel(order="K")
    # Labels come in runs: only where one begins needs to be sorted.
    begins = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    found = np.unique(np.concatenate([flat[:1], flat[begins]]))
    labels_found: NDArray[np.uint32] = found[found != 0]
    return labels_found


def unknown_labels(labels: NDArray[np.uint32], terminology: Terminology) -> tuple[int, ...]:
    """The labels, other than 0, that are not the id of a structure."""
    ids = np.array([structure.id for structure in terminology] + [0], np.uint32)
    return tuple(int(label) for label in np.setdiff1d(labels, ids))


def unknown_labels_remark(unknown: tuple[int, ...], name: str) -> str:
    """A sentence that names labels without a structure."""
    named = ", ".join(map(str, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
    what = "a label" if len(unknown) == 1 else f"{len(unknown)} labels"
    return f"{name} has {what} of no structure in the terminology: {named}"


def _refuse(values: NDArray[Any], where: NDArray[np.bool_], name: str, why: str) -> None:
    if where.any():
        raise InputError(f"{name} holds the label {values[where].ravel()[0]}; {why}")
