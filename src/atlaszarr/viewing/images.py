"""An image as neuroglancer reads it: OME-Zarr metadata that it understands, over the arrays as they are stored.

Whatever the version of an image, its metadata are served as 0.5 over zarr v3 and as 0.4 over zarr v2, with its lengths
in micrometres: neuroglancer does not read 0.6, nor transformations other than a scale and a translation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..engine import ome
from ..engine.absent_chunks import AbsentChunks
from ..engine.ome import Geometry, exact
from ..engine.ome_reader import StoredImage
from ..engine.zarr_reader import StoredArray
from ..errors import InputError
from ..stores.documents import json_bytes
from ..stores.target import Target

#: Dtypes that neuroglancer draws.
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")
#: The most voxels of the level whose values give the contrast, if the metadata give none: 128 MB of float64.
_MOST_VOXELS = 2**24
#: The part of the values above 0 that have the full brightness, so that a few bright voxels do not darken the rest.
_BRIGHTEST = 0.002
#: Values of a contrast are smaller: those of float32.
_LARGEST = 3e38
#: Part of a voxel: lengths in files are rounded.
_ROUNDED = 1e-6
#: The document of an array, by the version of OME-Zarr.
_ARRAY = {"0.4": ".zarray", "0.5": "zarr.json"}


@dataclass(frozen=True)
class Channel:
    """How a channel is drawn.

    Attributes
    ----------
    label : str
    colour : str
        ``RRGGBB``.
    start, end : float
        The values that are black, and of full brightness.
    is_active : bool
        Whether it is drawn at first.
    """

    label: str
    colour: str
    start: float
    end: float
    is_active: bool


@dataclass(frozen=True)
class ViewedImage:
    """An OME-Zarr image with the axes z, y, x, and perhaps channels.

    Attributes
    ----------
    image : StoredImage
    """

    image: StoredImage

    @classmethod
    def at(cls, target: Target) -> ViewedImage:
        """The image in a target.

        Raises
        ------
        InputError
            For the reasons of `StoredImage.at`, or if neuroglancer does not draw its values or its axes.
        """
        return cls.of(StoredImage.at(target))

    @classmethod
    def of(cls, image: StoredImage) -> ViewedImage:
        """The image whose metadata are read; same errors as in `at`."""
        found = cls(image)
        array, name = found.arrays[0], image.target.url
        if str(array.dtype) not in _DTYPES:
            raise InputError(
                f"{name} holds {array.dtype}, which neuroglancer does not draw; write it as one of "
                f"{', '.join(_DTYPES)}",
                code="unsupported-dtype",
            )
        spatial = image.spatial
        for k, (axis, n) in enumerate(zip(image.names, array.shape, strict=True)):
            if k not in spatial and k != found.channel_axis and n != 1:
                raise InputError(
                    f"{name} has {n} entries along {axis}; write one of them as an image of its own, and give that",
                    code="wrong-dimensions",
                )
        return found

    @cached_property
    def arrays(self) -> tuple[StoredArray, ...]:
        """The array of each level; their metadata are read once."""
        return tuple(self.image.stored(level) for level in range(len(self.image.paths)))

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Voxels of each level along (z, y, x)."""
        z, y, x = self.image.spatial
        return tuple((array.shape[z], array.shape[y], array.shape[x]) for array in self.arrays)

    @cached_property
    def channel_axis(self) -> int | None:
        """The position of the axis of the channels; None without one."""
        axes = enumerate(self.image.axes)
        return next((k for k, axis in axes if axis.type == "channel" or axis.name == "c"), None)

    @property
    def channel_count(self) -> int:
        """The number of channels; 1 without an axis of channels."""
        return 1 if self.channel_axis is None else int(self.arrays[0].shape[self.channel_axis])

    @property
    def has_whole_pixels(self) -> bool:
        """Whether each chunk holds exactly all channels, which a shader needs to read them together."""
        return self.channel_axis is None or self.arrays[0].chunk[self.channel_axis] == self.channel_count

    @property
    def is_annotation(self) -> bool:
        """Whether its values are labels: by its metadata, or else integers of at least 32 bits without channels."""
        if "image-label" in self.image.ome:
            return True
        kind = self.arrays[0].dtype
        return self.channel_axis is None and kind.kind in "iu" and kind.itemsize >= 4

    @property
    def has_plain_labels(self) -> bool:
        """Whether a shader can compare its labels with 0: those of 64 bits are two numbers in it."""
        return self.channel_axis is None and bool(self.arrays[0].dtype.itemsize < 8)

    @cached_property
    def geometry(self) -> Geometry:
        """Scale and translation of level 0 along (z, y, x) in um; without a known unit, in that of the image."""
        return self._geometries[0]

    @cached_property
    def _geometries(self) -> tuple[Geometry, ...]:
        return tuple(map(_in_microns, self.image.geometries))

    @property
    def unit(self) -> str:
        """The unit of `geometry` in the words of neuroglancer: ``um``, or none."""
        return "um" if self.geometry.unit else ""

    @property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The corners of level 0 along (z, y, x), in the unit of `geometry`."""
        scale, centre = np.array(self.geometry.scale), np.array(self.geometry.translation)
        low = centre - scale / 2
        return low, low + scale * np.array(self.shapes[0])

    def documents(self) -> dict[str, bytes]:
        """The metadata of the group, whose levels are the folders 0, 1, and so on."""
        image = self.image
        levels = range(len(image.paths))
        formats = {int(array.layout.document["zarr_format"]) for array in self.arrays}
        if len(formats) > 1:
            raise InputError(f"{image.target.url} mixes zarr v2 and v3; write it as one", code="damaged-metadata")
        version = "0.4" if formats == {2} else "0.5"
        spatial, axes, datasets = image.spatial, [], []
        for k, axis in enumerate(image.axes):
            kind = "space" if k in spatial else "channel" if k == self.channel_axis else axis.type
            unit = {"unit": "micrometer"} if k in spatial and self.geometry.unit else {}
            axes.append({"name": axis.name, **({"type": kind} if kind else {}), **unit})
        for level in levels:
            at = self._geometries[level]
            numbers = [
                {spatial[k]: lengths[k] for k in range(3)}.get(n, missing)
                for lengths, missing in ((at.scale, 1.0), (at.translation, 0.0))
                for n in range(len(axes))
            ]
            steps = [
                {"type": "scale", "scale": numbers[: len(axes)]},
                {"type": "translation", "translation": numbers[len(axes) :]},
            ]
            datasets.append({"path": str(level), "coordinateTransformations": steps})
        entry = {"version": "0.4"} if version == "0.4" else {}
        content = {"multiscales": [{**entry, "axes": axes, "datasets": datasets}]}
        arrays = {f"{level}/{_ARRAY[version]}": self._clipped(level) for level in levels}
        return ome.group(version, ome.attributes(version, content, {})) | arrays

    def _clipped(self, level: int) -> bytes:
        """The metadata of the array of a level, as long as the box of level 0.

        neuroglancer draws coarser levels under finer ones, and a rounded length would show outside of the box.
        """
        array, at = self.arrays[level], self._geometries[level]
        shape = list(array.shape)
        for k, axis in enumerate(self.image.spatial):
            room = (self.box[1][k] - at.translation[k]) / at.scale[k] + 0.5
            shape[axis] = max(min(shape[axis], math.floor(room + _ROUNDED)), 1)
        return json_bytes({**array.layout.document, "shape": shape})

    def folders(self) -> dict[str, Target]:
        """The folders of the levels."""
        return {str(level): array.target for level, array in enumerate(self.arrays)}

    def absent(self) -> dict[str, AbsentChunks]:
        """The absent chunks of the levels, by the names of their folders."""
        return {str(level): array.absent for level, array in enumerate(self.arrays)}

    def channels(self) -> tuple[Channel, ...]:
        """How the channels are drawn: by ``omero``, or else in red, green and blue, or grey."""
        count = self.channel_count
        omero = self.image.ome.get("omero")
        given = omero.get("channels") if isinstance(omero, dict) else None
        given = given if isinstance(given, list) and len(given) == count else [None] * count
        colours = ("FF0000", "00FF00", "0000FF") if count == 3 else ("FFFFFF",) * count
        found, limits = [], None
        for k, (entry, colour) in enumerate(zip(given, colours, strict=True)):
            channel: dict[str, Any] = entry if isinstance(entry, dict) else {}
            if (window := _window(channel)) is None:
                limits = self._limits() if limits is None else limits
                window = limits[k]
            label = self.image.channels[k] if self.image.channels else f"channel {k}"
            own = channel.get("color")
            found.append(
                Channel(label, own if _is_colour(own) else colour, *window, channel.get("active") is not False)
            )
        return tuple(found)

    def _limits(self) -> list[tuple[float, float]]:
        """The contrast of each channel by its values at the coarsest level; that of the dtype if this is too large."""
        array = self.arrays[-1]
        kind, count = array.dtype, self.channel_count
        whole = (float(np.iinfo(kind).min), float(np.iinfo(kind).max)) if kind.kind in "iu" else (0.0, 1.0)
        if kind == np.uint8 or math.prod(array.shape) > _MOST_VOXELS:
            return [whole] * count
        values = array[...]
        parts = [values] if self.channel_axis is None else list(np.moveaxis(values, self.channel_axis, 0))
        found = []
        for part in parts:
            above = part[np.isfinite(part) & (part > 0)]
            found.append((0.0, float(np.quantile(above, 1 - _BRIGHTEST))) if above.size else whole)
        return found


def _in_microns(geometry: Geometry) -> Geometry:
    if (micron := geometry.micron) is None:
        return replace(geometry, unit=None)
    return replace(
        geometry,
        scale=_times(geometry.scale, micron),
        translation=_times(geometry.translation, micron),
        unit="micrometer",
    )


def _times(lengths: Sequence[float], factor: Fraction) -> tuple[float, float, float]:
    z, y, x = (float(exact(length) * factor) for length in lengths)
    return z, y, x


def _window(channel: dict[str, Any]) -> tuple[float, float] | None:
    """The values that ``omero`` draws in black and in full brightness; None if it gives none that differ."""
    window = channel.get("window")
    if not isinstance(window, dict):
        return None
    start: Any = window.get("start")
    end: Any = window.get("end")
    if type(start) not in (int, float) or type(end) not in (int, float):
        return None
    return (float(start), float(end)) if -_LARGEST < start < end < _LARGEST else None


def _is_colour(text: Any) -> TypeGuard[str]:
    return isinstance(text, str) and len(text) == 6 and all(digit in "0123456789abcdefABCDEF" for digit in text)
