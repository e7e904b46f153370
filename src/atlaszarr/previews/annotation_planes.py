"""Planes of an annotation at slice coordinates, read in one pass from a file or an OME-Zarr."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.absent_chunks import AbsentChunks
from ..engine.ome_reader import StoredImage
from ..engine.schedulers import usable_cores
from ..errors import AtlaszarrWarning, InputError
from ..geometry.plane import Plane
from ..geometry.spaces import AXES, BRAINGLOBE_SIDES, ORIENTATION, ReferenceSpace
from ..geometry.voxel_size import um
from ..reference_volumes import open_annotation
from ..reference_volumes.ome_zarr import is_ome_zarr
from ..reference_volumes.orientation import sides_remark
from ..stores.locations import shown
from ..stores.target import Target
from ..stores.temporary import temporary_folder
from .annotation_borders import LabelPlane

if TYPE_CHECKING:
    import dask.array as da

#: Codes of the errors of `open_annotation` that ask for an orientation or a voxel size.
_ASK_FOR_OPTIONS = frozenset({"contradictory-header", "implausible-size", "missing-orientation", "missing-voxel-size"})
#: Minimum number of reading threads: more than cores, since remote stores keep them waiting.
_MIN_THREADS = 8


def label_planes(
    annotation: str | os.PathLike[str],
    plane: Plane,
    coordinates: Sequence[float],
    resolution: float,
    space: ReferenceSpace,
    storage_options: Mapping[str, Any] | None = None,
) -> list[LabelPlane | None]:
    """Read the labels of planes through an annotation.

    Parameters
    ----------
    annotation : str or path-like
        An OME-Zarr, or a label group or level in one (a folder, or a URL with a part that ends in ``.zarr``), of which
        the level nearest to the resolution is read; or an NRRD, NIfTI, MetaImage or TIFF file of the whole space.
    plane : Plane
    coordinates : sequence of float
        Position of each plane along the axis across it, in um.
    resolution : float
        Pixel size of the result, in um. Finer voxels are subsampled.
    space : ReferenceSpace
        Reference space of the coordinates and the result.
    storage_options : mapping, optional
        Options for fsspec, for a URL.

    Returns
    -------
    list of LabelPlane or None
        None for a plane outside the annotation.

    Raises
    ------
    InputError
        If the file is not an annotation, or its unit, orientation or transformation is missing or not supported; if
        it does not lie in the space, or is a file of a part of it.
    NotFoundError, SourceError, TargetError
        If the annotation is missing or cannot be read.
    """
    uri = os.fspath(annotation)
    if is_ome_zarr(uri):
        volume, absent = _level_of(StoredImage.at(Target.of(uri, storage_options)), plane, resolution, space)
        planes = _planes(volume, space, plane, coordinates, resolution)
        if (text := absent.remark()) is not None:
            warnings.warn(
                f"{text} (counted among the chunks that the preview reads)", AtlaszarrWarning, stacklevel=3
            )  # the caller of preview
        return planes
    with ExitStack() as stack:
        spool = stack.enter_context(temporary_folder())
        try:
            opened = stack.enter_context(open_annotation(uri, spool, storage_options=storage_options))
        except InputError as error:
            if error.code not in _ASK_FOR_OPTIONS:
                raise
            raise InputError(
                f"{error}; only `atlaszarr atlas` takes these options: build an atlas and give its annotation.ome.zarr",
                code=error.code,
            ) from None
        if not space.is_covered(opened.array.shape, opened.voxel_size):  # so its origin in the space is not known
            raise InputError(
                f"annotation {opened.uri} has an extent of {um(opened.extent)}, but reference space {space.id} has "
                f"{um(space.extent)}; give an annotation of the whole space, or an OME-Zarr with its origin in it",
                code="wrong-reference-space",
            )
        volume = _Volume(opened.uri, opened.array, opened.voxel_size, (0.0, 0.0, 0.0))
        return _planes(volume, space, plane, coordinates, resolution)


@dataclass(frozen=True)
class _Volume:
    """Labels along (p, i, r)."""

    name: str
    array: da.Array
    size: tuple[float, float, float]
    """Voxel size, in um."""
    corner: tuple[float, float, float]
    """Lower corner of the first voxel, in um."""


def _planes(
    volume: _Volume, space: ReferenceSpace, plane: Plane, coordinates: Sequence[float], resolution: float
) -> list[LabelPlane | None]:
    for axis, begin, n, size, extent in zip(
        "pir", volume.corner, volume.array.shape, volume.size, space.extent, strict=True
    ):
        if begin < -size or begin + n * size > extent + size:
            raise InputError(
                f"annotation {volume.name} extends from {begin:g} to {begin + n * size:g} um along {axis}, but "
                f"reference space {space.id} has {extent:g} um; give an annotation in that space",
                code="wrong-reference-space",
            )
    fixed = plane.fixed
    indices = [math.floor((at - volume.corner[fixed]) / volume.size[fixed]) for at in coordinates]
    inside = sorted({index for index in indices if 0 <= index < volume.array.shape[fixed]})
    if not inside:
        first = volume.corner[fixed]
        last = first + volume.array.shape[fixed] * volume.size[fixed]
        raise InputError(
            f"annotation {volume.name} extends from {first:g} to {last:g} um along {AXES[fixed]}, beyond all "
            "sections; give an annotation in the dataset's reference space",
            code="wrong-reference-space",
        )
    steps = {axis: max(1, round(resolution / volume.size[axis])) for axis in (plane.rows, plane.columns)}
    # Read the chunks of all planes in one pass, and the middle voxel of each step.
    index = tuple(inside if axis == fixed else slice((steps[axis] - 1) // 2, None, steps[axis]) for axis in range(3))
    values = volume.array[index].compute(scheduler="threads", num_workers=max(_MIN_THREADS, usable_cores()))
    slices = dict(zip(inside, np.moveaxis(values, fixed, 0), strict=True))
    axes = (plane.rows, plane.columns)
    top, left = (float(volume.corner[axis]) for axis in axes)
    height, width = (float(volume.size[axis] * steps[axis]) for axis in axes)

    def at(index: int) -> LabelPlane | None:
        if index not in slices:
            return None
        labels = slices[index] if plane.rows < plane.columns else slices[index].T
        return LabelPlane(labels, (top, left), (height, width))

    return [at(index) for index in indices]


def _level_of(
    image: StoredImage, plane: Plane, resolution: float, space: ReferenceSpace
) -> tuple[_Volume, AbsentChunks]:
    """The level with the pixel size in the plane nearest to the resolution, and its absent chunks."""
    name = shown(image.target.url)
    orientation = image.geometries[0].orientation
    if (micron := image.geometries[0].micron) is None:
        raise InputError(
            f"the voxel size of annotation {name} is not known ({image.numbers}); give an annotation with a scale in "
            "millimetres",
            code="missing-voxel-size",
        )
    for axis, wanted in ORIENTATION.items():
        if orientation.get(axis, wanted) == wanted:
            continue
        whole = space.is_covered(image.shape(0), [micron * size for size in image.geometries[0].scale])
        if not (orientation[axis] == BRAINGLOBE_SIDES and whole):
            raise InputError(
                f"axis {axis} of annotation {name} runs {orientation[axis]}; give an annotation that runs {wanted}",
                code="unsupported-orientation",
            )
        warnings.warn(sides_remark(name), AtlaszarrWarning, stacklevel=4)  # the caller of preview

    def distance(level: int) -> float:
        scale = image.geometries[level].scale
        return abs(math.log(micron * math.sqrt(scale[plane.rows] * scale[plane.columns]) / resolution))

    level = min(range(len(image.paths)), key=distance)
    geometry = image.geometries[level]
    (a, b, c), (p, i, r) = geometry.scale, geometry.translation
    size = (a * micron, b * micron, c * micron)
    # The physical origin is the centre of the first voxel of the space's finest grid.
    p, i, r = (at * micron + space.anchor / 2 - length / 2 for at, length in zip((p, i, r), size, strict=True))
    array, absent = image.volume(level)
    if array.dtype.kind not in "iub":
        raise InputError(f"annotation {name} has dtype {array.dtype}; give integer labels", code="not-labels")
    return _Volume(name, array, size, (p, i, r)), absent
