"""Read the metadata of an OME-Zarr image that any program wrote: its axes, levels and transformations.

All readers of the package use `StoredImage`, so only this module decides which images are supported. ngff-zarr reads
this metadata too, but takes a second to import.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, TargetError, brief, reason_of
from ..stores.target import Target
from .absent_chunks import DEEPEST, AbsentChunks
from .array_layout import MOST_AXES
from .ome import Geometry, microns_in
from .ome_development import is_development, steps_of, understood
from .ome_transformations import LONGEST, AxisMap, Step, composed
from .pyramid import MOST_LEVELS
from .target_state import ROOT_KEYS, UNFINISHED
from .zarr_reader import LARGEST_WHOLE, StoredArray, read_document

if TYPE_CHECKING:
    import dask.array as da

#: Bytes of the path of a level, and of a name in it: a key of S3 has 1024 at most, and a name on a disk 255.
_LONGEST_PATH, _LONGEST_NAME = 1024, 255
#: Axes of the versions of OME-Zarr that do not name them.
_UNNAMED = {"0.1": "tczyx", "0.2": "tczyx"}
#: Folders that are listed, entries of each, and images that are named, to find the images below a folder.
_LISTED = 1000
#: The most channels whose labels are read: the most of known multiplexed images are about a hundred.
_MOST_LABELS = 1000
#: Characters of the label of a channel.
_LONGEST_LABEL = 100
_NAMED = 3


@dataclass(frozen=True)
class Axis:
    """An axis of an image.

    Attributes
    ----------
    name : str
    type : str or None
        ``space``, ``channel``, ``displacement``.
    unit : str or None
    orientation : str or None
        The value of RFC-4: ``anterior-to-posterior``.
    """

    name: str
    type: str | None = None
    unit: str | None = None
    orientation: str | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any] | str) -> Axis:
        """Read an entry of the metadata: in OME-Zarr 0.3 a name.

        An older draft of RFC-4 has ``direction`` instead of ``value``.
        """
        if isinstance(document, str):
            document = {"name": document}
        orientation = document.get("orientation")
        if isinstance(orientation, Mapping):
            orientation = orientation.get("value", orientation.get("direction"))
        found = document["name"], document.get("type"), document.get("unit"), orientation or None
        if found[0] is None or not all(text is None or (isinstance(text, str) and len(text) < 100) for text in found):
            raise TypeError(
                f"the axis {brief(document, LONGEST)} does not have a name, type, unit and orientation of text"
            )
        return cls(*found)


@dataclass(frozen=True)
class StoredImage:
    """An OME-Zarr image in a target, one of its levels, or a zarr array without an image.

    Attributes
    ----------
    target : Target
    version : str
        Version of OME-Zarr; empty for an array without an image.
    axes : tuple of Axis
        Axes of the arrays, in order.
    paths : tuple of str
        Path of the array of each level.
    scales, translations : tuple of tuple of float
        For each level, along `axes`: size of a voxel and centre of the first voxel, in the units of the axes.
    own : mapping
        The attributes under the key ``atlaszarr``; empty if another program wrote the image.
    is_scaled : bool
        Whether the metadata give the size of a voxel; otherwise each scale is 1.
    is_reordered : bool
        Whether a transformation changes the order or the direction of the axes: those of the arrays are not those of
        the coordinate system.
    finest : StoredImage or None
        The whole image, if this is one of its levels.
    level_of_finest : int
        The level of `finest` that this is.
    channels : tuple of str
        The labels of the channels in the metadata ``omero``; empty if it has none, or one that is not text.
    ome : mapping
        The OME-Zarr metadata of the group as they are stored, not validated; empty for an array without an image.
    """

    target: Target
    version: str
    axes: tuple[Axis, ...]
    paths: tuple[str, ...]
    scales: tuple[tuple[float, ...], ...]
    translations: tuple[tuple[float, ...], ...]
    own: Mapping[str, Any]
    is_scaled: bool = True
    is_reordered: bool = False
    finest: StoredImage | None = None
    channels: tuple[str, ...] = ()
    level_of_finest: int = 0
    ome: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def at(cls, target: Target) -> StoredImage:
        """Read the metadata of the image in a target.

        The target may also be a level of an image (``x.ome.zarr/0``), which is then an image of this level, or any
        other zarr array: its axes are its dimension names, or z, y, x; it has no size.

        Raises
        ------
        InputError
            If there is no image, its metadata is damaged, or one of its transformations is not supported.
        """
        public = target.public()  # a public bucket may forbid (403) to read the one that does not exist
        attributes = _attributes(target)
        if attributes is None or _multiscales(attributes) is not None or _is_unfinished(attributes):
            return cls.of(public, attributes or {})
        try:
            is_array = any(_is_array(public, name) for name in ("zarr.json", ".zarray"))
        except TargetError as error:
            raise InputError(str(error), code=error.code) from None
        if not is_array:
            raise _not_an_image(public, attributes)
        return cls._level(public) or cls._array(public, attributes)

    @classmethod
    def of(cls, target: Target, attributes: Mapping[str, Any]) -> StoredImage:
        """The image in a target, given the attributes of its group.

        Raises
        ------
        InputError
            For the reasons of `at`.
        """
        own = attributes.get("atlaszarr")
        own = own if isinstance(own, Mapping) else {}
        if (entry := _multiscales(attributes)) is None:
            if _is_unfinished(attributes):
                raise InputError(f"{target.url} is unfinished; build it again to resume", code="target-unfinished")
            raise _not_an_image(target, attributes)
        try:
            ome = attributes.get("ome") or attributes
            version = str(ome.get("version") or entry.get("version") or "0.4")
            if is_development(version):
                entry = understood(target.url, version, ome, entry)
            levels = entry["datasets"]
            axes, chain, names = _axes(target.url, version, ome, entry)
            if not 0 < len(levels) <= MOST_LEVELS or not 0 < len(axes) <= MOST_AXES:
                raise InputError(
                    f"{target.url} has {len(levels)} levels and {len(axes)} axes; an image has up to {MOST_LEVELS} "
                    f"levels and {MOST_AXES} axes",
                    code="damaged-metadata",
                )
            given = [level["path"] for level in levels]
            if wrong := [path for path in given if not _is_path(path)]:
                raise ValueError(f"a level has the path {brief(wrong[0])}")
            paths = tuple(map(str, given))
            if outside := next((path for path in paths if ".." in path.split("/") or "\0" in path), None):
                raise InputError(
                    f"{target.url} has a level at {outside!r}, outside the image; write it inside",
                    code="damaged-metadata",
                )
            maps = [
                composed(
                    target.url,
                    [*(Step(step, names, names) for step in steps_of(level)), *chain],
                    len(axes),
                )
                for level in levels
            ]
            order, scales, translations = _along_arrays(target.url, maps)
            along = tuple(Axis.of(axes[k]) for k in order)
            is_reordered = list(order) != sorted(order)
            if any(size < 0 for sizes in scales for size in sizes):
                is_reordered = True
                along, scales, translations = _reversed(target.url, along, scales, translations)
            is_scaled = all(found.is_scaled for found in maps)
            return cls(
                *(target, version, along, paths, scales, translations, own, is_scaled, is_reordered),
                channels=_labels(ome),
                ome=ome,
            )
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise InputError(
                f"{target.url} has damaged OME-Zarr metadata ({reason_of(error)}); write it again",
                code="damaged-metadata",
            ) from None

    @classmethod
    def _level(cls, target: Target) -> StoredImage | None:
        """The image of a single level; None if no image above the array has it."""
        own_urls = {target.url, os.path.realpath(target.url) if target.is_local else target.url}
        for above in target.above(DEEPEST):
            path = next((url[len(above.url) + 1 :] for url in own_urls if url.startswith(f"{above.url}/")), None)
            if path is None or path.count("/") >= DEEPEST:
                continue
            try:
                attributes = _attributes(above)
            except InputError:  # for example forbidden
                continue
            if attributes is None or (_multiscales(attributes) is None and not _is_unfinished(attributes)):
                continue
            image = cls.of(above, attributes)
            if path in image.paths:
                k = image.paths.index(path)
                scales, translations = (image.scales[k],), (image.translations[k],)
                level = replace(image, target=target, paths=("",), scales=scales, translations=translations, own={})
                return replace(level, finest=image, level_of_finest=k)
        return None

    @classmethod
    def _array(cls, target: Target, attributes: Mapping[str, Any]) -> StoredImage:
        """An array that no image has."""
        layout = StoredArray.at(target).layout
        names = layout.document.get("dimension_names") or attributes.get("_ARRAY_DIMENSIONS")
        names = [str(name) for name in names] if isinstance(names, list | tuple) else []
        if len(names) != len(layout.shape) or not {"z", "y", "x"} <= {*names}:
            names = ["z", "y", "x"]
        if len(names) != len(layout.shape):
            raise InputError(
                f"{target.url} is a zarr array of shape {layout.shape} that belongs to no OME-Zarr image; give an "
                "image, or an array along z, y, x",
                code="not-an-image",
            )
        axes, count = tuple(map(Axis, names)), len(names)
        return cls(target, "", axes, ("",), ((1.0,) * count,), ((0.0,) * count,), {}, is_scaled=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the axes."""
        return tuple(axis.name for axis in self.axes)

    @property
    def is_ordered(self) -> bool:
        """Whether the last axes are z, y, x."""
        return self.names[-3:] == ("z", "y", "x")

    @cached_property
    def spatial(self) -> tuple[int, int, int]:
        """The positions of z, y and x among the axes."""
        names = self.names
        if sorted(axis for axis in names if axis in ("z", "y", "x")) != ["x", "y", "z"]:
            raise InputError(
                f"{self.target.url} has the axes {', '.join(names)}; give a volume with z, y and x", code="missing-axis"
            )
        return names.index("z"), names.index("y"), names.index("x")

    @cached_property
    def geometries(self) -> tuple[Geometry, ...]:
        """Scale and translation of each level along (z, y, x), in one unit; without a scale they have no unit.

        Raises
        ------
        InputError
            If z, y or x is missing, or they have different units that are not all lengths.
        """
        spatial = [self.axes[k] for k in self.spatial]
        units = {axis.unit for axis in spatial}
        unit, microns = spatial[0].unit, (1.0, 1.0, 1.0)
        if len(units) > 1:
            known = [microns_in(axis.unit) for axis in spatial]
            if None in known:
                named = ", ".join(sorted(map(str, units)))
                raise InputError(
                    f"{self.target.url} has axes of different units, {named}; use one unit",
                    code="different-units",
                )
            z, y, x = (float(micron) for micron in known if micron is not None)
            unit, microns = "micrometer", (z, y, x)
        orientation = {axis.name: axis.orientation for axis in spatial if axis.orientation}
        return tuple(
            Geometry(
                self._along(scale, microns), self._along(start, microns), unit if self.is_scaled else None, orientation
            )
            for scale, start in zip(self.scales, self.translations, strict=True)
        )

    def _along(self, numbers: Sequence[float], factors: tuple[float, float, float]) -> tuple[float, float, float]:
        z, y, x = (numbers[k] * factor for k, factor in zip(self.spatial, factors, strict=True))
        return z, y, x

    @property
    def numbers(self) -> str:
        """Sizes, units and position along z, y, x as the metadata give them, for messages."""
        if not self.is_scaled:
            return "no scale"
        sizes, starts = ([numbers[0][k] for k in self.spatial] for numbers in (self.scales, self.translations))
        units = [self.axes[k].unit for k in self.spatial]
        words = dict.fromkeys("no unit" if unit is None else f"unit {unit!r}" for unit in units)
        return f"scale {_listed(sizes)}, translation {_listed(starts)}, {', '.join(words)}"

    def labels(self, level: int) -> StoredArray:
        """The array of a level of an annotation whose last axes are z, y, x.

        Raises
        ------
        InputError
            If the level does not exist or does not hold labels.
        """
        self.validate_level(level)
        return self._labels[level]

    @cached_property
    def _labels(self) -> tuple[StoredArray, ...]:
        arrays = [self.stored(level) for level in range(len(self.paths))]
        for array in arrays:
            self._validate_others(array.shape)
        return tuple(array.labels() for array in arrays)

    def _validate_others(self, shape: Sequence[int]) -> None:
        """Raise an InputError if an axis other than z, y, x is longer than 1."""
        for axis, n in zip(self.names, shape, strict=True):
            if axis not in ("z", "y", "x") and n != 1:
                raise InputError(
                    f"{self.target.url} has {n} entries along {axis}; write one of them as an image of its own, and "
                    "give that",
                    code="wrong-dimensions",
                )

    def validate_level(self, level: int) -> None:
        """Raise an InputError if a level does not exist."""
        if not 0 <= level < len(self.paths):
            raise InputError(
                f"level {level} does not exist; {self.target.url} has levels 0 to {len(self.paths) - 1}",
                code="level-not-found",
            )

    def shape(self, level: int) -> tuple[int, int, int]:
        """Voxels of a level along (z, y, x).

        Raises
        ------
        InputError
            For the reasons of `lazy`, or if z, y or x is missing.
        """
        z, y, x = (self.stored(level).shape[k] for k in self.spatial)
        return z, y, x

    def stored(self, level: int) -> StoredArray:
        """The array of a level, along the axes of the image.

        Raises
        ------
        InputError
            If the array does not exist, its metadata is damaged, or it does not have the axes of the image.
        """
        array = StoredArray.at(self.target, self.paths[level])
        if array.ndim != len(self.axes):
            raise InputError(
                f"{array.target.url} has {array.ndim} axes and the metadata of the image has "
                f"{', '.join(self.names)}; write it again",
                code="wrong-dimensions",
            )
        return array

    def lazy(self, level: int) -> tuple[da.Array, AbsentChunks]:
        """The array of a level as a dask array that pickles, and its absent chunks.

        Raises
        ------
        InputError
            If the array does not exist, its metadata is damaged, or it does not have the axes of the image.
        TargetError
            If the metadata of the array cannot be read.
        """
        import dask.array as da

        array = self.stored(level)
        unit = array.layout.unit
        chunks = unit if math.prod(unit) <= LARGEST_WHOLE else array.chunk
        return da.from_array(array, chunks=chunks, name=False), array.absent

    def volume(self, level: int) -> tuple[da.Array, AbsentChunks]:
        """Same as `lazy`, along (z, y, x) whatever the order of the axes.

        Raises
        ------
        InputError
            For the reasons of `lazy`; if z, y or x is missing, or another axis is longer than 1.
        """
        z, y, x = self.spatial
        array, absent = self.lazy(level)
        self._validate_others(array.shape)
        kept = sorted((z, y, x))
        array = array[tuple(slice(None) if k in kept else 0 for k in range(array.ndim))]
        return array.transpose([kept.index(k) for k in (z, y, x)]), absent


