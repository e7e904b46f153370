"""Writing the volumes of an atlas: the annotation with its label index, and the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from ..engine.inputs import opened
from ..engine.label_counts import LabelCounts
from ..engine.label_index import KEY as INDEX
from ..engine.label_index import LabelIndex, count_unit
from ..engine.writer import Assembly
from ..errors import InputError
from ..stores.target import Target
from ..terminology.terminology import Terminology
from .images import AtlasImage, assembly_of, computing_from
from .levels import Levels


def annotation_image(
    levels: Levels, target: Target, terminology: Terminology, labels: Sequence[int], ome_zarr: str
) -> AtlasImage:
    """An annotation as uint32 labels, named and coloured as its structures are, with its label index.

    Parameters
    ----------
    levels : Levels
    target : Target
    terminology : Terminology
    labels : sequence of int
        Those that occur, without 0.
    ome_zarr : str
    """
    described = {"image-label": _described(terminology, labels)}
    assembly = _assembly(levels, target, "annotation", "mode", ome_zarr, described)
    counts: dict[str, LabelCounts] = {}

    def index(ledger: str) -> list[str]:
        target.write(INDEX, LabelIndex.of(assembly.multiscale, counts, ledger).to_bytes())
        return [INDEX]

    return AtlasImage(assembly, partial(computing_from, _arrays(levels), count_unit), counts.update, index)


def template_image(levels: Levels, target: Target, ome_zarr: str) -> AtlasImage:
    """A template, in the integers or floating point numbers that it is given in."""
    assembly = _assembly(levels, target, "template", "mean", ome_zarr, {})
    return AtlasImage(assembly, partial(computing_from, _arrays(levels), None))


def _arrays(levels: Levels) -> dict[int, Any]:
    return {level: opened(volume.array)[0] for level, volume in levels.volumes.items()}


def _assembly(
    levels: Levels, target: Target, name: str, rule: Literal["mean", "mode"], ome_zarr: str, more: Mapping[str, Any]
) -> Assembly:
    dtype = np.dtype(levels.volumes[0].array.dtype)
    if dtype.kind not in "iuf":
        raise InputError(f"{levels.volumes[0].uri} holds {dtype}, which is no intensity")
    if other := [one for one in levels.volumes.values() if one.array.dtype != dtype]:
        raise InputError(f"{other[0].uri} holds {other[0].array.dtype} where {levels.volumes[0].uri} holds {dtype}")
    sources = {str(level): volume.identity() for level, volume in sorted(levels.volumes.items())}
    return assembly_of(name, levels.pyramid, levels.geometry, target, dtype.name, rule, ome_zarr, sources, more)


def _described(terminology: Terminology, labels: Sequence[int]) -> dict[str, Any]:
    """The ``image-label`` of an annotation: colour, acronym and name of each label that occurs."""
    known = {structure.id: structure for structure in terminology}
    colours: list[dict[str, Any]] = []
    properties: list[dict[str, Any]] = []
    for label in labels:
        if (structure := known.get(int(label))) is None:
            properties.append({"label-value": int(label)})
            continue
        colours.append({"label-value": structure.id, "rgba": [*structure.rgb, 255]})
        properties.append({"label-value": structure.id, "acronym": structure.acronym, "name": structure.name})
    return {"colors": colours, "properties": properties}
