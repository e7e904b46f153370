"""Development versions of OME-Zarr, such as 0.6.dev3: their metadata are read only if every key of them is understood.

A published version may have keys that no geometry depends on. What a key of a development version means is not settled,
so an unknown one may move or turn the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InputError, brief

#: Published versions, and their corrections such as 0.5.2.
_PUBLISHED = re.compile(r"0\.[1-6](\.[0-9]+)?")
_TRANSFORMATIONS = "coordinateTransformations"
#: Descriptions in words, which every document may have.
_WORDS = {"version", "name", "type", "metadata", "@type", "@id", "_creator"}
#: The keys that are understood, or without meaning for the geometry: next to ``multiscales``, in an image, in a level,
#: in a coordinate system, in an axis, in its orientation.
_OME = {*_WORDS, "multiscales", "coordinateSystems", _TRANSFORMATIONS, "omero", "labels", "image-label"}
_IMAGE = {*_WORDS, "axes", "datasets", "coordinateSystems", _TRANSFORMATIONS, "omero", "labels"}
_LEVEL = {"path", "name", "metadata", _TRANSFORMATIONS}
_SYSTEM = {"name", "axes"}
_AXIS = {"name", "longName", "type", "unit", "discrete", "orientation"}
_ORIENTATION = {"type", "value", "direction"}
#: The keys of every transformation; another has the name of its type, and holds the numbers.
_STEP = {"type", "name", "input", "output", "transformations"}
#: The keys of a member of ``byDimension``.
_MEMBER = {"transformation", "inputAxes", "outputAxes", "input_axes", "output_axes"}
#: The keys of a reference to a coordinate system.
_REFERENCE = {"name", "path"}


def is_development(version: str) -> bool:
    """Whether a version of OME-Zarr is none of the published ones."""
    return _PUBLISHED.fullmatch(version) is None


def understood(url: str, version: str, ome: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of an image of a development version in the form of the published one, if all is understood.

    Coordinate systems and transformations that are next to ``multiscales`` are moved into the image.

    Parameters
    ----------
    url : str
        Of the image, for messages.
    version : str
    ome, entry : mapping
        The metadata of the group, and the image in them.

    Raises
    ------
    InputError
        If a key is not understood, or a transformation leads to no coordinate system.
    """
    for where, key in _unknown(ome, entry):
        raise _not_understood(url, version, f"the key {brief(key)} in {where}")
    image = dict(entry)
    systems = [*(entry.get("coordinateSystems") or ()), *(ome.get("coordinateSystems") or ())]
    if not systems:
        if ome.get(_TRANSFORMATIONS):
            raise _not_understood(url, version, f"{_TRANSFORMATIONS} next to multiscales without coordinateSystems")
        return image
    image["coordinateSystems"] = systems
    image[_TRANSFORMATIONS] = [*steps_of(entry), *steps_of(ome)]
    levels = [step for level in entry["datasets"] for step in _of_level(url, version, level)]
    names = {system["name"] for system in systems}
    for step in (*levels, *image[_TRANSFORMATIONS]):
        if _name(step.get("output")) not in names:
            raise _not_understood(
                url, version, f"the output {brief(step.get('output'))}, which is no coordinate system"
            )
    for step in image[_TRANSFORMATIONS]:
        if _name(step.get("input")) not in names:
            raise _not_understood(url, version, f"the input {brief(step.get('input'))}, which is no coordinate system")
    own = {_name(step["output"]) for step in levels}
    if len(own) != 1 or any(step.get("input") in names for step in levels if isinstance(step.get("input"), str)):
        raise _not_understood(url, version, "levels that do not lead from their arrays to one coordinate system")
    described = next(system["axes"] for system in systems if system["name"] in own)
    if image.pop("axes", described) != described:
        raise _not_understood(url, version, "axes that differ from those of the coordinate system of its levels")
    return image


def steps_of(document: Mapping[str, Any]) -> list[Any]:
    """The transformations of a document in order; 0.6.dev3 has one without a list."""
    given = document.get(_TRANSFORMATIONS) or ()
    return [given] if isinstance(given, Mapping) else list(given)


def _of_level(url: str, version: str, level: Mapping[str, Any]) -> list[Any]:
    """The transformation of a level: one, which may be a sequence."""
    steps = steps_of(level)
    if len(steps) != 1:
        raise _not_understood(url, version, f"{len(steps)} transformations of the level {brief(level['path'])}")
    return steps


def _name(reference: Any) -> str | None:
    """The name of a coordinate system of the image itself; None for any other reference."""
    if isinstance(reference, Mapping):
        reference = None if reference.get("path") else reference.get("name")
    return reference if isinstance(reference, str) else None


def _unknown(ome: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys that are not understood, and where they are."""
    yield from _others("ome", ome, _OME)
    yield from _others("multiscales", entry, _IMAGE)
    for document, where in ((entry, "multiscales"), (ome, "ome")):
        yield from _of_axes(f"axes of {where}", document.get("axes") or ())
        for system in document.get("coordinateSystems") or ():
            yield from _others("a coordinate system", system, _SYSTEM)
            yield from _of_axes("a coordinate system", system["axes"])
        for step in steps_of(document):
            yield from _of_step(step)
    for level in entry["datasets"]:
        yield from _others("a level", level, _LEVEL)
        for step in steps_of(level):
            yield from _of_step(step)


def _of_axes(where: str, axes: Any) -> Iterator[tuple[str, str]]:
    for axis in axes:
        if isinstance(axis, Mapping):
            yield from _others(f"an axis of {where}", axis, _AXIS)
            if isinstance(orientation := axis.get("orientation"), Mapping):
                yield from _others("an orientation", orientation, _ORIENTATION)


def _of_step(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = str(step.get("type"))
    yield from _others(f"a transformation of type {brief(kind)}", step, {*_STEP, *_MEMBER, kind})
    for end in ("input", "output"):
        if isinstance(reference := step.get(end), Mapping):
            yield from _others(f"the {end} of a transformation", reference, _REFERENCE)
    for member in step.get("transformations") or ():
        inner = member.get("transformation", member)
        if inner is not member:
            yield from _others("a member of a transformation", member, _MEMBER)
        yield from _of_step(inner)


def _others(where: str, document: Mapping[str, Any], known: set[str]) -> Iterator[tuple[str, str]]:
    for key in document:
        if key not in known:
            yield where, key


def _not_understood(url: str, version: str, what: str) -> InputError:
    return InputError(
        f"{url} is OME-Zarr {brief(version)}, not a published version, and has {what}: this is not understood; "
        "write it as OME-Zarr 0.5",
        code="unsupported-version",
    )