def _is_path(path: Any) -> bool:
    """Whether the path of a level is one that a disk and an object store can have."""
    if not isinstance(path, str | int):
        return False
    try:
        names = str(path).encode().split(b"/")
    except UnicodeEncodeError:  # it holds half of a character
        return False
    return sum(map(len, names)) + len(names) <= _LONGEST_PATH and max(map(len, names)) <= _LONGEST_NAME


def _labels(ome: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of the channels; empty if one of them is not a text of a usual length."""
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, list) or len(channels) > _MOST_LABELS:
        return ()
    labels = [channel.get("label") for channel in channels if isinstance(channel, Mapping)]
    texts = [text for text in labels if isinstance(text, str) and 0 < len(text) < _LONGEST_LABEL]
    return tuple(texts) if len(texts) == len(channels) else ()


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{n:g}" for n in numbers)


def _attributes(target: Target) -> dict[str, Any] | None:
    """The attributes of the group or array in a target; None if there is neither."""
    try:
        public = target.public()
        for key, inner in ROOT_KEYS.items():
            if (document := read_document(public, key)) is not None:
                attributes = document.get(inner, {}) if inner else document
                if isinstance(attributes, dict):
                    return attributes
                raise InputError(
                    f"{target.url}/{key} is not the metadata of an image; write it again", code="damaged-metadata"
                )
        if any(public.read(key) is not None for key in (".zgroup", ".zarray")):
            return {}
        target.read(key)  # raises an error if it is forbidden
    except TargetError as error:
        raise InputError(str(error), code=error.code) from None
    return None


def _is_array(target: Target, name: str) -> bool:
    document = read_document(target, name)
    return document is not None and (name == ".zarray" or document.get("node_type") == "array")


def _multiscales(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The metadata of the image of a group; None if it is not an image."""
    try:
        entry = (attributes.get("ome") or attributes)["multiscales"][0]
    except (KeyError, IndexError, TypeError):
        return None
    return entry if isinstance(entry, Mapping) else None


def _is_unfinished(attributes: Mapping[str, Any]) -> bool:
    own = attributes.get("atlaszarr")
    return isinstance(own, Mapping) and own.get("state") == UNFINISHED


def _not_an_image(target: Target, attributes: Mapping[str, Any]) -> InputError:
    """The error for a group without an image: what it is, and which images are below it."""
    if target.is_local and Path(target.url).is_file():
        return InputError(
            f"{target.url} is a file, not an OME-Zarr image, which is a folder; convert it, or unpack a zip",
            code="not-an-image",
        )
    kind, below = _contents(target, attributes)
    images = list(islice(below if below else _images_below(target), _LISTED))
    if not images and not kind:
        return InputError(f"{target.url} is not an OME-Zarr image; give the path or URL of one", code="not-an-image")
    named = ", ".join(f"{target.url}/{path}" for path in images[:_NAMED]) or f"an image below {target.url}"
    more = f" (and {len(images) - _NAMED} more)" if len(images) > _NAMED else ""
    return InputError(
        f"{target.url} is {kind or 'a folder of images'}, not an OME-Zarr image; give one that it holds: {named}{more}",
        code="not-an-image",
    )


def _contents(target: Target, attributes: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What a group holds, and the paths of its images as far as its metadata name them."""
    ome = attributes.get("ome") or attributes
    try:
        if "plate" in ome:
            return "a plate of wells", [f"{well['path']}/0" for well in ome["plate"]["wells"]]
        if "well" in ome:
            return "a well of a plate", [str(image["path"]) for image in ome["well"]["images"]]
        if isinstance(ome.get("labels"), list):
            return "a group of labels", [str(name) for name in ome["labels"]]
        if "bioformats2raw.layout" in ome:
            series = _attributes(replace(target, url=f"{target.url}/OME"))
            named = ((series or {}).get("ome") or series or {}).get("series") or ["0"]
            return "a collection of images (bioformats2raw)", [str(name) for name in named]
    except (InputError, KeyError, TypeError, AttributeError):
        pass
    return ("a zarr group without an image" if attributes else ""), []


def _images_below(target: Target) -> Iterator[str]:
    """Paths of the images below a folder on a local disk, nearest first; few folders are listed."""
    pending = deque([""] if target.is_local else [])
    for _ in range(_LISTED):
        if not pending:
            return
        path = pending.popleft()
        try:
            with os.scandir(Path(target.url, path)) as entries:
                inner = sorted(e.name for e in islice(entries, _LISTED) if e.is_dir(follow_symlinks=False))
        except OSError:
            continue
        for name in inner:
            below = f"{path}/{name}".lstrip("/")
            folder = replace(target, url=f"{target.url}/{below}")
            try:
                attributes = _attributes(folder)
                if attributes is not None and _multiscales(attributes) is not None:
                    yield below
                elif attributes is None or not any(_is_array(folder, key) for key in ("zarr.json", ".zarray")):
                    pending.append(below)
            except (InputError, TargetError):
                continue


def _axes(
    url: str, version: str, ome: Mapping[str, Any], entry: Mapping[str, Any]
) -> tuple[Sequence[Mapping[str, Any] | str], list[Step], list[str]]:
    """The axes of an image, the transformations that follow those of each level, and the names of the axes of a level.

    In 0.6 they are the chain that starts at the coordinate system of the levels, and the axes are those of the last
    coordinate system. Transformations from other coordinate systems are ignored.
    """
    shared = steps_of(entry)
    first = steps_of(entry["datasets"][0])
    described = entry.get("coordinateSystems") or ome.get("coordinateSystems") or ()
    systems = {system["name"]: system["axes"] for system in described}
    axes = entry.get("axes") or _UNNAMED.get(version)
    if not axes and not systems:
        raise LookupError("it has neither axes nor coordinateSystems")
    if axes and not (first and _system(first[-1].get("output")) in systems):
        names = _names(axes)
        return axes, [Step(step, names, names) for step in shared], names
    system, chain = _system(first[-1].get("output")) if first else None, []
    levels = system
    while following := [step for step in shared if _system(step.get("input")) in (system, None)]:
        if len(following) > 1:
            raise InputError(
                f"{url} has {len(following)} transformations from the coordinate system {system!r}; write it with one",
                code="ambiguous-transformation",
            )
        shared.remove(following[0])
        output = _system(following[0].get("output"))
        chain.append((following[0], system, output))
        system = output
    if system in systems:
        axes = systems[system]
    else:
        # No output is named: take the coordinate system with as many axes as the transformations have numbers.
        counts = {len(step[kind]) for step in _flat(first) for kind in ("scale", "translation") if kind in step}
        axes = next((axes for axes in systems.values() if len(axes) in counts), next(iter(systems.values())))
    steps = [Step(step, *(_names(systems.get(name, axes)) for name in ends)) for step, *ends in chain]
    return axes, steps, _names(systems.get(levels, axes))


def _names(axes: Sequence[Mapping[str, Any] | str]) -> list[str]:
    return [Axis.of(axis).name for axis in axes]


def _system(reference: Any) -> str | None:
    """The name of the coordinate system of an input or output; None if it is the array."""
    return reference.get("name") if isinstance(reference, Mapping) else reference


def _flat(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Transformations in order, with the members of each sequence."""
    return [inner for step in steps for inner in (step["transformations"] if step["type"] == "sequence" else [step])]


def _reversed(
    url: str,
    axes: Sequence[Axis],
    scales: Sequence[tuple[float, ...]],
    translations: Sequence[tuple[float, ...]],
) -> tuple[tuple[Axis, ...], tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Axes along which coordinates grow: those with a negative scale run the other way, by their orientation."""
    signs, found = [], []
    for k, axis in enumerate(axes):
        is_reversed = {sizes[k] < 0 for sizes in scales}
        if len(is_reversed) > 1:
            raise InputError(
                f"{url} has levels that run in different directions along {axis.name}; write it with one",
                code="wrong-axes",
            )
        first, to, last = (axis.orientation or "").partition("-to-")
        if True in is_reversed and not to:
            raise InputError(
                f"{url} has a transformation that reverses the axis {axis.name}, which has no orientation; write the "
                "image along its axes, or with an orientation",
                code="unsupported-transformation",
            )
        signs.append(-1.0 if True in is_reversed else 1.0)
        found.append(replace(axis, orientation=f"{last}-to-{first}") if True in is_reversed else axis)
    turned = [
        tuple(tuple(sign * number + 0.0 for sign, number in zip(signs, numbers, strict=True)) for numbers in each)
        for each in (scales, translations)
    ]
    return tuple(found), turned[0], turned[1]


def _along_arrays(
    url: str, maps: Sequence[AxisMap]
) -> tuple[list[int], tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """The output axis of each axis of the arrays, and the scale and translation of each level along them."""
    if len({found.axes for found in maps}) > 1:
        raise InputError(f"{url} has levels of different axis orders; write it with one", code="wrong-axes")
    order = [maps[0].axes.index(k) for k in range(len(maps[0].axes))]
    scales = tuple(tuple(found.scale[k] for k in order) for found in maps)
    translations = tuple(tuple(found.translation[k] for k in order) for found in maps)
    return order, scales, translations
