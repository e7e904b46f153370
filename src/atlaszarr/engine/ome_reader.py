"""Read the metadata of an OME-Zarr 0.4, 0.5 or 0.6 image that any program wrote: its axes, levels and transformations.

All readers of the package use `StoredImage`, so only this module decides which transformations are supported.
ngff-zarr reads this metadata too, but takes a second to import.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InputError, TargetError
from ..stores.documents import LARGEST, parse_object
from ..stores.target import Target
from .absent_chunks import AbsentChunks
from .ome import Geometry
from .target_state import ROOT_KEYS, UNFINISHED
from .zarr_reader import LARGEST_WHOLE, StoredArray

if TYPE_CHECKING:
    import dask.array as da


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
    def of(cls, document: Mapping[str, Any]) -> Axis:
        """Read an entry of the metadata; an older draft of RFC-4 has ``direction`` instead of ``value``."""
        orientation = document.get("orientation")
        if isinstance(orientation, Mapping):
            orientation = orientation.get("value", orientation.get("direction"))
        unit = document.get("unit")
        return cls(
            str(document["name"]),
            document.get("type"),
            None if unit is None else str(unit),
            str(orientation) if orientation else None,
        )


@dataclass(frozen=True)
class StoredImage:
    """An OME-Zarr image in a target.

    Attributes
    ----------
    target : Target
    version : str
        Version of OME-Zarr.
    axes : tuple of Axis
        Axes of the arrays, in order.
    paths : tuple of str
        Path of the array of each level.
    scales, translations : tuple of tuple of float
        For each level, along `axes`: size of a voxel and centre of the first voxel, in the units of the axes.
    own : mapping
        The attributes under the key ``atlaszarr``; empty if another program wrote the image.
    """

    target: Target
    version: str
    axes: tuple[Axis, ...]
    paths: tuple[str, ...]
    scales: tuple[tuple[float, ...], ...]
    translations: tuple[tuple[float, ...], ...]
    own: Mapping[str, Any]

    @classmethod
    def at(cls, target: Target) -> StoredImage:
        """Read the metadata of the image in a target.

        Raises
        ------
        InputError
            If there is no image, its metadata is damaged, or one of its transformations is not supported.
        """
        return cls.of(target.public(), _attributes(target))

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
        try:
            ome = attributes.get("ome") or attributes
            entry = ome["multiscales"][0]
        except (KeyError, IndexError, TypeError):
            if own.get("state") == UNFINISHED:
                raise InputError(
                    f"{target.url} is unfinished; build it again to resume", code="target-unfinished"
                ) from None
            raise _not_an_image(target) from None
        try:
            version = str(ome.get("version") or entry.get("version") or "0.4")
            paths = tuple(str(level["path"]) for level in entry["datasets"])
            axes, shared = _axes(target.url, entry)
            transformations = (
                _follow(target.url, [*level["coordinateTransformations"], *shared], len(axes))
                for level in entry["datasets"]
            )
            scales, translations = zip(*transformations, strict=True)
            return cls(target, version, tuple(map(Axis.of, axes)), paths, scales, translations, own)
        except InputError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{target.url} has damaged OME-Zarr metadata ({error!r}); write it again", code="damaged-metadata"
            ) from None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the axes."""
        return tuple(axis.name for axis in self.axes)

    @cached_property
    def geometries(self) -> tuple[Geometry, ...]:
        """Scale and translation of each level along (z, y, x), in one unit.

        Raises
        ------
        InputError
            If the last axes are not z, y, x, or have different units.
        """
        url, spatial = self.target.url, self.axes[-3:]
        if self.names[-3:] != ("z", "y", "x"):
            raise InputError(f"{url} has the axes {', '.join(self.names)}; they must end in z, y, x", code="wrong-axes")
        if len(units := {axis.unit for axis in spatial}) > 1:
            raise InputError(
                f"{url} has axes of different units, {', '.join(sorted(map(str, units)))}; use one unit",
                code="different-units",
            )
        orientation = {axis.name: axis.orientation for axis in spatial if axis.orientation}
        return tuple(
            Geometry((s[-3], s[-2], s[-1]), (t[-3], t[-2], t[-1]), spatial[0].unit, orientation)
            for s, t in zip(self.scales, self.translations, strict=True)
        )

    def labels(self, level: int) -> StoredArray:
        """The array of a level of an annotation.

        Raises
        ------
        InputError
            If the level does not exist or does not hold labels.
        """
        if not 0 <= level < len(self.paths):
            raise InputError(
                f"level {level} does not exist; {self.target.url} has levels 0 to {len(self.paths) - 1}",
                code="level-not-found",
            )
        return self._labels[level]

    @cached_property
    def _labels(self) -> tuple[StoredArray, ...]:
        return tuple(StoredArray.at(self.target, path).labels() for path in self.paths)

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

        array = StoredArray.at(self.target, self.paths[level])
        if array.ndim != len(self.axes):
            raise InputError(
                f"{array.target.url} has {array.ndim} axes and the metadata of the image has "
                f"{', '.join(self.names)}; write it again",
                code="wrong-dimensions",
            )
        unit = array.layout.unit
        chunks = unit if math.prod(unit) <= LARGEST_WHOLE else array.chunk
        return da.from_array(array, chunks=chunks, name=False), array.absent


