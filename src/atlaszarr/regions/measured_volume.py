"""Open what is measured: a registered volume with its section label and its expression view, a grid, or any image."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..boxes import Shape
from ..engine.absent_chunks import AbsentChunks
from ..engine.inputs import absent_of, opened
from ..engine.ome import Geometry
from ..engine.ome_reader import StoredImage
from ..engine.zarr_reader import StoredArray
from ..errors import AtlaszarrWarning, InputError
from ..geometry.spaces import AXES, ORIENTATION
from ..stores.locations import shown
from ..stores.target import Target
from .placed_arrays import PlacedArray

#: The most channels that are measured: a block of 2**24 voxels of so many channels of 4 bytes has 1 GB.
MOST_CHANNELS = 16
#: The channels of a volume that `atlaszarr.build` writes in colour.
COLOURS = ("red", "green", "blue")
#: The quantities of the expression grids of the Allen Institute.
QUANTITIES = ("density", "intensity", "energy")
#: The axes of a reference space, whose coordinates `open_volume` and `open_grid` give in um, and those of the Dataset.
_REFERENCE = tuple(zip(AXES, "zyx", strict=True))
#: Options that must be the same in the builds of a volume and of its expression view.
_SAME = ("dataset", "resolution", "fill", "max_gap", "mirror", "records_sha256")
_IMAGE, _SECTION, _EXPRESSION, _EXPRESSION_SECTION = "image", "section", "expression", "expression_section"


@dataclass(frozen=True)
class MeasuredVolume:
    """A volume that is measured, at all its levels.

    Attributes
    ----------
    name : str
        The path or URL, for messages.
    dataset : int or str
        The id of its section dataset; without one its name.
    channels : tuple of str
        Names of the channels whose values are averaged; none for an expression view.
    geometries : tuple of Geometry
    shapes : tuple of tuple of int
        Voxels of each level along (z, y, x).
    levels : tuple of mapping of str to PlacedArray
        For each level: ``image`` (except for an expression view), ``section`` if the volume has one, and
        ``expression`` and ``expression_section`` if there is an expression view.
    is_grid : bool
        Whether it is an expression grid of the Allen Institute: a value is that of the point at the voxel's centre.
    absent : tuple of (str, AbsentChunks)
        The absent chunks of the arrays of all levels, with their names.
    """

    name: str
    dataset: int | str
    channels: tuple[str, ...]
    geometries: tuple[Geometry, ...]
    shapes: tuple[Shape, ...]
    levels: tuple[Mapping[str, PlacedArray], ...]
    is_grid: bool = False
    is_local: bool = True
    absent: tuple[AbsentChunks, ...] = field(default=(), repr=False)

    @property
    def has_expression(self) -> bool:
        """Whether there is an expression view."""
        return _EXPRESSION in self.levels[0]

    def level(self, level: int, name: str) -> MeasuredVolume:
        """One of its levels, under another name."""
        return replace(
            self,
            name=name,
            dataset=name if self.dataset == self.name else self.dataset,
            geometries=(self.geometries[level],),
            shapes=(self.shapes[level],),
            levels=(self.levels[level],),
        )

    @classmethod
    def of(cls, volume: Any, storage_options: Mapping[str, Any] | None = None) -> MeasuredVolume:
        """Open a volume; see `atlaszarr.region_statistics`.

        Raises
        ------
        InputError
            If it is not a volume along z, y and x of numbers, or has more than `MOST_CHANNELS` channels.
        """
        if hasattr(volume, "data_vars"):
            return _of_dataset(volume)
        if isinstance(images := getattr(volume, "images", None), Sequence) and images:  # a Multiscales
            levels = [_of_array(image) for image in images]
            return replace(
                levels[0],
                geometries=tuple(level.geometries[0] for level in levels),
                shapes=tuple(level.shapes[0] for level in levels),
                levels=tuple(level.levels[0] for level in levels),
                absent=tuple(chunks for level in levels for chunks in level.absent),
            )
        if hasattr(volume, "shape") or hasattr(volume, "dims"):
            return _of_array(volume)
        return _of_target(Target.of(volume, storage_options))


def _of_target(target: Target) -> MeasuredVolume:
    image = StoredImage.at(target)
    if (whole := image.finest) is not None:  # a level, whose section label and expression view are those of the image
        return _of_image(whole.target, whole).level(image.level_of_finest, shown(target.url))
    return _of_image(target, image)


def _of_image(target: Target, image: StoredImage) -> MeasuredVolume:
    request = request_of(image)
    name, public = shown(target.url), image.target
    view = str(request.get("view", "primary"))
    levels: list[dict[str, PlacedArray]] = []
    for level in range(len(image.paths)):
        levels.append({_IMAGE: _placed(image, level)})
    channels = _channels(name, image, levels[0][_IMAGE])
    _add(levels, _SECTION, _section_label(image))
    is_expression = view == "expression"
    expression = image if is_expression else None
    if view == "primary" and request.get("mode") != "grid":
        expression = expression_view(target, request)
    if expression is not None:
        _add(levels, _EXPRESSION, expression)
        _add(levels, _EXPRESSION_SECTION, _section_label(expression))
    if is_expression:
        channels = ()
        levels = [{key: array for key, array in arrays.items() if key != _IMAGE} for arrays in levels]
    dataset = request.get("dataset")
    stored = [array.array for arrays in levels for array in arrays.values()]
    return MeasuredVolume(
        name,
        dataset if isinstance(dataset, int) else name,
        channels,
        image.geometries,
        tuple(image.shape(level) for level in range(len(levels))),
        tuple(levels),
        is_grid=request.get("mode") == "grid",
        is_local=public.is_local,
        absent=tuple(array.absent for array in stored if isinstance(array, StoredArray)),
    )


def _placed(image: StoredImage, level: int) -> PlacedArray:
    names, array = image.names, image.stored(level)
    z, y, x = image.spatial
    lead = names.index("c") if "c" in names else None
    if others := [axis for k, axis in enumerate(names) if k not in (z, y, x, lead) and array.shape[k] != 1]:
        raise InputError(
            f"{shown(image.target.url)} has several entries along {others[0]}; write one of them as an image of its "
            "own, and give that",
            code="wrong-dimensions",
        )
    return PlacedArray(array, lead, (z, y, x))


def _add(levels: Sequence[dict[str, PlacedArray]], key: str, image: StoredImage | None) -> None:
    """Add the arrays of an image over the same voxels; a level that it lacks has none."""
    if image is None:
        return
    for level, arrays in enumerate(levels):
        placed = _placed(image, level) if level < len(image.paths) else None
        if placed is None or placed.shape != arrays[_IMAGE].shape:
            raise InputError(
                f"level {level} of {shown(image.target.url)} does not have the {arrays[_IMAGE].shape} voxels of its "
                "image; build the image again",
                code="shape-mismatch",
            )
        arrays[key] = placed


def _section_label(image: StoredImage) -> StoredImage | None:
    """The label ``section`` of an image; None if it has none.

    Raises
    ------
    InputError
        If it is missing from a volume of `atlaszarr.build`.
    """
    label = replace(image.target, url=f"{image.target.url}/labels/section")
    if (found := _existing(label)) is None and request_of(image).get("mode") == "volume":
        raise InputError(f"{shown(label.url)} is missing; build the volume again to repair it", code="missing-label")
    return found


def request_of(image: StoredImage) -> Mapping[str, Any]:
    """The options that an image of atlaszarr was built with; empty for any other image."""
    request = image.own.get("request")
    return request if isinstance(request, Mapping) else {}


def _existing(target: Target) -> StoredImage | None:
    """The image in a target; None if there is none."""
    try:
        return StoredImage.at(target)
    except InputError as error:
        if error.code != "not-an-image":
            raise
        return None


def expression_view(target: Target, request: Mapping[str, Any]) -> StoredImage | None:
    """The expression view next to a volume; None if there is none, or if it is of another dataset or grid."""
    found, first = _existing(target.of_view("expression")), target.first_view("primary")
    if found is None and first is not None:  # built as --view expression --view primary
        found = _existing(first)
        if found is None or request_of(found).get("view") != "expression":
            return None
    if found is None:
        return None
    other = request_of(found)
    if any(other.get(key) != request.get(key) for key in _SAME):
        warnings.warn(
            f"{shown(found.target.url)} was built from another dataset or with other options than "
            f"{shown(target.url)}; it is not used",
            AtlaszarrWarning,
            stacklevel=5,
        )
        return None
    return found


def _channels(name: str, image: StoredImage, placed: PlacedArray) -> tuple[str, ...]:
    """Names of the channels: those of the metadata if they differ, else ``channel_0`` and so on."""
    count = _validated(name, placed)
    if placed.lead is None:
        return ("grey",)
    given = image.channels
    if len(given) == count and len(set(given)) == count:
        return given
    return tuple(f"channel_{k}" for k in range(count))


def _validated(name: str, placed: PlacedArray) -> int:
    """The number of channels of an image that can be measured."""
    dtype = np.dtype(placed.array.dtype)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(f"{name} holds {dtype}; give integers or floating point", code="unsupported-dtype")
    if not 0 < placed.channels <= MOST_CHANNELS:
        raise InputError(
            f"{name} has {placed.channels} channels, and up to {MOST_CHANNELS} are measured; write fewer of them",
            code="out-of-range",
        )
    return placed.channels


def _of_array(volume: Any) -> MeasuredVolume:
    array, axes, geometry = opened(volume)
    if axes[-3:] != ("z", "y", "x"):
        raise InputError(f"the volume has axes {', '.join(axes)}; give z, y, x, after c if any", code="wrong-axes")
    lead = 0 if axes[0] == "c" else None
    z, y, x = range(len(axes) - 3, len(axes))
    placed = PlacedArray(array, lead, (z, y, x))
    count = _validated("the volume", placed)
    coordinates = getattr(volume, "coords", {})
    if all(f"{name}_um" in coordinates and coordinates[f"{name}_um"].dims == (axis,) for name, axis in _REFERENCE):
        geometry = replace(geometry, orientation=ORIENTATION)
    named = ["grey"] if lead is None else list(map(str, coordinates["c"].to_numpy())) if "c" in coordinates else []
    channels = tuple(named) if len(set(named)) == count else tuple(f"channel_{k}" for k in range(count))
    absent = absent_of(array)
    return MeasuredVolume(
        "the volume",
        "volume",
        channels,
        (geometry,),
        (placed.shape,),
        ({_IMAGE: placed},),
        absent=() if absent is None else (absent,),
    )


def _of_dataset(dataset: Any) -> MeasuredVolume:
    """A Dataset of `atlaszarr.open_volume` or `atlaszarr.open_grid`."""
    own = dataset.attrs.get("section_dataset", "volume")
    if _IMAGE in dataset.data_vars:
        measured = _of_array(dataset[_IMAGE])
        if _SECTION in dataset.data_vars:
            array, axes, _ = opened(dataset[_SECTION])
            if axes != ("z", "y", "x") or array.dtype.kind not in "iub":
                raise InputError(
                    f"the section of the Dataset holds {array.dtype} along {', '.join(axes)}; give integers along z, y "
                    "and x",
                    code="wrong-axes",
                )
            arrays = {**measured.levels[0], _SECTION: PlacedArray(array, None, (0, 1, 2))}
            measured = replace(measured, levels=(arrays,))
        return replace(measured, dataset=own)
    found = [name for name in dataset.data_vars if name in QUANTITIES]
    if not found:
        raise InputError(
            f"the Dataset has the variables {', '.join(map(str, dataset.data_vars)) or 'none'}; give that of "
            "open_volume or open_grid",
            code="wrong-type",
        )
    stacked = dataset[found].to_dataarray("c").transpose("c", "z", "y", "x")
    return replace(_of_array(stacked), dataset=own, is_grid=True)


def voxels_um(geometry: Geometry, name: str) -> tuple[float, float, float]:
    """The voxel size along (z, y, x) in um.

    Raises
    ------
    InputError
        If the unit is not known.
    """
    if (micron := geometry.micron) is None:
        raise InputError(
            f"the voxel size of {name} is not known (scale {geometry.scale}, unit {geometry.unit!r}); write it with a "
            "scale and a unit of length",
            code="missing-voxel-size",
        )
    z, y, x = (size * float(micron) for size in geometry.scale)
    return z, y, x


def largest_unit(arrays: Sequence[PlacedArray], most: int) -> Shape:
    """The least common multiple of the units of arrays along (z, y, x), of at most `most` voxels."""
    lengths = [math.lcm(*units) for units in zip(*(array.unit for array in arrays), strict=True)]
    while math.prod(lengths) > most:  # halve the longest: chunks are then read several times
        longest = lengths.index(max(lengths))
        lengths[longest] = -(-lengths[longest] // 2)
    z, y, x = lengths
    return z, y, x
