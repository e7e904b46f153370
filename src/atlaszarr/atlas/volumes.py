"""Writing the volumes of an atlas: the annotation with its label index, and the template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from ..assembly import Assembly, Beside, Computing
from ..blocks import Done, Note, starting, store_block
from ..completion import WriteReport, complete
from ..counting import LabelCounts
from ..encoding import Encoding
from ..errors import InputError
from ..label_index import KEY as INDEX
from ..label_index import LabelIndex, count_unit
from ..multiscale import ArraySpec, Multiscale
from ..occupancy import Occupancy
from ..ome import multiscales, zarr_format
from ..pyramid import Index, Pass
from ..reference_volumes import ReferenceVolume
from ..scheduling import Future, Scheduler
from ..sources import opened
from ..store import Target
from ..target_state import Root, examine
from ..terminology import Terminology
from .credit import CREDIT
from .levels import Levels

_METHODS = {
    "mode": "vote of foreground against background, then the most frequent label other than 0",
    "mean": "mean, rounded half to even",
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

    def check(self, overwrite: bool) -> None:
        """Refuse a target that holds something else, before anything is written anywhere."""
        examine(self.assembly.multiscale.target, self.assembly.root.request, overwrite)

    def write(self, **options: Any) -> WriteReport:
        """Write it, with the options of `complete`."""
        return complete(self.assembly, self.computing, noted=self.noted, beside=self.beside, **options)


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

    return AtlasImage(assembly, partial(_computing, levels, count_unit), counts.update, index)


def template_image(levels: Levels, target: Target, ome_zarr: str) -> AtlasImage:
    """A template, in the integers or floating point numbers that it is given in."""
    return AtlasImage(_assembly(levels, target, "template", "mean", ome_zarr, {}), partial(_computing, levels, None))


def write_level_block(multiscale: Multiscale, source: Any, note: Note | None, step: Pass, block: Index) -> Done:
    """Read a block of a given volume, and write it at all levels that it makes."""
    part = source[multiscale.pyramid.region(step, block)]
    if hasattr(part, "__dask_graph__"):
        part = part.compute(scheduler="synchronous")
    values = np.asarray(part).astype(multiscale.arrays[0].dtype, copy=False)
    return store_block(multiscale, step, block, {"": values}, {}, note=note)


def _computing(levels: Levels, note: Note | None, scheduler: Scheduler) -> Computing:
    def computing(shared: Any, step: Pass, blocks: Sequence[Index]) -> Iterator[Callable[[], Future]]:
        source = scheduler.share(opened(levels.volumes[step.source].array)[0])
        return starting(scheduler, write_level_block, (shared, source, note, step), blocks)

    return computing


def _assembly(
    levels: Levels, target: Target, name: str, rule: Literal["mean", "mode"], ome_zarr: str, more: Mapping[str, Any]
) -> Assembly:
    pyramid, dtype = levels.pyramid, np.dtype(levels.volumes[0].array.dtype)
    if dtype.kind not in "iuf":
        raise InputError(f"{levels.volumes[0].uri} holds {dtype}, which is no intensity")
    if other := [one for one in levels.volumes.values() if one.array.dtype != dtype]:
        raise InputError(f"{other[0].uri} holds {other[0].array.dtype} where {levels.volumes[0].uri} holds {dtype}")
    encoding = Encoding("zstd", zarr_format(ome_zarr))
    if encoding.zarr_format == 2 and pyramid.levels[0].unit != pyramid.levels[0].chunk:
        raise InputError(f"shards cannot be had with OME-Zarr {ome_zarr}; ask for 0.5 or no shards")
    multiscale = Multiscale(target, (ArraySpec("", dtype.name, rule=rule),), Occupancy(pyramid), encoding)
    sources = {str(level): _identity(volume) for level, volume in sorted(levels.volumes.items())}
    request = {"name": name, "sources": sources, "ome_zarr": ome_zarr, **multiscale.to_json()}
    entry = multiscales(ome_zarr, name, "zyx", levels.geometry, pyramid, _METHODS[rule])
    root = Root(ome_zarr, json.loads(json.dumps(request)), CREDIT)
    return Assembly(multiscale, root, {"": {"multiscales": [entry], **more}})


def _identity(volume: ReferenceVolume) -> dict[str, Any]:
    """What tells a source from another: its content where that was read as a whole, else its place."""
    return {"sha256": volume.sha256} if volume.sha256 else {"uri": volume.uri, "size": volume.size}


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