def _attributes(target: Target) -> dict[str, Any]:
    """The attributes of the group in a target."""
    try:
        public = target.public()  # a public bucket may forbid (403) to read the one that does not exist
        for key, inner in ROOT_KEYS.items():
            try:
                if (body := public.read(key, LARGEST)) is not None:
                    document = parse_object(body)
                    return dict(document[inner] if inner else document)
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{target.url}/{key} is not the metadata of an image; write it again", code="damaged-metadata"
                ) from None
        target.read(key)  # raises an error if it is forbidden
    except TargetError as error:
        raise InputError(str(error), code=error.code) from None
    raise _not_an_image(target)


def _not_an_image(target: Target) -> InputError:
    return InputError(f"{target.url} is not an OME-Zarr image; give the path or URL of one", code="not-an-image")


def _axes(url: str, entry: Mapping[str, Any]) -> tuple[Sequence[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The axes of an image, and the transformations that follow those of each level.

    In 0.6 they are the chain that starts at the coordinate system of the levels, and the axes are those of the last
    coordinate system. Transformations from other coordinate systems are ignored.
    """
    shared = list(entry.get("coordinateTransformations") or ())
    if "axes" in entry:
        return entry["axes"], shared
    first = entry["datasets"][0]["coordinateTransformations"]
    systems = {system["name"]: system["axes"] for system in entry["coordinateSystems"]}
    system, chain = _system(first[-1].get("output")) if first else None, []
    while following := [step for step in shared if _system(step.get("input")) in (system, None)]:
        if len(following) > 1:
            raise InputError(
                f"{url} has {len(following)} transformations from the coordinate system {system!r}; write it with one",
                code="ambiguous-transformation",
            )
        shared.remove(following[0])
        chain += following
        system = _system(following[0].get("output"))
    if system in systems:
        return systems[system], chain
    # No output is named: take the coordinate system with as many axes as the transformations have numbers.
    counts = {len(step[kind]) for step in _flat(first) for kind in ("scale", "translation") if kind in step}
    return next((axes for axes in systems.values() if len(axes) in counts), next(iter(systems.values()))), chain


def _system(reference: Any) -> str | None:
    """The name of the coordinate system of an input or output; None if it is the array."""
    return reference.get("name") if isinstance(reference, Mapping) else reference


def _flat(steps: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Transformations in order, with the members of each sequence."""
    return [inner for step in steps for inner in (step["transformations"] if step["type"] == "sequence" else [step])]


def _follow(url: str, steps: Iterable[Mapping[str, Any]], count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The composed scale and translation of the transformations of a level, along `count` axes.

    Raises
    ------
    InputError
        If a transformation is not supported, or none is a scale or the identity.
    """
    scale, translation, is_scaled = [1.0] * count, [0.0] * count, False
    for step in _flat(steps):
        kind = step["type"]
        if kind not in ("identity", "scale", "translation"):
            within = " within a sequence" if kind == "sequence" else ""
            raise InputError(
                f"{url} has a transformation of type {kind!r}{within}, which is not supported; write it with a scale "
                "and a translation",
                code="unsupported-transformation",
            )
        is_scaled |= kind != "translation"
        if kind == "identity":
            continue
        given = step.get(kind)
        numbers = [float(n) for n in given if not isinstance(n, str)] if isinstance(given, Sequence) else []
        if len(numbers) == count and kind == "scale":
            scale = [a * b for a, b in zip(scale, numbers, strict=True)]
            translation = [a * b for a, b in zip(translation, numbers, strict=True)]
        elif len(numbers) == count:
            translation = [a + b for a, b in zip(translation, numbers, strict=True)]
        if len(numbers) != count or not all(map(math.isfinite, (*scale, *translation))) or min(scale) <= 0:
            what = "positive numbers" if kind == "scale" else "numbers"
            raise InputError(
                f"{url} has the {kind} {given!r}; it must be {count} {what}, one for each axis",
                code="invalid-transformation",
            )
    if not is_scaled:
        raise InputError(f"{url} has a level without a scale; write it with one", code="missing-scale")
    return tuple(scale), tuple(translation)
