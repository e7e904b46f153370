"""Values in the JSON of the Allen API: each is what it must be, or a RecordError says which record has it wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import RecordError
from ..transforms import apply

Record = Mapping[str, Any]
Matrix = tuple[tuple[float, ...], ...]
Number = TypeVar("Number", int, float)

#: The API rounds an alignment and its inverse to six digits each, which costs up to 0.12 um on real records
#: (0.5 um on the largest sections); beyond this the two contradict each other.
_ROUND_TRIP_UM = 5.0
#: The longest side a JPEG can have.
_LONGEST_SIDE = 65500
#: Beyond any figure of the API, whose ids are the largest, and far within what float64 computes exactly.
_LARGEST = 2**40


def record_of(record: Record, name: str, label: str) -> Record:
    """The one record that another is associated with; empty if there is none."""
    value = record.get(name) or {}
    if not isinstance(value, Mapping):
        raise RecordError(f"{label} has {name} {value!r:.40}, not a record")
    return value


def names_of(record: Record, association: str, key: str, label: str) -> tuple[str, ...]:
    """One value of each of the records that another is associated with."""
    rows = record.get(association) or []
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and key in row for row in rows):
        raise RecordError(f"{label} has {association} {rows!r:.40}, not records with {key}")
    return tuple(str(row[key]) for row in rows)


def number_of(record: Record, key: str, kind: type[Number], label: str) -> Number:
    """A number of a record."""
    value = record.get(key)
    # NaN and the infinities fail the comparison too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        raise RecordError(f"{label} has {key} {value!r:.40}, not a number that can be meant")
    if kind is int and value != int(value):
        raise RecordError(f"{label} has {key} {value!r}, not a whole number")
    return kind(value)


def alignment2d(record: Record, name: str, label: str) -> Matrix:
    """``tsv`` or ``tvs`` of an Alignment2d record: shape (2, 3)."""
    a, b, c, d, x, y = (number_of(record, f"{name}_0{k}", float, label) for k in range(6))
    return _regular(((a, b, x), (c, d, y)), name, label)


def alignment3d(record: Record, name: str, label: str) -> Matrix:
    """``tvr`` or ``trv`` of an Alignment3d record: shape (3, 4)."""
    t = [number_of(record, f"{name}_{k:02d}", float, label) for k in range(12)]
    return _regular(tuple((*t[3 * row : 3 * row + 3], t[9 + row]) for row in range(3)), name, label)


def _regular(matrix: Matrix, name: str, label: str) -> Matrix:
    linear = np.array(matrix)[:, :-1]
    if not np.linalg.cond(linear) < 1e6:
        raise RecordError(f"{label} has a singular alignment {name}: {linear.tolist()}")
    return matrix


def check_inverse(there: Matrix, back: Matrix, points: NDArray[np.float64], label: str) -> None:
    """Refuse an alignment that does not lead back to some points (um) from where its inverse puts them."""
    error = float(np.abs(apply(back, apply(there, points)) - points).max())
    if not error < _ROUND_TRIP_UM:
        raise RecordError(f"{label} has an alignment and an inverse that differ by {error:.1f} um")


def image_box(image: Record, label: str) -> tuple[int, int, int, int]:
    """Left, top, width and height of a section image on its slide, in full-resolution pixels.

    Raises
    ------
    RecordError
        Beginning with `label`, if there is no such picture.
    """
    left, top = (number_of(image, side, int, label) if image.get(side) else 0 for side in ("x", "y"))
    width, height = (number_of(image, side, int, label) for side in ("width", "height"))
    if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE):
        raise RecordError(f"{label} has a size of {width} x {height} pixels")
    return left, top, width, height
