"""Planes of an annotation at slice coordinates, read in one pass from a file or an OME-Zarr."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..assets.locate import Located, locate
from ..engine.absent_chunks import AbsentChunks
from ..engine.ome_reader import StoredImage
from ..engine.schedulers import usable_cores
from ..errors import AtlaszarrWarning, InputError
from ..geometry.plane import Plane
from ..geometry.spaces import AXES, BRAINGLOBE_SIDES, ORIENTATION, ReferenceSpace, direction
from ..geometry.voxel_size import um
from ..reference_volumes import open_annotation
from ..reference_volumes.ome_zarr import is_ome_zarr
from ..reference_volumes.orientation import ORIGIN, Orientation, sides_remark
from ..stores.locations import shown
from ..stores.target import Target
from ..stores.temporary import temporary_folder
from .annotation_borders import LabelPlane

if TYPE_CHECKING:
    import dask.array as da

#: Codes of the errors of `open_annotation` that ask for an orientation or a voxel size.
_ASK_FOR_OPTIONS = frozenset({"contradictory-header", "implausible-size", "missing-orientation", "missing-voxel-size"})
#: The orientations of RFC-4 along the axes of a reference space.
_WORDS = {
    f"{one}-to-{other}"
    for pair in (("anterior", "posterior"), ("superior", "inferior"), ("left", "right"))
    for one, other in (pair, pair[::-1])
}
#: Minimum number of reading threads: more than cores, since remote stores keep them waiting.
_MIN_THREADS = 8


def label_planes(
    annotation: str | os.PathLike[str] | Located,
    plane: Plane,
    coordinates: Sequence[float],
    resolution: float,
    space: ReferenceSpace,
    storage_options: Mapping[str, Any] | None = None,
) -> list[LabelPlane | None]:
    """Read the labels of planes through an annotation.

    Parameters
    ----------
    annotation : str, path-like or Located
        An OME-Zarr, or a label group or level in one (a folder, or a URL with a part that ends in ``.zarr``), of which
        the level nearest to the resolution is read, in any orientation if it fills the space; or an NRRD, NIfTI,
        MetaImage or TIFF file of the whole space; or an asset that `atlaszarr.assets.locate.locate` takes.
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
    located = locate(annotation, storage_options)
    for remark in located.remarks:
        warnings.warn(remark, AtlaszarrWarning, stacklevel=3)  # the caller of preview
    uri = located.annotation
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
    """The level with the pixel size in the plane nearest to the resolution, along (p, i, r), and its absent chunks."""
    name = shown(image.target.url)
    if (micron := image.geometries[0].micron) is None:
        raise InputError(
            f"the voxel size of annotation {name} is not known ({image.numbers}); give an annotation with a scale in "
            "millimetres",
            code="missing-voxel-size",
        )
    axes, is_whole = _orientation_of(image, micron, space)
    if axes is None:
        axes = Orientation.of(ORIGIN)
        warnings.warn(sides_remark(name), AtlaszarrWarning, stacklevel=4)  # the caller of preview

    def distance(level: int) -> float:
        scale = axes.order(image.geometries[level].scale)
        return abs(math.log(micron * math.sqrt(scale[plane.rows] * scale[plane.columns]) / resolution))

    level = min(range(len(image.paths)), key=distance)
    a, b, c = axes.order(image.geometries[level].scale)
    size = (a * micron, b * micron, c * micron)
    # The physical origin is the centre of the first voxel of the space's finest grid.
    at = image.geometries[level].translation
    corner = [start * micron + space.anchor / 2 - length / 2 for start, length in zip(at, size, strict=True)]
    if axes != Orientation.of(ORIGIN) or (is_whole and any(abs(a) > b for a, b in zip(corner, size, strict=True))):
        (starts, ends), (firsts, lasts) = (_corners(image, axes, k) for k in (level, 0))
        sides = zip(axes.flipped, starts, firsts, ends, lasts, strict=True)
        corner = [float(micron) * (last - end if flip else start - first) for flip, start, first, end, last in sides]
    array, absent = image.volume(level)
    if array.dtype.kind not in "iub":
        raise InputError(f"annotation {name} has dtype {array.dtype}; give integer labels", code="not-labels")
    return _Volume(name, axes.apply(array), size, (corner[0], corner[1], corner[2])), absent


def _orientation_of(image: StoredImage, micron: Fraction, space: ReferenceSpace) -> tuple[Orientation | None, bool]:
    """How the axes of an annotation become (p, i, r), and whether it fills the space.

    None if they are those, with the sides of x named as BrainGlobe does. An annotation that fills the space lies in it
    also if its own origin is in another frame, as in any other orientation.
    """
    given, shape, scale = image.geometries[0].orientation, image.shape(0), image.geometries[0].scale
    words = {axis: direction(given.get(axis, wanted)) for axis, wanted in ORIENTATION.items()}
    if words == ORIENTATION:
        return Orientation.of(ORIGIN), space.is_covered(shape, [micron * size for size in scale])
    if {*words.values()} <= _WORDS and len({min(word.split("-to-")) for word in words.values()}) == len(words):
        axes = Orientation.of("".join(words[axis][0] for axis in "zyx"))
        if space.is_covered(axes.order(shape), [micron * size for size in axes.order(scale)]):
            return None if words == ORIENTATION | {"x": BRAINGLOBE_SIDES} else axes, True
    axis, wanted = next((axis, wanted) for axis, wanted in ORIENTATION.items() if words[axis] != wanted)
    raise InputError(
        f"axis {axis} of annotation {shown(image.target.url)} runs {given[axis]}; give an annotation that runs "
        f"{wanted}, or one of the whole reference space {space.id}",
        code="unsupported-orientation",
    )


def _corners(image: StoredImage, axes: Orientation, level: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The lower and the upper end of a level along the axes that become (p, i, r), in the unit of the image."""
    geometry = image.geometries[level]
    found = [axes.order(values) for values in (geometry.translation, geometry.scale, image.shape(level))]
    spans = [(start - size / 2, start + (n - 0.5) * size) for start, size, n in zip(*found, strict=True)]
    return tuple(low for low, _ in spans), tuple(high for _, high in spans)
