"""`write_multiscales`: write a dask array, xarray.DataArray or NgffImage as OME-Zarr, with the engine of `build`."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .boxes import Index, Region, shape_of
from .engine.array_layout import Encoding
from .engine.blocks import Block, as_declared
from .engine.chunk_groups import ChunkGroups
from .engine.downsampling import Rule
from .engine.inputs import (
    absent_of,
    held_by,
    identity_of,
    locations_read,
    opened,
    part_of,
    read_directly,
    validate_held,
)
from .engine.job import ImageJob
from .engine.kept import KEPT, Kept
from .engine.lazy_arrays import LazyArrays
from .engine.multiscale import ArraySpec, Multiscale
from .engine.ome import DEFAULT_VERSION, Geometry, multiscales, zarr_format
from .engine.pyramid import NonEmptyChunks, Pyramid
from .engine.schedulers import Future, Scheduler, SchedulerLike, resolve_scheduler, scheduler_for, worker_count
from .engine.selections import StoredPart
from .engine.target_state import Root
from .engine.writer import Progress, WriteReport, write
from .engine.zarr_reader import StoredArray
from .errors import AtlaszarrWarning, InputError, brief
from .sections import FETCHES
from .stores.locations import overlap, shown
from .stores.target import Target

#: Futures of fetched images, or of persisted chunks, that are kept for other regions: the sections of most datasets.
_FUTURES = 256
_METHODS: dict[str, str] = {
    "mean": "mean, rounded half to even",
    "mean_of_numbers": "mean of the values that are not NaN",
    "mode": "vote of foreground against background, then the most frequent label other than 0",
    "mode_of_nonzero": "most frequent label other than 0",
    "nearest": "the voxel nearest to the centre",
}


def write_multiscales(
    image: Any,
    target: str | os.PathLike[str],
    *,
    labels: Mapping[str, Any] | None = None,
    rule: Rule = "mean",
    geometry: Geometry | None = None,
    levels: int | None = None,
    factors: Sequence[Any] = (),
    chunk: int | Sequence[int | Sequence[int]] | None = None,
    shard: int | Sequence[int] | None = None,
    ome_zarr: str = DEFAULT_VERSION,
    compressor: str = "zstd",
    name: str = "image",
    identity: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    scheduler: SchedulerLike = None,
    workers: int | None = None,
    overwrite: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> WriteReport:
    """Write an image, and labels over the same voxels, as one multiscale OME-Zarr.

    Every block is computed once and written at all levels that it contributes to. If the chunks of a dask array and the
    blocks have different edges, one task computes several blocks, up to the next common edge, so that each chunk is
    computed once; if that needs too much memory, a warning gives the number of times that a chunk is computed. A
    ``rechunk`` as the last step does not help: for every block it computes again the chunks that it merges. The same
    call resumes an unfinished target; it validates a finished one, and repairs it if it is damaged.

    Parameters
    ----------
    image : path or URL of a zarr array; zarr, dask or numpy array, xarray.DataArray or NgffImage; or xarray.Dataset
        An array has the shape (z, y, x), (y, x), (c, z, y, x) or (c, y, x); without named axes it has (y, x), (z, y, x)
        or (c, z, y, x) by its number of axes. Named axes may have any order, and others of length 1, which are dropped.
        Any integer or floating point dtype, or bool. A URL is opened with the settings of the environment, not with
        `storage_options`.

        A Dataset is one of `open_volume` or `open_sections`, as it is or after steps of xarray and dask, of which
        ``docs/your_own_step.md`` says what they must keep. It is written as in `atlaszarr.build`: with the mean of the
        voxels inside section images at coarser levels, the section label, the metadata and the tables. As it is, it
        becomes the same target. `labels`, `rule`, `geometry`, `factors`, `compressor` and `name` are not supported.
    target : str or path-like
        A local path, or any URL that fsspec opens.
    labels : mapping of str to array, optional
        Integers, by name: each is written to ``labels/<name>``. They are computed together with the image.
    rule : str
        How the image is downsampled; labels are downsampled by ``mode``. See `atlaszarr.engine.downsampling.reduce`.
    geometry : Geometry, optional
        Default: that of the image (coordinates of a DataArray, scale and translation of an NgffImage), or voxels of
        length 1 without a unit.
    levels, factors, chunk, shard
        See `atlaszarr.engine.pyramid.Pyramid.over`. The default chunk is 64, for a Dataset the one it was opened with;
        for a Dataset `chunk` and `shard` are whole numbers.
    ome_zarr : str
        0.4, 0.5 or 0.6.
    compressor : str
        ``zstd`` or ``blosc``.
    name : str
        Name of the image in its metadata.
    identity : str, optional
        Identifies the image when a target is resumed or is finished already: a target of another identity is not
        overwritten. Default for a zarr array on a local disk: its path and the sizes and modification times of its
        files (a change is missed if a file keeps its size and changes within one tick of the file system's clock).
        Default for the URL of a zarr array: the URL and the metadata. Default for any other array: dask's token, which
        differs between processes for some sources, and the files of the local zarr arrays that it reads. dask's token
        of an array on an object store consists of its URL and metadata: give an identity if an array that is not on a
        local disk may change.
    workers : int, optional
        Threads of this process; default one for each core, and two if the target is not on a local disk.
    storage_options, scheduler, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If an argument is not valid, the target holds something else, or a zarr array that is read has other metadata
        than the ledger of its image records; if a Dataset lacks what is written. Nothing is written.
    ImageError
        If section images of a Dataset are missing and it was not opened with ``on_missing="fill"``; the blocks without
        them are written, and the same call resumes.
    TargetError
        If the target cannot be written, or a zarr array that is read lacks a chunk that the ledger of its image
        records.

    Warns
    -----
    AtlaszarrWarning
        If a zarr array that is read lacks chunks and has no ledger, with their number. If chunks of a dask array are
        computed several times.
    """
    worker_count(workers)
    output = Target.of(target, storage_options)
    if hasattr(image, "data_vars"):
        _validate_options_of_dataset(labels=labels, geometry=geometry, factors=factors)
        _validate_options_of_dataset(rule=rule != "mean", compressor=compressor != "zstd", name=name != "image")
        from .dataset_build.lazy_write import write_dataset  # imported here, since arrays do without it

        return write_dataset(
            image,
            output,
            identity=identity,
            scheduler=scheduler,
            workers=workers,
            overwrite=overwrite,
            take_over=take_over,
            progress=progress,
            levels=levels,
            chunk=chunk,
            shard=shard,
            ome_zarr=ome_zarr,
        )
    chunk = 64 if chunk is None else chunk
    if not isinstance(labels, Mapping | None):
        raise InputError(f"labels {brief(labels)} are not arrays by name; give a mapping", code="wrong-type")
    array, axes, own_geometry = opened(image)
    arrays = {"": array, **{f"labels/{key}": opened(label)[0] for key, label in (labels or {}).items()}}
    specs = tuple(_spec(path, part, axes, rule) for path, part in arrays.items())
    spatial = array.shape[-specs[0].dimensions :]
    for spec in specs:
        if (shape := arrays[spec.path].shape[-specs[0].dimensions :]) != spatial:
            raise InputError(
                f"{spec.path} has {shape} voxels, but the image has {spatial}; give arrays of the same shape",
                code="shape-mismatch",
            )
    if len(spatial) == 2:
        chunk, shard = _flat(chunk), None if shard is None else _flat_lengths(shard)
    pyramid = Pyramid.over((1,) * (3 - len(spatial)) + tuple(map(int, spatial)), chunk, levels, factors, shard)
    encoding = Encoding(compressor, zarr_format(ome_zarr))
    if encoding.zarr_format == 2 and shard is not None:
        raise InputError(
            f"shard {shard!r} is not supported for OME-Zarr {ome_zarr}; give ome_zarr 0.5 or no shard",
            code="not-supported",
        )
    scheduler = resolve_scheduler(scheduler, output.url)
    multiscale = Multiscale(output, specs, NonEmptyChunks(pyramid), encoding)
    geometry = geometry or own_geometry
    request = {
        "image": identity or "; ".join(map(identity_of, arrays.values())),
        "name": str(name),
        "geometry": asdict(geometry),
        "ome_zarr": ome_zarr,
        **multiscale.to_json(),
    }
    request = json.loads(json.dumps(request))
    for array_read in arrays.values():
        if source := next((url for url in locations_read(array_read) if overlap(url, output.url)), None):
            raise InputError(
                f"target {output.url} overlaps {shown(source)}, which the image is read from; choose another target",
                code="target-overlaps-source",
            )
    absent = {path: chunks for path, part in arrays.items() if (chunks := absent_of(part)) is not None}
    for chunks in absent.values():
        chunks.list()
    kept = KEPT if scheduler == "threads" else 0
    groups = ChunkGroups.of(pyramid, list(arrays.values()), specs[0].dimensions, kept)

    def together(blocks: Sequence[Index]) -> Sequence[Sequence[Index]]:
        if groups.times > 1 and blocks:
            warnings.warn(groups.warning(), AtlaszarrWarning, stacklevel=6)  # at the call of write_multiscales
        return groups.sort(blocks)

    def note(notes: Mapping[str, Mapping[str, int]]) -> None:
        for path, counts in notes.items():
            absent[path].add(counts)

    in_common = Kept(KEPT, 0)
    arrays = {p: replace(part, kept=in_common) if isinstance(part, StoredPart) else part for p, part in arrays.items()}
    lazy, starts = _given(arrays, len(spatial))
    job = ImageJob(
        multiscale,
        Root(ome_zarr, request),
        _groups(specs, name, geometry, pyramid, ome_zarr),
        _Source(specs, {path: array for path, array in arrays.items() if path not in lazy.arrays}, lazy),
        together=None if groups.are_blocks and groups.times == 1 and not starts else together,
        notes=note,
    )
    validate_held(arrays.values(), scheduler)
    with scheduler_for(scheduler, workers, target=output) as running:
        if starts:
            job.held = _Started(lazy, starts, running)
        report = write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)
    for chunks in absent.values():
        if (text := chunks.remark()) is not None:
            warnings.warn(text, AtlaszarrWarning, stacklevel=2)
    return report


@dataclass(frozen=True)
class _Source:
    """Computes regions of arrays of level 0: a `BlockSource`.

    Attributes
    ----------
    specs : tuple of ArraySpec
    read : mapping of str to array
        By path: the arrays that are read by indexing.
    lazy : LazyArrays
        The other arrays.
    """

    specs: tuple[ArraySpec, ...]
    read: Mapping[str, Any]
    lazy: LazyArrays

    def __call__(self, _level: int, region: Region, inputs: Sequence[Any]) -> Block:
        shape = shape_of(region)
        made = self.lazy.compute(region, dict(zip(self.lazy.needs(region), inputs, strict=True)))
        for spec in self.specs:
            if spec.path in self.read:
                part = part_of(self.read[spec.path], (..., *region[3 - spec.dimensions :]))
                made[spec.path] = as_declared(spec.path, spec.dtype, part, spec.shape(shape))
        absent = {
            p: array.absent.take() for p, array in self.read.items() if isinstance(array, StoredArray | StoredPart)
        }
        return Block(
            {spec.path: made[spec.path].reshape(spec.lead + shape) for spec in self.specs},
            notes={path: chunks for path, chunks in absent.items() if chunks},
        )


def _given(
    arrays: Mapping[str, Any], dimensions: int
) -> tuple[LazyArrays, dict[Hashable, Callable[[Scheduler], Future]]]:
    """The dask arrays, and what makes the values that their tasks are given.

    Returns
    -------
    lazy : LazyArrays
    starts : dict of hashable to callable
        By the name of a value (a section image that the graph fetches, or a chunk that is persisted on a cluster),
        starts what makes it, and returns the future.
    """
    lazy = {path: array for path, array in arrays.items() if hasattr(array, "__dask_graph__")}
    futures = {key: future for array in lazy.values() for key, future in held_by(array).items()}
    layers = [layer for array in lazy.values() for name, layer in array.dask.layers.items() if name.startswith(FETCHES)]
    fetches: dict[Any, Any] = {}
    if layers:
        from .sections.missing import fetches_of  # imported here, since other arrays do without it

        fetches = {key: call for layer in layers for key, call in fetches_of(layer).items()}
    # Without an axis z, one of length 1 is added.
    stacked = {path: array if dimensions == 3 else array[..., np.newaxis, :, :] for path, array in lazy.items()}
    names = {key: (fetch.client.images_url, request) for key, (fetch, request) in fetches.items()}
    starts: dict[Hashable, Callable[[Scheduler], Future]] = {key: partial(_held, held) for key, held in futures.items()}
    starts |= {names[key]: partial(_fetch, *call) for key, call in fetches.items()}
    given = names | {key: key for key in futures}
    return LazyArrays({path: read_directly(array) for path, array in stacked.items()}, given), starts


def _held(future: Future, _scheduler: Scheduler) -> Future:
    return future


def _fetch(fetch: Callable[[Any], Any], request: Any, scheduler: Scheduler) -> Future:
    return scheduler.fetch(fetch, request)


class _Started:
    """The futures of what regions need, each started once; the last ones are kept for other regions."""

    def __init__(
        self, lazy: LazyArrays, starts: Mapping[Hashable, Callable[[Scheduler], Future]], scheduler: Scheduler
    ) -> None:
        self._lazy, self._starts, self._scheduler = lazy, starts, scheduler
        self._futures: OrderedDict[Hashable, Future] = OrderedDict()

    def __call__(self, region: Region) -> list[Future]:
        needs = self._lazy.needs(region)
        for name in needs:
            if name not in self._futures:
                self._futures[name] = self._starts[name](self._scheduler)
            self._futures.move_to_end(name)
        needed = [self._futures[name] for name in needs]
        while len(self._futures) > max(_FUTURES, len(needs)):
            self._futures.popitem(last=False)
        return needed


def _validate_options_of_dataset(**given: Any) -> None:
    """Refuse options that a Dataset of `open_volume` or `open_sections` decides itself."""
    if name := next((name for name, value in given.items() if value), None):
        raise InputError(
            f"option {name} is not supported for a Dataset, which decides it as in build; pass one variable of it as "
            "an array to decide yourself",
            code="conflicting-options",
        )


def _groups(
    specs: Sequence[ArraySpec], name: str, geometry: Geometry, pyramid: Pyramid, version: str
) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    names = [spec.path.removeprefix("labels/") for spec in specs[1:]]
    for spec, label in zip(specs[1:], names, strict=True):
        entry = multiscales(version, label, spec.axes, geometry, pyramid, _METHODS[spec.rule])
        groups[spec.path] = {"multiscales": [entry], "image-label": {"source": {"image": "../../"}}}
    if names:
        groups["labels"] = {"labels": names}
    entry = multiscales(version, name, specs[0].axes, geometry, pyramid, _METHODS[specs[0].rule])
    return {**groups, "": {"multiscales": [entry]}}


def _flat(chunk: int | Sequence[int | Sequence[int]]) -> list[tuple[int, ...]]:
    """The chunks of a plane at each level."""
    return [_flat_lengths(lengths) for lengths in ([chunk] if isinstance(chunk, int) else chunk)]


def _flat_lengths(lengths: int | Sequence[int]) -> tuple[int, ...]:
    """One length, or lengths along (y, x) or (z, y, x), as lengths along (z, y, x) with one voxel along z."""
    return (1, lengths, lengths) if isinstance(lengths, int) else (1, *lengths[-2:])


def _spec(path: str, array: Any, axes: tuple[str, ...], rule: Rule) -> ArraySpec:
    dtype = np.dtype(array.dtype)
    if path and (dtype.kind not in "iub" or array.ndim != len(axes) - ("c" in axes)):
        raise InputError(
            f"{path} must be integers without channels, not {dtype} of {array.ndim} axes", code="not-labels"
        )
    if path and (not re.fullmatch(r"labels/[\w-][\w.-]*", path) or path == "labels/zarr.json"):
        raise InputError(
            f"label {path.removeprefix('labels/')!r} must be a name of letters, digits, '.', '_' and '-'",
            code="invalid-name",
        )
    if rule not in _METHODS:
        raise InputError(f"rule {rule!r} is not known; choose from {', '.join(_METHODS)}", code="unknown-value")
    if rule.startswith("mode") and dtype.kind == "f":
        raise InputError(
            f"rule {rule!r} is not supported for {dtype}; it needs integers or bool", code="unsupported-dtype"
        )
    if rule == "mean_of_numbers" and dtype.kind != "f":
        raise InputError(f"rule {rule!r} needs floating point, not {dtype}; give mean", code="unsupported-dtype")
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise InputError(
            f"dtype {dtype} is not supported; give integers, floating point or bool", code="unsupported-dtype"
        )
    if path:
        return ArraySpec(path, dtype.name, tuple(axis for axis in axes if axis != "c"), rule="mode")
    channels = int(array.shape[0]) if "c" in axes else 1
    if channels < 1:
        raise InputError(f"the image has {channels} channels; give at least one", code="out-of-range")
    return ArraySpec(path, dtype.name, axes, channels, rule=rule)
