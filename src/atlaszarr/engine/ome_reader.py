"""What an OME-Zarr says of itself: its axes, where its levels lie, and the arrays they are. Reads metadata alone.

0.4, 0.5 and 0.6 are read alike, by whomever they were written. ngff-zarr reads them too, but takes a second to import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import InputError, TargetError
from ..stores.target import Target
from .ome import Geometry
from .zarr_reader import StoredArray

_METADATA = (("zarr.json", "attributes"), (".zattrs", ""))


@dataclass(frozen=True)
class StoredImage:
    """An OME-Zarr image of three spatial dimensions.

    Attributes
    ----------
    target : Target
    paths : tuple of str
        Of the levels' arrays.
    geometries : tuple of Geometry
        Where the voxels of each level lie.
    own : mapping
        What atlaszarr says of it, in its attributes; empty if another wrote it.
    """

    target: Target
    paths: tuple[str, ...]
    geometries: tuple[Geometry, ...]
    own: Mapping[str, Any]

    @classmethod
    def at(cls, target: Target) -> StoredImage:
        """The image at a place.

        Raises
        ------
        InputError
            If there is none, or one that lies in a way that cannot be measured.
        """
        attributes, target = attributes_of(target), target.public()
        own = attributes.get("atlaszarr") or {}
        try:
            stated = (attributes.get("ome") or attributes)["multiscales"][0]
        except (KeyError, IndexError, TypeError):
            if isinstance(own, dict) and own.get("state") == "unfinished":
                raise InputError(f"{target.url} is unfinished; build again to go on with it") from None
            raise InputError(f"{target.url} is no OME-Zarr image; give the place of one") from None
        try:
            axes = stated.get("axes") or stated["coordinateSystems"][-1]["axes"]
            names = [str(axis["name"]) for axis in axes]
            if names[-3:] != ["z", "y", "x"]:
                raise InputError(f"{target.url} has the axes {', '.join(names)}; they must end in z, y, x")
            places = [
                _geometry(
                    target, axes, [*one["coordinateTransformations"], *stated.get("coordinateTransformations", ())]
                )
                for one in stated["datasets"]
            ]
            return cls(target, tuple(str(one["path"]) for one in stated["datasets"]), tuple(places), own)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{target.url} has OME-Zarr metadata that cannot be read ({error!r}); mend it") from None

    def array(self, level: int) -> StoredArray:
        """The array of a level."""
        if not 0 <= level < len(self.paths):
            raise InputError(f"level {level} is not there; {self.target.url} has levels 0 to {len(self.paths) - 1}")
        return self._arrays[level]

    @cached_property
    def _arrays(self) -> tuple[StoredArray, ...]:
        return tuple(StoredArray.at(self.target, path).labels() for path in self.paths)


def attributes_of(target: Target) -> dict[str, Any]:
    """The attributes of the group at a place.

    Raises
    ------
    InputError
        If there is none.
    """
    try:
        public = target.public()  # its bucket forbids to read zarr.json where the metadata is .zattrs
        for key, inner in _METADATA:
            try:
                if (body := public.read(key)) is not None:
                    document = json.loads(body)
                    return dict(document[inner] if inner else document)
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{target.url}/{key} cannot be read as the metadata of an image; mend it") from None
        target.read(key)  # says so if it is forbidden
    except TargetError as error:
        raise InputError(str(error)) from None
    raise InputError(f"{target.url} is no OME-Zarr image; give the place of one")


def _geometry(target: Target, axes: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> Geometry:
    """Where the voxels of a level lie."""
    scale, translation = placed(target, steps, len(axes))
    units = {axis.get("unit") for axis in axes[-3:]}
    if len(units) > 1:
        raise InputError(f"{target.url} has axes of different units, {', '.join(sorted(map(str, units)))}")
    orientation = {axis["name"]: _orientation(axis["orientation"]) for axis in axes[-3:] if axis.get("orientation")}
    (sz, sy, sx), (tz, ty, tx) = scale[-3:], translation[-3:]
    return Geometry((sz, sy, sx), (tz, ty, tx), units.pop(), orientation)


def placed(target: Target, steps: Sequence[Mapping[str, Any]], count: int) -> tuple[list[float], list[float]]:
    """Scale and translation along so many axes, by the transformations of a level in their order.

    Raises
    ------
    InputError
        If there are others among them.
    """
    scale, translation = [1.0] * count, [0.0] * count
    for step in _flat(steps):
        kind = step.get("type")
        if kind == "scale":
            scale = [a * float(b) for a, b in zip(scale, step["scale"], strict=True)]
            translation = [a * float(b) for a, b in zip(translation, step["scale"], strict=True)]
        elif kind == "translation":
            translation = [a + float(b) for a, b in zip(translation, step["translation"], strict=True)]
        elif kind != "identity":
            raise InputError(
                f"{target.url} has a transformation of type {kind!r}; scale and translation are understood"
            )
    return scale, translation


def _flat(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Transformations one after the other: a sequence holds several."""
    found: list[Mapping[str, Any]] = []
    for step in steps:
        found += _flat(step["transformations"]) if step.get("type") == "sequence" else [step]
    return found


def _orientation(stated: Any) -> str:
    """RFC-4 has it under ``value``, an older draft under ``direction``."""
    return str(stated if isinstance(stated, str) else stated.get("value", stated.get("direction")))
