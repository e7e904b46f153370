"""Planes of an annotation at slice coordinates, read in one pass from a file or an OME-Zarr.

Sections and pictures are the business of other modules.
"""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.absent_chunks import AbsentChunks
from ..engine.ome_reader import StoredImage
from ..engine.schedulers import usable_cores
from ..errors import AtlaszarrWarning, InputError
from ..geometry.plane import Plane
from ..geometry.spaces import AXES, BRAINGLOBE_SIDES, ORIENTATION, ReferenceSpace
from ..reference_volumes import open_annotation
from ..reference_volumes.ome_zarr import is_ome_zarr
from ..reference_volumes.orientation import sides_remark
from ..stores.locations import shown
from ..stores.target import Target
from .annotation_borders import LabelPlane

if TYPE_CHECKING:
    import dask.array as da

#: Threads that read: more than cores, since they wait where a store is not a local disk.
_WAITING = 8


def label_planes(
    annotation: str | os.PathLike[str],
    plane: Plane,
    coordinates: Sequence[float],
    resolution: float,
    space: ReferenceSpace,
    storage_options: Mapping[str, Any] | None = None,
) -> list[LabelPlane | None]:
    """The labels of planes through an annotation.

    Parameters
    ----------
    annotation : str or path-like
        An OME-Zarr, whose name ends in ``.zarr``: its level nearest to the resolution is read. Or NRRD, NIfTI or TIFF.
    plane : Plane
    coordinates : sequence of float
        Of each plane along the axis across it, in um.
    resolution : float
        Of the result, in um: of finer voxels every n-th one is taken.
    space : ReferenceSpace
        Of coordinates and results.
    storage_options : mapping, optional
        To fsspec, for a URL.

    Returns
    -------
    list of LabelPlane or None
        None for a plane outside the annotation.

    Raises
    ------
    InputError
        If it is not an annotation, or its unit, orientation or transformation is missing or not supported.
    NotFoundError, SourceError, TargetError
        If it is missing or cannot be read.
    """
    uri = os.fspath(annotation)
    if is_ome_zarr(uri):
        volume, absent = _stored(StoredImage.at(Target.of(uri, storage_options)), plane, resolution, space)
        planes = _planes(_within(volume, space), plane, coordinates, resolution)
        if (text := absent.remark()) is not None:
            warnings.warn(
                f"{text} (counted among the chunks that the picture shows)", AtlaszarrWarning, stacklevel=3
            )  # at the call of preview
        return planes
    with (
        tempfile.TemporaryDirectory(prefix="atlaszarr-preview-") as spool,
        open_annotation(uri, spool, storage_options=storage_options) as opened,
    ):
        volume = _Volume(opened.uri, opened.array, opened.voxel_size, (0.0, 0.0, 0.0))
        return _planes(_within(volume, space), plane, coordinates, resolution)


@dataclass(frozen=True)
class _Volume:
    """Voxels of labels, along (p, i, r)."""

    name: str
    array: da.Array
    size: tuple[float, float, float]
    """Of a voxel, in um."""
    corner: tuple[float, float, float]
    """Where the first voxel begins, in um."""


def _within(volume: _Volume, space: ReferenceSpace) -> _Volume:
    """The volume, if it lies within the space to a voxel; else it is of another space, and refused."""
    for axis, begin, n, size, extent in zip(
        "pir", volume.corner, volume.array.shape, volume.size, space.extent, strict=True
    ):
        if begin < -size or begin + n * size > extent + size:
            raise InputError(
                f"annotation {volume.name} lies from {begin:g} to {begin + n * size:g} um along {axis}, of which "
                f"reference space {space.id} has {extent:g} um; give one of that space"
            )
    return volume


def _planes(volume: _Volume, plane: Plane, coordinates: Sequence[float], resolution: float) -> list[LabelPlane | None]:
    fixed = plane.fixed
    indices = [math.floor((at - volume.corner[fixed]) / volume.size[fixed]) for at in coordinates]
    there = sorted({index for index in indices if 0 <= index < volume.array.shape[fixed]})
    if not there:
        first = volume.corner[fixed]
        last = first + volume.array.shape[fixed] * volume.size[fixed]
        raise InputError(
            f"annotation {volume.name} lies from {first:g} to {last:g} um along {AXES[fixed]}, where no section is; "
            "give one of the dataset's reference space"
        )
    steps = {axis: max(1, round(resolution / volume.size[axis])) for axis in (plane.rows, plane.columns)}
    # One pass over the chunks that the planes lie in; the middle of each step stands for it.
    index = tuple(there if axis == fixed else slice((steps[axis] - 1) // 2, None, steps[axis]) for axis in range(3))
    values = volume.array[index].compute(scheduler="threads", num_workers=max(_WAITING, usable_cores()))
    cuts = dict(zip(there, np.moveaxis(values, fixed, 0), strict=True))
    axes = (plane.rows, plane.columns)
    top, left = (float(volume.corner[axis]) for axis in axes)
    height, width = (float(volume.size[axis] * steps[axis]) for axis in axes)

    def at(index: int) -> LabelPlane | None:
        if index not in cuts:
            return None
        labels = cuts[index] if plane.rows < plane.columns else cuts[index].T
        return LabelPlane(labels, (top, left), (height, width))

    return [at(index) for index in indices]


def _stored(image: StoredImage, plane: Plane, resolution: float, space: ReferenceSpace) -> tuple[_Volume, AbsentChunks]:
    """The level with the pixel size in the plane that is nearest to the resolution, and the chunks that it lacks."""
    name = shown(image.target.url)
    unit, orientation = image.geometries[0].unit, image.geometries[0].orientation
    if (micron := image.geometries[0].micron) is None:
        stated = "no unit" if unit is None else f"the unit {unit!r}"
        raise InputError(f"{name} has axes of {stated}, so its position is not known; give one in millimetres")
    for axis, wanted in ORIENTATION.items():
        if orientation.get(axis, wanted) == wanted:
            continue
        covered = space.is_covered(image.lazy(0)[0].shape[-3:], [micron * one for one in image.geometries[0].scale])
        if not (orientation[axis] == BRAINGLOBE_SIDES and covered):
            raise InputError(f"the {axis} axis of {name} runs {orientation[axis]}; give an annotation of {wanted}")
        warnings.warn(sides_remark(name), AtlaszarrWarning, stacklevel=4)  # at the call of preview

    def distance(level: int) -> float:
        scale = image.geometries[level].scale
        return abs(math.log(micron * math.sqrt(scale[plane.rows] * scale[plane.columns]) / resolution))

    level = min(range(len(image.paths)), key=distance)
    geometry = image.geometries[level]
    (a, b, c), (p, i, r) = geometry.scale, geometry.translation
    size = (a * micron, b * micron, c * micron)
    # The origin is the centre of the first voxel of the space's finest grid.
    p, i, r = (at * micron + space.anchor / 2 - length / 2 for at, length in zip((p, i, r), size, strict=True))
    array, absent = image.lazy(level)
    if array.dtype.kind not in "iub" or math.prod(array.shape[:-3]) != 1:
        raise InputError(f"{name} holds {array.dtype} of shape {array.shape}; give integer labels along z, y, x")
    return _Volume(name, array[(0,) * (array.ndim - 3)], size, (p, i, r)), absent
