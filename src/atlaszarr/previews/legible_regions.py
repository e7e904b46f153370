"""Regions of a plane that are large enough for their acronyms at the size of a picture. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..terminology.terminology import Structure, Terminology
from .annotation_borders import LabelPlane

#: Sizes of the free space around an acronym that are tried, in sizes of the acronym: the largest is taken.
_MARGINS = (3.0, 2.0, 1.5, 1.2)
#: Structures of at most this share of a plane are drawn as one region where no acronym fits.
_SMALL = 0.02


@dataclass(frozen=True)
class Acronym:
    """An acronym inside its region.

    Attributes
    ----------
    structure : Structure
    column, row : float
        Position of its middle along the axes of columns and rows, in um.
    """

    structure: Structure
    column: float
    row: float


def legible_regions(
    plane: LabelPlane, terminology: Terminology, size_of: Callable[[str], tuple[float, float]]
) -> tuple[LabelPlane, list[Acronym]]:
    """Merge regions that are too small for their acronyms into the smallest structure that is not.

    A structure whose subregion has an acronym gets none. Where no structure is large enough, regions are merged into
    structures of at most 2 % of the plane. Labels that the terminology lacks stay as they are.

    Parameters
    ----------
    plane : LabelPlane
    terminology : Terminology
    size_of : callable
        Width and height of an acronym, in um.

    Returns
    -------
    merged : LabelPlane
        int64 numbers of the merged regions, 0 outside.
    acronyms : list of Acronym
        They lie wholly inside their regions.
    """
    values, inverse, counts = np.unique(plane.labels, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(plane.labels.shape)
    position = {int(value): k for k, value in enumerate(values.tolist()) if value != 0}
    brain = int(counts[values != 0].sum())
    members: dict[Any, list[int]] = {}
    closed: set[Any] = set()  # structures with an acronym below them
    groups = np.where(values == 0, 0, np.arange(1, len(values) + 1))
    acronyms: list[Acronym] = []

    def merge(own: list[int]) -> None:
        groups[own] = groups.max() + 1

    for structure in reversed(terminology.structures):  # each follows its descendants
        own = members.pop(structure.id, [])
        if structure.value in position:
            own.append(position[structure.value])
        parent = structure.parent_id
        if parent is None:
            continue
        if structure.id in closed:
            closed.add(parent)
            continue
        if not own:
            continue
        area = int(counts[own].sum())
        width, height = size_of(structure.acronym)
        window = height / plane.size[0], width / plane.size[1]
        inside = np.zeros(len(values), bool)
        inside[own] = True
        if area >= window[0] * window[1] and (middle := _room(inside[inverse], window)) is not None:
            row, column = (
                at * size + corner for at, size, corner in zip(middle, plane.size, plane.corner, strict=True)
            )
            acronyms.append(Acronym(structure, column, row))
            merge(own)
            closed.add(parent)
        else:
            if area <= _SMALL * brain:
                merge(own)
            members.setdefault(parent, []).extend(own)
    return replace(plane, labels=groups[inverse]), acronyms


def _room(mask: NDArray[np.bool_], window: Sequence[float]) -> tuple[float, float] | None:
    """The middle (row, column) of a window that lies in a mask, with as much of the mask around it as can be.

    In a mask of two halves, as of both hemispheres, it lies in the one at the lower columns.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0], columns[0]
    cropped = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    sums = np.zeros((cropped.shape[0] + 1, cropped.shape[1] + 1), np.int64)
    sums[1:, 1:] = cropped.cumsum(axis=0).cumsum(axis=1)
    for margin in _MARGINS:
        height, width = (max(1, int(np.ceil(margin * length))) for length in window)
        if height > cropped.shape[0] or width > cropped.shape[1]:
            continue
        inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
        found = np.argwhere(inside == height * width)
        if not len(found):
            continue
        centre = found.mean(axis=0)
        distance = np.abs(found - centre)
        if not (distance < (height, width)).all(axis=1).any():  # two halves
            found = found[found[:, 1] <= centre[1]]
            centre = found.mean(axis=0)
        row, column = found[((found - centre) ** 2).sum(axis=1).argmin()]
        return float(top + row + height / 2), float(left + column + width / 2)
    return None
