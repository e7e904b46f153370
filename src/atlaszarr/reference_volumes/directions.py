"""Directions, spacing and origin of a header, in any unit and any named space, as the fields of a `Header`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..engine.ome import microns_in
from .orientation import origin_of

#: The unit of a header that names none. ITK, FSL, nibabel, 3D Slicer and ITK-SNAP all take millimetres.
ASSUMED_UNIT = "mm"


class Placement(TypedDict):
    """The fields of a `Header` that come from directions, spacing and origin."""

    spacing: tuple[float, float, float] | None
    origin: str | None
    reason: str
    position: tuple[float, float, float] | None
    numbers: str
    unit_assumed: bool
    is_oblique: bool


def placement(
    lengths: NDArray[np.float64] | None,
    directions: NDArray[np.float64] | None,
    ends: str | None,
    unit: str | None,
    first: Sequence[float] | None,
    *,
    missing: str,
) -> Placement:
    """The fields of a `Header` for the axes of a file.

    Parameters
    ----------
    lengths : ndarray, float64, shape (3,), or None
        Voxel size along each axis, in `unit`; None if the header has none.
    directions : ndarray, float64, shape (3, 3), or None
        A row for each axis: the step from one voxel to the next, of any length; None if the header has none.
    ends : str or None
        The side that each coordinate of a step increases to: ``ras`` in NIfTI; None if it is not known.
    unit : str or None
        The unit of length as the header writes it; None if it has none, which means mm.
    first : sequence of 3 floats, or None
        Centre of the first voxel in the space of the directions, in `unit`.
    missing : str
        The reason if `directions` or `ends` is None.
    """
    if lengths is not None and len(lengths) != 3:
        lengths = None  # a volume of other than 3 axes, which `Header` refuses
    if directions is not None and directions.shape != (3, 3):
        directions = None
    if directions is not None:
        with np.errstate(all="ignore"):
            directions = directions / np.abs(directions).max(axis=1, keepdims=True)  # so that no square overflows
    known = microns_in(unit or ASSUMED_UNIT)
    micron = None if known is None else float(known)
    origin = None if directions is None or ends is None else origin_of(directions, ends)
    spacing, reason = _spacing(lengths, unit, micron)
    if origin is None:
        why = missing if directions is None or ends is None else "the axes of its header are oblique"
        reason = f"{why}, and {reason}" if reason else why
    position = None
    if first is not None and directions is not None and micron is not None:
        with np.errstate(all="ignore"):
            along = directions @ np.asarray(first, np.float64) / np.linalg.norm(directions, axis=1) * micron
        position = _three(along) if np.isfinite(along).all() else None
    numbers = []
    if lengths is not None:
        numbers.append(f"spacing {product(lengths)} {unit or '(no unit)'}")
    if first is not None:
        numbers.append("origin " + ", ".join(f"{length:.6g}" for length in first))
    return Placement(
        spacing=spacing,
        origin=origin,
        reason=reason,
        position=position,
        numbers=", ".join(numbers),
        unit_assumed=unit is None,
        is_oblique=directions is not None and ends is not None and origin is None,
    )


def _spacing(
    lengths: NDArray[np.float64] | None, unit: str | None, micron: float | None
) -> tuple[tuple[float, float, float] | None, str]:
    """The voxel size in um, and the reason if there is none."""
    if lengths is None:
        return None, "its header has no voxel size"
    if micron is None:
        return None, f"its header has the unit {unit!r}, which is not supported"
    with np.errstate(all="ignore"):
        spacing = lengths * micron
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        return None, f"its header has voxels of {product(lengths)}"
    return _three(spacing), ""


def step_lengths(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The length of the step along each axis; infinite if it overflows."""
    with np.errstate(all="ignore"):
        lengths: NDArray[np.float64] = np.linalg.norm(directions, axis=1)
    return lengths


def product(lengths: Any) -> str:
    """Sizes along several axes, as text."""
    return " x ".join(f"{length:.6g}" for length in lengths)


def _three(lengths: Any) -> tuple[float, float, float]:
    # 0.07 mm are 70 um, and not 70.00000000000001; 0.0 is added to -0.0.
    a, b, c = (float(f"{length:.12g}") + 0.0 for length in lengths)
    return a, b, c
