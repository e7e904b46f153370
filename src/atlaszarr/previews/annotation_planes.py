"""Planes of an annotation or a template at slice coordinates, from a file or an OME-Zarr."""

from __future__ import annotations

import math
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assets.locate import Located, locate
from ..engine.absent_chunks import AbsentChunks
from ..engine.finished_image import Finished
from ..engine.ome_reader import StoredImage
from ..engine.schedulers import usable_cores
from ..errors import AtlaszarrWarning, InputError, SchedulerError
from ..geometry.grid import Grid
from ..geometry.plane import Plane
from ..geometry.spaces import AXES, BRAINGLOBE_SIDES, ORIENTATION, ReferenceSpace, direction
from ..geometry.voxel_size import um
from ..reference_volumes import ReferenceVolume, open_annotation, open_template
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
#: The kinds of volumes with their article.
_AN = {"annotation": "an annotation", "template": "a template"}
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
    annotation, plane, resolution, space, storage_options
        Same as in `open_planes`.
    coordinates : sequence of float
        Position of each plane along the axis across it, in um.

    Returns
    -------
    list of LabelPlane or None
        None for a plane outside the annotation.

    Raises
    ------
    InputError
        For the reasons of `open_planes`, or if all planes are outside the annotation.
    NotFoundError, SourceError, TargetError
        If the annotation is missing or cannot be read.
    """
    with open_planes(annotation, plane, resolution, space, storage_options) as opened:
        opened.require_inside(coordinates)
        planes = opened.read(coordinates, max(_MIN_THREADS, usable_cores()))
        for remark in opened.all_remarks:
            warnings.warn(remark, AtlaszarrWarning, stacklevel=3)  # the caller of preview
        return planes


@contextmanager
def open_planes(
    volume: str | os.PathLike[str] | Located,
    plane: Plane,
    resolution: float,
    space: ReferenceSpace,
    storage_options: Mapping[str, Any] | None = None,
    *,
    is_annotation: bool = True,
) -> Iterator[VolumePlanes]:
    """Open an annotation, or a template, to read planes of section of it.

    Parameters
    ----------
    volume : str, path-like or Located
        An OME-Zarr, or a label group or level in one (a folder, or a URL with a part that ends in ``.zarr``), of which
        the level nearest to the resolution is read, in any orientation if it fills the space; or an NRRD, NIfTI,
        MetaImage or TIFF file of the whole space; or an asset that `atlaszarr.assets.locate.locate` takes.
    plane : Plane
    resolution : float
        Pixel size of the result, in um. Finer voxels are subsampled.
    space : ReferenceSpace
        Reference space of the coordinates and the result.
    storage_options : mapping, optional
        Options for fsspec, for a URL.
    is_annotation : bool
        Whether the values are labels; otherwise those of a template.

    Yields
    ------
    VolumePlanes
        Valid until the context ends.

    Raises
    ------
    InputError
        If the file is not such a volume, or its unit, orientation or transformation is missing or not supported; if
        it does not lie in the space, or is a file of a part of it.
    NotFoundError, SourceError, TargetError
        If the volume is missing or cannot be read.
    """
    kind, located = ("annotation", locate(volume, storage_options)) if is_annotation else ("template", volume)
    located = located if isinstance(located, Located) else Located(os.fspath(located))
    uri = located.annotation
    if is_ome_zarr(uri):
        image = StoredImage.at(Target.of(uri, storage_options))
        opened = _level_of(image, plane, resolution, space, kind)
        opened.require_space()
        yield replace(opened, remarks=(*located.remarks, *opened.remarks))
        return
    open_volume = open_annotation if is_annotation else open_template
    with ExitStack() as stack:
        spool = stack.enter_context(temporary_folder())
        try:
            found = stack.enter_context(open_volume(uri, spool, storage_options=storage_options))
        except InputError as error:
            if error.code not in _ASK_FOR_OPTIONS:
                raise
            raise InputError(
                f"{error}; only `atlaszarr atlas` takes these options: build an atlas and give its {kind}.ome.zarr",
                code=error.code,
            ) from None
        if not space.is_covered(found.array.shape, found.voxel_size):  # so its origin in the space is not known
            raise InputError(
                f"{kind} {found.uri} has an extent of {um(found.extent)}, but reference space {space.id} has "
                f"{um(space.extent)}; give {_AN[kind]} of the whole space, or an OME-Zarr with its origin in it",
                code="wrong-reference-space",
            )
        corner = (0.0, 0.0, 0.0)
        yield VolumePlanes(
            kind,
            found.uri,
            found.array,
            found.voxel_size,
            corner,
            plane,
            resolution,
            space,
            located.remarks,
            source=found,
            local=spool,
        )


@dataclass(frozen=True)
class VolumePlanes:
    """Planes of section of a reference volume. Picklable for processes that reach its file, or the spooled voxels.

    Attributes
    ----------
    kind : str
        ``annotation`` or ``template``.
    name : str
        Path or URL, without parameters and passwords.
    array : dask array
        Along (p, i, r).
    size : tuple of float
        Voxel size along the same axes, in um.
    corner : tuple of float
        Lower corner of the first voxel, in um.
    plane : Plane
    resolution : float
        Pixel size of the planes that are read, in um, or the nearest multiple of the voxel size.
    space : ReferenceSpace
    remarks : tuple of str
        Warnings for the user.
    absent : AbsentChunks or None
        The chunks that an OME-Zarr lacks.
    source : StoredImage or ReferenceVolume or None
        The OME-Zarr, or the volume of any other file; None on a worker.
    local : Path or None
        The folder that a process must see to read the volume; None for a URL.
    """

    kind: str
    name: str
    array: da.Array
    size: tuple[float, float, float]
    corner: tuple[float, float, float]
    plane: Plane
    resolution: float
    space: ReferenceSpace
    remarks: tuple[str, ...] = ()
    absent: AbsentChunks | None = None
    source: StoredImage | ReferenceVolume | None = field(default=None, repr=False)
    local: Path | None = None

    @property
    def all_remarks(self) -> tuple[str, ...]:
        """`remarks`, and one on absent chunks among those that were read so far."""
        text = None if self.absent is None else self.absent.remark()
        return (*self.remarks, *([] if text is None else [f"{text} (counted among the chunks that were read)"]))

    def identity(self) -> dict[str, Any]:
        """What identifies the voxels wherever they lie, in JSON's types.

        The digest of the ledger of an image of atlaszarr, or of the file; of another OME-Zarr that of all voxels of the
        level, which are read.
        """
        if isinstance(self.source, ReferenceVolume):
            return self.source.identity()
        if self.source is not None:
            with suppress(InputError):
                return {"ledger": Finished.at(self.source.target).digest}
        return ReferenceVolume(self.array, self.size, self.name, Orientation.of(ORIGIN)).identity()

    def for_workers(self) -> VolumePlanes:
        """The same planes, small to send."""
        return replace(self, source=None)

    def require_reachable(self) -> None:
        """Raise a SchedulerError if this process does not see the volume: its chunks would count as absent."""
        if self.local is not None and not self.local.exists():
            raise SchedulerError(
                f"a worker on {socket.gethostname()} does not see {self.kind} {self.name}; give an OME-Zarr that all "
                "workers reach",
                code="annotation-unreachable",
            )

    def require_space(self) -> None:
        """Raise an InputError if the volume extends beyond the reference space."""
        for axis, begin, n, size, extent in zip(
            AXES, self.corner, self.array.shape, self.size, self.space.extent, strict=True
        ):
            if begin < -size or begin + n * size > extent + size:
                raise InputError(
                    f"{self.kind} {self.name} extends from {begin:g} to {begin + n * size:g} um along {axis}, but "
                    f"reference space {self.space.id} has {extent:g} um; give {_AN[self.kind]} in that space",
                    code="wrong-reference-space",
                )

    def require_inside(self, coordinates: Sequence[float]) -> None:
        """Raise an InputError if all planes at slice coordinates, in um, are outside the volume."""
        fixed = self.plane.fixed
        if not any(0 <= index < self.array.shape[fixed] for index in self._indices(coordinates)):
            first = self.corner[fixed]
            last = first + self.array.shape[fixed] * self.size[fixed]
            raise InputError(
                f"{self.kind} {self.name} extends from {first:g} to {last:g} um along {AXES[fixed]}, beyond all "
                f"sections; give {_AN[self.kind]} in the dataset's reference space",
                code="wrong-reference-space",
            )

    def read(self, coordinates: Sequence[float], threads: int = 1) -> list[LabelPlane | None]:
        """Read the planes at slice coordinates, in um, each chunk once; None for one outside the volume."""
        plane, fixed, size = self.plane, self.plane.fixed, self.size
        indices = self._indices(coordinates)
        inside = sorted({index for index in indices if 0 <= index < self.array.shape[fixed]})
        if not inside:
            return [None] * len(indices)
        steps = {axis: max(1, round(self.resolution / size[axis])) for axis in (plane.rows, plane.columns)}
        # The middle voxel of each step.
        index = tuple(
            inside if axis == fixed else slice((steps[axis] - 1) // 2, None, steps[axis]) for axis in range(3)
        )
        part = self.array[index]
        if threads > 1:
            values = part.compute(scheduler="threads", num_workers=threads)
        else:
            values = part.compute(scheduler="synchronous")
        slices = dict(zip(inside, np.moveaxis(values, fixed, 0), strict=True))
        axes = (plane.rows, plane.columns)
        top, left = (float(self.corner[axis]) for axis in axes)
        height, width = (float(size[axis] * steps[axis]) for axis in axes)

        def at(index: int) -> LabelPlane | None:
            if index not in slices:
                return None
            labels = slices[index] if plane.rows < plane.columns else slices[index].T
            return LabelPlane(labels, (top, left), (height, width))

        return [at(index) for index in indices]

    def on_grid(self, coordinates: Sequence[float], grid: Grid) -> list[NDArray[Any]]:
        """The planes at slice coordinates over the pixels of a grid, 0 outside the volume.

        A pixel has the value of the voxel that holds its centre.

        Returns
        -------
        list of ndarray, shape (rows, columns)
        """
        centres = [grid.centres(axis) for axis in (self.plane.rows, self.plane.columns)]
        found = []
        for plane in self.read(coordinates):
            values = np.zeros(self.plane.shape(grid), self.array.dtype)
            if plane is not None:
                places = [
                    np.floor((at - corner) / size).astype(np.int64)
                    for at, corner, size in zip(centres, plane.corner, plane.size, strict=True)
                ]
                held = [(at >= 0) & (at < n) for at, n in zip(places, plane.labels.shape, strict=True)]
                rows, columns = (at[inside] for at, inside in zip(places, held, strict=True))
                values[np.ix_(*held)] = plane.labels[np.ix_(rows, columns)]
            found.append(values)
        return found

    def _indices(self, coordinates: Sequence[float]) -> list[int]:
        """The index of the voxel that contains each slice coordinate, also outside the volume."""
        fixed = self.plane.fixed
        return [math.floor((at - self.corner[fixed]) / self.size[fixed]) for at in coordinates]


def _level_of(image: StoredImage, plane: Plane, resolution: float, space: ReferenceSpace, kind: str) -> VolumePlanes:
    """The planes of the level with the pixel size in the plane nearest to the resolution."""
    name = shown(image.target.url)
    if (micron := image.geometries[0].micron) is None:
        raise InputError(
            f"the voxel size of {kind} {name} is not known ({image.numbers}); give {_AN[kind]} with a scale in "
            "millimetres",
            code="missing-voxel-size",
        )
    axes, is_whole = _orientation_of(image, micron, space, kind)
    remarks: tuple[str, ...] = ()
    if axes is None:
        axes, remarks = Orientation.of(ORIGIN), (sides_remark(name),)

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
    if kind == "annotation" and array.dtype.kind not in "iub":
        raise InputError(f"annotation {name} has dtype {array.dtype}; give integer labels", code="not-labels")
    first = (corner[0], corner[1], corner[2])
    return VolumePlanes(
        kind,
        name,
        axes.apply(array),
        size,
        first,
        plane,
        resolution,
        space,
        remarks,
        absent,
        source=image,
        local=Path(image.target.url) if image.target.is_local else None,
    )


def _orientation_of(
    image: StoredImage, micron: Fraction, space: ReferenceSpace, kind: str
) -> tuple[Orientation | None, bool]:
    """How the axes of a volume become (p, i, r), and whether it fills the space.

    None if they are those, with the sides of x named as BrainGlobe does. A volume that fills the space lies in it
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
        f"axis {axis} of {kind} {shown(image.target.url)} runs {given[axis]}; give {_AN[kind]} that runs "
        f"{wanted}, or one of the whole reference space {space.id}",
        code="unsupported-orientation",
    )


def _corners(image: StoredImage, axes: Orientation, level: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The lower and the upper end of a level along the axes that become (p, i, r), in the unit of the image."""
    geometry = image.geometries[level]
    found = [axes.order(values) for values in (geometry.translation, geometry.scale, image.shape(level))]
    spans = [(start - size / 2, start + (n - 0.5) * size) for start, size, n in zip(*found, strict=True)]
    return tuple(low for low, _ in spans), tuple(high for _, high in spans)
