"""One image of an atlas, ready to be written by the engine from what is given for its levels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import credit
from ..boxes import Index, Region
from ..engine.codecs import Encoding
from ..engine.downsampling import Rule
from ..engine.inputs import opened
from ..engine.label_counts import LabelCounts
from ..engine.label_index import KEY as INDEX
from ..engine.label_index import LabelIndex, columns_before_midline, count_unit
from ..engine.multiscale import ArraySpec, Multiscale
from ..engine.ome import Geometry, multiscales, zarr_format
from ..engine.pyramid import Occupancy, Pass, Pyramid
from ..engine.resume import WriteReport, complete
from ..engine.schedulers import Future, Scheduler
from ..engine.target_state import Root, examine
from ..engine.writer import Assembly, Beside, Computing, Done, Note, making, starting, store_block
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


@dataclass(frozen=True)
class AtlasImage:
    """A volume of an atlas, ready to be written.

    Attributes
    ----------
    assembly : Assembly
    computing : callable
        As of `complete`.
    noted : callable
    beside : callable
    """

    assembly: Assembly
    computing: Callable[[Scheduler], Computing]
    noted: Callable[[Mapping[str, Any]], None] = lambda _: None
    beside: Beside = lambda _: ()

    @property
    def target(self) -> Target:
        """Where it is to lie."""
        return self.assembly.multiscale.target

    def check(self, overwrite: bool) -> None:
        """Refuse a target that holds something else, before anything is written anywhere."""
        examine(self.target, self.assembly.root.request, overwrite)

    def write(self, **options: Any) -> WriteReport:
        """Write it, with the options of `complete`."""
        return complete(self.assembly, self.computing, noted=self.noted, beside=self.beside, **options)


def assembly_of(
    name: str,
    pyramid: Pyramid,
    geometry: Geometry,
    target: Target,
    dtype: str,
    rule: Rule,
    ome_zarr: str,
    sources: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Assembly:
    """What an image is to become.

    Parameters
    ----------
    name : str
    pyramid : Pyramid
    geometry : Geometry
    target : Target
    dtype : str
    rule : str
        How a level that is not given comes from its parent.
    ome_zarr : str
    sources : mapping
        By level, what tells its source from others.
    more : mapping
        What OME-Zarr has to say of it beside its ``multiscales``.
    """
    encoding = Encoding("zstd", zarr_format(ome_zarr))
    if encoding.zarr_format == 2 and pyramid.levels[0].unit != pyramid.levels[0].chunk:
        raise InputError(f"shards cannot be had with OME-Zarr {ome_zarr}; ask for 0.5 or no shards")
    multiscale = Multiscale(target, (ArraySpec("", dtype, rule=rule),), Occupancy(pyramid), encoding)
    request = {
        "name": name,
        "sources": sources,
        "geometry": asdict(geometry),
        "ome_zarr": ome_zarr,
        **multiscale.to_json(),
    }
    entry = multiscales(ome_zarr, name, "zyx", geometry, pyramid, _METHODS[rule])
    root = Root(ome_zarr, json.loads(json.dumps(request)), credit.REFERENCE_VOLUMES)
    return Assembly(multiscale, root, {"": {"multiscales": [entry], **more}})


def computing_from(sources: Mapping[int, Any], note: Note | None, scheduler: Scheduler) -> Computing:
    """What starts the passes that read what is given for a level: arrays (z, y, x), by level."""

    def computing(shared: Any, step: Pass, blocks: Sequence[Index]) -> Iterator[Callable[[], Future]]:
        source = scheduler.share(sources[step.source])
        return starting(scheduler, write_level_block, (shared, source, note, step), blocks)

    return computing


def write_level_block(multiscale: Multiscale, source: Any, note: Note | None, step: Pass, block: Index) -> Done:
    """Read a block of a given volume, and write it at all levels that it makes."""
    with making(multiscale, step.source, block):
        part = source[multiscale.pyramid.region(step, block)]
        if hasattr(part, "__dask_graph__"):
            part = part.compute(scheduler="synchronous")
        values = np.asarray(part).astype(multiscale.arrays[0].dtype, copy=False)
        return store_block(multiscale, step, block, {"": values}, {}, note=note)


LEFT, RIGHT = 1, 2


@dataclass(frozen=True)
class Sides:
    """The sides of one level, as an array that is sliced.

    Attributes
    ----------
    before : int
        Columns along x, from the first on, that are on the low side.
    low, high : int
        `LEFT` or `RIGHT`.
    """

    before: int
    low: int
    high: int

    def __getitem__(self, region: Region) -> NDArray[np.uint8]:
        """The sides in a region."""
        z, y, x = region
        sides = np.where(np.arange(x.start, x.stop) < self.before, self.low, self.high).astype(np.uint8)
        return np.broadcast_to(sides, (z.stop - z.start, y.stop - y.start, len(sides)))


def hemispheres_image(pyramid: Pyramid, geometry: Geometry, target: Target, ome_zarr: str) -> AtlasImage:
    """The sides of an annotation, at its levels and over all of its voxels.

    A voxel is where its centre is, at every level; with its centre on the midline it is on the high side of x.

    Parameters
    ----------
    pyramid : Pyramid
        Of the annotation.
    geometry : Geometry
        Whose orientation of x tells which side is left.
    target : Target
    ome_zarr : str
    """
    levels = Pyramid(tuple(replace(level, given=True) for level in pyramid.levels))
    assembly = assembly_of("hemispheres", levels, geometry, target, "uint8", "nearest", ome_zarr, {}, {})
    low, high = (RIGHT, LEFT) if geometry.orientation.get("x") == BRAINGLOBE_SIDES else (LEFT, RIGHT)
    sources: dict[int, Any] = {
        n: Sides(columns_before_midline(levels, n), low, high) for n in range(len(levels.levels))
    }
    return AtlasImage(assembly, partial(computing_from, sources, None))


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
