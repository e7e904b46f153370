"""One image of an atlas, ready to be written by the engine from what is given for its levels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..engine.blocks import Done, Note, making, starting, store_block
from ..engine.codecs import Encoding
from ..engine.downsampling import Rule
from ..engine.multiscale import ArraySpec, Multiscale
from ..engine.occupancy import Occupancy
from ..engine.ome import Geometry, multiscales, zarr_format
from ..engine.pyramid import Index, Pass, Pyramid
from ..engine.resume import WriteReport, complete
from ..engine.schedulers import Future, Scheduler
from ..engine.target_state import Root, examine
from ..engine.writer import Assembly, Beside, Computing
from ..errors import InputError
from ..stores.target import Target
from .credit import CREDIT

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
    root = Root(ome_zarr, json.loads(json.dumps(request)), CREDIT)
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
