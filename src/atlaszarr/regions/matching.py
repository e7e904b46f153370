"""Match the levels and the axes of a volume with those of an annotation, by their physical sizes and orientations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..boxes import Shape
from ..engine.ome import Geometry
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION, direction, reference_space
from ..geometry.voxel_size import um
from .measured_volume import MeasuredVolume, voxels_um

#: Relative difference up to which two voxel sizes are the same: sizes in files are rounded.
_SAME_SIZE = 1e-4
#: Part of a voxel by which two grids may be shifted: positions in files are rounded.
_SAME_POSITION = 0.01
#: Part of a voxel of the annotation: a point this close to the edge of a voxel is on the edge.
_ROUNDED = 1e-6
#: Largest voxel of the level that gives the points of a grid their labels, as a part of the distance of two points:
#: 25 um for the 200 um of the Allen Institute.
_FINE = 1 / 8
_Levels = Sequence[tuple[Geometry, Shape]]


@dataclass(frozen=True)
class Match:
    """How a volume lies on an annotation.

    Attributes
    ----------
    volume_level, annotation_level : int
    order : tuple of int
        For z, y and x of the annotation, the axis of the volume that runs along it: 0 is z, 1 y, 2 x.
    flipped : tuple of bool
        Whether the volume runs the other way along each axis of the annotation.
    samples : tuple of ndarray, int64, or None
        For a grid of points, the voxel of the annotation that holds each point, along each axis of the annotation; -1
        outside of it. None if the voxels of both are the same.
    """

    volume_level: int
    annotation_level: int
    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    samples: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None = None


def match(volume: MeasuredVolume, annotation: _Levels, name: str) -> Match:
    """Choose a level of the volume, the finest possible, and one of the annotation with the same voxels.

    The voxels are the same if their size and position are; the volume may end one voxel before or after the
    annotation. For a grid of points the labels are those of the annotation's voxels that hold the points.

    Parameters
    ----------
    volume : MeasuredVolume
    annotation : sequence of (Geometry, tuple of int)
        Geometry and voxels along (z, y, x) of each level.
    name : str
        Name of the annotation, for messages.

    Raises
    ------
    InputError
        If no levels have voxels of the same size, or their grids or orientations differ.
    """
    order, flipped = _axes(volume, annotation[0], name)
    if volume.is_grid:
        return _sampled(volume, annotation, name, order, flipped)
    sizes = [_along(order, voxels_um(geometry, volume.name)) for geometry in volume.geometries]
    labelled = [voxels_um(geometry, name) for geometry, _ in annotation]
    same = [
        (mine, its)
        for mine, its in product(range(len(sizes)), range(len(labelled)))
        if all(abs(a / b - 1) <= _SAME_SIZE for a, b in zip(sizes[mine], labelled[its], strict=True))
    ]
    if not same:
        raise InputError(
            f"no level of {volume.name} has the voxel size of a level of {name}: {_listed(sizes)} and "
            f"{_listed(labelled)}; build the volume with voxels of {um(labelled[0])} (--resolution), or "
            f"give an annotation of {um(sizes[0])}",
            code="no-matching-level",
        )
    mine, its = same[0]
    if not (reason := _difference(volume, mine, *annotation[its], order, flipped)):
        return Match(mine, its, order, flipped)
    raise InputError(
        f"the voxels of {volume.name} and {name} have one size, {um(sizes[mine])}, but not one grid: {reason}; "
        "build both over the same space",
        code="grids-differ",
    )


def require_matching_level(resolution: float, annotation: _Levels, name: str) -> None:
    """Raise an InputError unless a volume can have voxels of the size of an annotation at a level.

    Parameters
    ----------
    resolution : float
        Length of a voxel of the volume at level 0, in um; it doubles from level to level.
    annotation : sequence of (Geometry, tuple of int)
        Same as in `match`.
    name : str
        Name of the annotation, for messages.
    """
    labelled = [voxels_um(geometry, name) for geometry, _ in annotation]
    for sizes in labelled:
        level = max(round(math.log2(sizes[0] / resolution)), 0)
        if all(abs(size / (resolution * 2**level) - 1) <= _SAME_SIZE for size in sizes):
            return
    raise InputError(
        f"no level of a volume with voxels of {um((resolution,) * 3)} has the voxel size of a level of {name}: "
        f"{_listed(labelled)}; build with --resolution {labelled[0][0]:g}, or give another annotation",
        code="no-matching-level",
    )


def _difference(
    volume: MeasuredVolume,
    level: int,
    geometry: Geometry,
    shape: Shape,
    order: tuple[int, int, int],
    flipped: tuple[bool, bool, bool],
) -> str:
    """How the grids of two levels differ; empty if they do not."""
    its = volume.geometries[level]
    found = tuple(volume.shapes[level][k] for k in order)
    most = [0 if flip else 1 for flip in flipped]  # a flipped axis has its origin at the other end
    if any(abs(a - b) > n for a, b, n in zip(found, shape, most, strict=True)):
        return f"{found} and {shape} voxels along the axes of the annotation"
    mine, theirs = float(its.micron or 1), float(geometry.micron or 1)
    starts = [its.translation[k] * mine for k in order]
    labelled = [start * theirs for start in geometry.translation]
    for a, b, size, flip in zip(starts, labelled, geometry.scale, flipped, strict=True):
        if not flip and abs(a - b) > _SAME_POSITION * size * theirs:
            return f"the first voxel is at {_numbers(starts)} and at {_numbers(labelled)} um"
    return ""


def _sampled(
    volume: MeasuredVolume,
    annotation: _Levels,
    name: str,
    order: tuple[int, int, int],
    flipped: tuple[bool, bool, bool],
) -> Match:
    geometry, shape = volume.geometries[0], tuple(volume.shapes[0][k] for k in order)
    steps = _along(order, voxels_um(geometry, volume.name))
    starts = [geometry.translation[k] * float(geometry.micron or 1) for k in order]
    sizes = [voxels_um(at, name) for at, _ in annotation]
    if any(flipped):
        raise InputError(
            f"{volume.name} and {name} run in opposite directions; give an annotation with the axes of the grid",
            code="orientations-differ",
        )
    if any(size > step * (1 + _SAME_SIZE) for size, step in zip(sizes[0], steps, strict=True)):
        raise InputError(
            f"the points of {volume.name} are {um(steps)} apart, and the voxels of {name} are {um(sizes[0])}; give an "
            "annotation whose voxels are not larger",
            code="no-matching-level",
        )
    fine = [
        level
        for level, size in enumerate(sizes)
        if all(a <= step * _FINE * (1 + _SAME_SIZE) for a, step in zip(size, steps, strict=True))
    ]
    level = max(fine, default=0)
    at, voxels = annotation[level]
    samples = []
    for step, first, n, size, begin, count in zip(
        steps, starts, shape, sizes[level], at.translation, voxels, strict=True
    ):
        centres = first + np.arange(n) * step
        edge = begin * float(at.micron or 1) - size / 2
        indices = np.floor((centres - edge) / size + _ROUNDED).astype(np.int64)
        samples.append(np.where((indices >= 0) & (indices < count), indices, -1))
    z, y, x = samples
    return Match(0, level, order, flipped, (z, y, x))


def _axes(
    volume: MeasuredVolume, annotation: tuple[Geometry, Shape], name: str
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """`Match.order` and `Match.flipped`."""
    mine, its = (
        [direction(found.orientation.get(axis, "")) for axis in "zyx"]
        for found in (volume.geometries[0], annotation[0])
    )
    if mine[:2] == its[:2] and {mine[2], its[2]} == {ORIENTATION["x"], BRAINGLOBE_SIDES} and _is_ccf(volume):
        its[2] = mine[2]  # two names of one frame
    if all(not a or not b or a == b for a, b in zip(mine, its, strict=True)):
        return (0, 1, 2), (False, False, False)
    ends = [frozenset(word.split("-to-")) for word in mine]
    try:
        z, y, x = (ends.index(frozenset(word.split("-to-"))) for word in its)
        if len({z, y, x}) < 3 or not all(mine):
            raise ValueError
    except ValueError:
        raise InputError(
            f"the axes z, y, x of {volume.name} run {_words(mine)}, and those of {name} run {_words(its)}; give an "
            "annotation along the axes of the volume",
            code="orientations-differ",
        ) from None
    a, b, c = (mine[k] != word for k, word in zip((z, y, x), its, strict=True))
    return (z, y, x), (a, b, c)


def _is_ccf(volume: MeasuredVolume) -> bool:
    return reference_space(9).is_covered(volume.shapes[0], voxels_um(volume.geometries[0], volume.name))


def _along(order: tuple[int, int, int], lengths: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = (lengths[k] for k in order)
    return z, y, x


def _listed(sizes: Sequence[Sequence[float]]) -> str:
    return ", ".join(map(um, sizes))


def _numbers(lengths: Sequence[float]) -> str:
    return ", ".join(f"{length:g}" for length in lengths)


def _words(words: Sequence[str]) -> str:
    return ", ".join(word or "(unknown)" for word in words)
