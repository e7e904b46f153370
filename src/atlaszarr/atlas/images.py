"""The images of an atlas as jobs for the engine: annotation, template, hemispheres."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ..boxes import Region
from ..credit import CCF, Credit
from ..engine.array_layout import Encoding
from ..engine.blocks import Block, BlockSource, Observe
from ..engine.downsampling import Rule
from ..engine.inputs import opened
from ..engine.job import ImageJob
from ..engine.label_counts import LabelCounts
from ..engine.label_index import KEY as INDEX
from ..engine.label_index import LabelIndex, columns_before_midline, count_unit
from ..engine.multiscale import ArraySpec, Multiscale
from ..engine.ome import Geometry, multiscales, zarr_format
from ..engine.pyramid import NonEmptyChunks, Pyramid
from ..engine.target_state import Root
from ..errors import InputError
from ..geometry.spaces import BRAINGLOBE_SIDES
from ..stores.target import Target
from ..terminology.terminology import Terminology
from .levels import Levels

_METHODS = {
    "mode": "vote of foreground against background, then the most frequent label other than 0",
    "mean": "mean, rounded half to even",
    "nearest": "by the centre of the voxel",
}


def image_job(
    name: str,
    pyramid: Pyramid,
    geometry: Geometry,
    target: Target,
    dtype: str,
    rule: Rule,
    ome_zarr: str,
    identities: Mapping[str, Any],
    more: Mapping[str, Any],
    source: BlockSource,
    credit: Credit,
    **hooks: Any,
) -> ImageJob:
    """The job that writes an image of an atlas.

    Parameters
    ----------
    name : str
    pyramid : Pyramid
    geometry : Geometry
    target : Target
    dtype : str
    rule : str
        The downsampling rule for levels without a source.
    ome_zarr : str
    identities : mapping
        What identifies the source of each level.
    more : mapping
        Further OME-Zarr metadata, next to its ``multiscales``.
    source : callable
    credit : Credit
    **hooks
        ``notes`` and ``files`` of the job.
    """
    encoding = Encoding("zstd", zarr_format(ome_zarr))
    if encoding.zarr_format == 2 and pyramid.levels[0].unit != pyramid.levels[0].chunk:
        raise InputError(
            f"shards are not supported with OME-Zarr {ome_zarr}; choose 0.5 or leave the shard out",
            code="not-supported",
        )
    multiscale = Multiscale(target, (ArraySpec("", dtype, rule=rule),), NonEmptyChunks(pyramid), encoding)
    request = {
        "name": name,
        "sources": identities,
        "geometry": asdict(geometry),
        "ome_zarr": ome_zarr,
        **multiscale.to_json(),
        # Left out for the CCF: in earlier versions every image had its credit and no request had one, and a target is
        # resumed only by the same request.
        **({} if credit.texts() == CCF.texts() else {"credit": credit.texts()}),
    }
    entry = multiscales(ome_zarr, name, "zyx", geometry, pyramid, _METHODS[rule])
    root = Root(ome_zarr, json.loads(json.dumps(request)), credit.texts())
    return ImageJob(multiscale, root, {"": {"multiscales": [entry], **more}}, source, **hooks)


def _read(
    sources: Mapping[int, Any],
    dtype: str,
    observe: Observe | None,
    level: int,
    region: Region,
    _inputs: Sequence[Any],
) -> Block:
    """Read a region of the volume of a level."""
    part = sources[level][region]
    if hasattr(part, "__dask_graph__"):
        part = part.compute(scheduler="synchronous")
    return Block({"": np.asarray(part).astype(dtype, copy=False)}, observe=observe)


LEFT, RIGHT = 1, 2


def _sides(before: Sequence[int], low: int, high: int, level: int, region: Region, _inputs: Sequence[Any]) -> Block:
    """The sides in a region; `before` holds the number of columns along x on the low side, by level."""
    z, y, x = region
    sides = np.where(np.arange(x.start, x.stop) < before[level], low, high).astype(np.uint8)
    return Block({"": np.broadcast_to(sides, (z.stop - z.start, y.stop - y.start, len(sides)))})


def hemispheres_image(pyramid: Pyramid, geometry: Geometry, target: Target, ome_zarr: str, credit: Credit) -> ImageJob:
    """The hemispheres of an annotation: 1 (left) or 2 (right) in every voxel of all levels.

    The centre of a voxel decides; one on the midline belongs to the high side of x.

    Parameters
    ----------
    pyramid : Pyramid
        Of the annotation.
    geometry : Geometry
        Its orientation of x tells which side is left.
    target : Target
    ome_zarr : str
    credit : Credit
    """
    levels = Pyramid(tuple(replace(level, given=True) for level in pyramid.levels))
    low, high = (RIGHT, LEFT) if geometry.orientation.get("x") == BRAINGLOBE_SIDES else (LEFT, RIGHT)
    before = [columns_before_midline(levels, level) for level in range(len(levels.levels))]
    source = partial(_sides, before, low, high)
    return image_job("hemispheres", levels, geometry, target, "uint8", "nearest", ome_zarr, {}, {}, source, credit)


def annotation_image(
    levels: Levels, target: Target, terminology: Terminology, labels: Sequence[int], ome_zarr: str, credit: Credit
) -> ImageJob:
    """An annotation as uint32 labels, with the names and colours of its structures and its label index.

    Parameters
    ----------
    levels : Levels
    target : Target
    terminology : Terminology
    labels : sequence of int
        The labels that occur, without 0.
    ome_zarr : str
    credit : Credit
    """
    described = {"image-label": _described(terminology, labels)}
    counts: dict[str, LabelCounts] = {}

    def index(ledger: str) -> list[str]:
        target.write(INDEX, LabelIndex.of(job.multiscale, counts, ledger).to_bytes())
        return [INDEX]

    hooks = {"notes": counts.update, "files": index}
    job = _from_levels(levels, target, "annotation", "mode", ome_zarr, credit, described, count_unit, **hooks)
    return job


def template_image(levels: Levels, target: Target, ome_zarr: str, credit: Credit) -> ImageJob:
    """A template, in the dtype of its source."""
    return _from_levels(levels, target, "template", "mean", ome_zarr, credit, {})


def _from_levels(
    levels: Levels,
    target: Target,
    name: str,
    rule: Literal["mean", "mode"],
    ome_zarr: str,
    credit: Credit,
    more: Mapping[str, Any],
    observe: Observe | None = None,
    **hooks: Any,
) -> ImageJob:
    """The job of an image; a level without a volume is made from the finer one."""
    dtype = np.dtype(levels.volumes[0].array.dtype)
    if dtype.kind not in "iuf":
        raise InputError(
            f"{levels.volumes[0].uri} holds {dtype}; give integers or floating point numbers", code="unsupported-dtype"
        )
    if other := [volume for volume in levels.volumes.values() if volume.array.dtype != dtype]:
        raise InputError(
            f"{other[0].uri} holds {other[0].array.dtype}, but {levels.volumes[0].uri} holds {dtype}; convert one",
            code="dtype-mismatch",
        )
    identities = {str(level): volume.identity() for level, volume in sorted(levels.volumes.items())}
    arrays = {level: opened(volume.array)[0] for level, volume in levels.volumes.items()}
    source = partial(_read, arrays, dtype.name, observe)
    layout = levels.pyramid, levels.geometry
    return image_job(name, *layout, target, dtype.name, rule, ome_zarr, identities, more, source, credit, **hooks)


def _described(terminology: Terminology, labels: Sequence[int]) -> dict[str, Any]:
    """The ``image-label`` of an annotation: colour, acronym and name of each label that occurs."""
    known = terminology.by_value
    colours: list[dict[str, Any]] = []
    properties: list[dict[str, Any]] = []
    for label in labels:
        if (structure := known.get(int(label))) is None:
            properties.append({"label-value": int(label)})
            continue
        colours.append({"label-value": int(label), "rgba": [*structure.rgb, 255]})
        properties.append({"label-value": int(label), "acronym": structure.acronym, "name": structure.name})
    return {"colors": colours, "properties": properties}
