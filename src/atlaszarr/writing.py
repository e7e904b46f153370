"""`write_multiscales`: any dask array, xarray.DataArray or NgffImage as an OME-Zarr, through the engine of `build`."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boxes import Index, Region, shape_of
from .engine.blocks import Block
from .engine.chunk_groups import ChunkGroups
from .engine.codecs import Encoding
from .engine.downsampling import Rule
from .engine.inputs import absent_of, identity_of, locations_read, opened
from .engine.job import ImageJob
from .engine.multiscale import ArraySpec, Multiscale
from .engine.ome import DEFAULT_VERSION, Geometry, multiscales, zarr_format
from .engine.pyramid import NonEmptyChunks, Pyramid
from .engine.schedulers import SchedulerLike, resolve_scheduler, scheduler_for, worker_count
from .engine.target_state import Root
from .engine.writer import Progress, WriteReport, write
from .engine.zarr_reader import StoredArray
from .errors import AtlaszarrWarning, InputError
from .stores.locations import overlap, shown
from .stores.target import Target

_METHODS: dict[str, str] = {
    "mean": "mean, rounded half to even",
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
    chunk: int | Sequence[int | Sequence[int]] = 64,
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
    """Write an image, with labels over the same voxels if there are any, as one multiscale OME-Zarr.

    Every block is computed once and written at all levels that it makes. Where the chunks of a dask array do not end
    with the blocks, blocks are computed together up to where both end, so that each chunk is computed once; where that
    takes too much memory, a warning says how often each is. A ``rechunk`` as the last step does not help: it computes
    what it merges anew for every block. A target that the same call left unfinished is resumed; a finished one is
    checked, and repaired where it is damaged.

    Parameters
    ----------
    image : zarr, dask or numpy array, xarray.DataArray or NgffImage
        Shape (z, y, x), (y, x), (c, z, y, x) or (c, y, x); of a plain array the number of axes tells which, four
        being (c, z, y, x) and three (z, y, x). Any integer or floating point dtype, or bool.
    target : str or path-like
        A local path, or any URL that fsspec opens.
    labels : mapping of str to array, optional
        Integers, by name: each becomes ``labels/<name>``. They are computed together with the image.
    rule : str
        How the image is reduced; labels are by ``mode``. See `atlaszarr.engine.downsampling.reduce`.
    geometry : Geometry, optional
        Default: that of the image where it has one (coordinates of a DataArray, scale and translation of an
        NgffImage), else voxels of length 1 without a unit.
    levels, factors, chunk, shard
        See `atlaszarr.engine.pyramid.Pyramid.over`.
    ome_zarr : str
        0.4, 0.5 or 0.6.
    compressor : str
        ``zstd`` or ``blosc``.
    name : str
        Of the image, in its metadata.
    identity : str, optional
        What tells the image from others when a target is resumed or found finished. Default: of a zarr array on a
        local disk its path and the sizes and modification times of its files (a change is not noticed where a file
        keeps its size and changes within one tick of the file system's clock); of any other array dask's token, which
        some sources make anew in every process, and the files of the local zarr arrays that it reads. dask's token of
        an array on an object store is its URL and metadata: give an identity where such an array may change.
    storage_options, scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If a value cannot be used, or the target holds something else; nothing is written.
    TargetError
        If the target cannot be written, or a zarr array that is read lacks a chunk that its image's ledger records.

    Warns
    -----
    AtlaszarrWarning
        If a zarr array that is read lacks chunks and no ledger says which it has: how many. If the chunks of a dask
        array are computed several times.
    """
    worker_count(workers)
    place = Target.of(target, storage_options)
    array, axes, found = opened(image)
    arrays = {"": array, **{f"labels/{key}": opened(label)[0] for key, label in (labels or {}).items()}}
    specs = tuple(_spec(path, one, axes, rule) for path, one in arrays.items())
    spatial = array.shape[-specs[0].dimensions :]
    for spec in specs:
        if (shape := arrays[spec.path].shape[-specs[0].dimensions :]) != spatial:
            raise InputError(f"{spec.path} has {shape} voxels where the image has {spatial}; they must be the same")
    if len(spatial) == 2:
        chunk, shard = _flat(chunk), None if shard is None else _flat_lengths(shard)
    pyramid = Pyramid.over((1,) * (3 - len(spatial)) + tuple(map(int, spatial)), chunk, levels, factors, shard)
    encoding = Encoding(compressor, zarr_format(ome_zarr))
    if encoding.zarr_format == 2 and shard is not None:
        raise InputError(f"shard {shard!r} cannot be had with OME-Zarr {ome_zarr}; ask for 0.5 or no shards")
    scheduler = resolve_scheduler(scheduler, place.url)
    multiscale = Multiscale(place, specs, NonEmptyChunks(pyramid), encoding)
    geometry = geometry or found
    request = {
        "image": identity or "; ".join(map(identity_of, arrays.values())),
        "name": str(name),
        "geometry": asdict(geometry),
        "ome_zarr": ome_zarr,
        **multiscale.to_json(),
    }
    request = json.loads(json.dumps(request))
    for array_read in arrays.values():
        if read := next((one for one in locations_read(array_read) if overlap(one, place.url)), None):
            raise InputError(
                f"target {place.url} lies in what the image is read from, {shown(read)}; choose another place"
            )
    absent = {path: one for path, array_read in arrays.items() if (one := absent_of(array_read)) is not None}
    for one in absent.values():
        one.list()
    groups = ChunkGroups.of(pyramid, list(arrays.values()), specs[0].dimensions)

    def together(blocks: Sequence[Index]) -> Sequence[Sequence[Index]]:
        if groups.times > 1 and blocks:
            warnings.warn(groups.warning(), AtlaszarrWarning, stacklevel=6)  # at the call of write_multiscales
        return groups.sort(blocks)

    def note(found: Mapping[str, Mapping[str, int]]) -> None:
        for path, chunks in found.items():
            absent[path].add(chunks)

    job = ImageJob(
        multiscale,
        Root(ome_zarr, request),
        _groups(specs, name, geometry, pyramid, ome_zarr),
        partial(_compute, arrays, specs),
        together=None if groups.are_blocks and groups.times == 1 else together,
        notes=note,
    )
    with scheduler_for(scheduler, workers) as where:
        report = write(job, where, overwrite=overwrite, take_over=take_over, progress=progress)
    for text in (one.remark() for one in absent.values()):
        if text is not None:
            warnings.warn(text, AtlaszarrWarning, stacklevel=2)
    return report


def _compute(
    arrays: Mapping[str, Any], specs: Sequence[ArraySpec], _level: int, region: Region, _inputs: Sequence[Any]
) -> Block:
    """Compute a region of all arrays at once."""
    found = [arrays[spec.path][(..., *region[3 - spec.dimensions :])] for spec in specs]
    if any(hasattr(part, "__dask_graph__") for part in found):
        import dask
        from dask.local import get_sync

        found = dask.compute(*found, scheduler=get_sync)
    shape = shape_of(region)
    values = {
        spec.path: _as_declared(spec, np.asarray(part), spec.shape(shape)).reshape(spec.lead + shape)
        for spec, part in zip(specs, found, strict=True)
    }
    absent = {path: one.absent.take() for path, one in arrays.items() if isinstance(one, StoredArray)}
    return Block(values, notes={path: chunks for path, chunks in absent.items() if chunks})


def _as_declared(spec: ArraySpec, part: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A block, if it is what its array says of it: dask does not check what a function returns."""
    if part.dtype.newbyteorder("=") != np.dtype(spec.dtype) or part.shape != shape:
        raise InputError(
            f"a block of {spec.path or 'the image'} is {part.dtype} of shape {part.shape} where its array says "
            f"{spec.dtype} and {shape}; correct the dtype or meta that the array was made with"
        )
    return part


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
    """Chunks of a plane, level by level."""
    return [_flat_lengths(one) for one in ([chunk] if isinstance(chunk, int) else chunk)]


def _flat_lengths(lengths: int | Sequence[int]) -> tuple[int, ...]:
    """A length, or those along (y, x) or (z, y, x), with one voxel along z."""
    return (1, lengths, lengths) if isinstance(lengths, int) else (1, *lengths[-2:])


def _spec(path: str, array: Any, axes: tuple[str, ...], rule: Rule) -> ArraySpec:
    dtype = np.dtype(array.dtype)
    if path and (dtype.kind not in "iub" or array.ndim != len(axes) - ("c" in axes)):
        raise InputError(f"{path} must be integers without channels, not {dtype} of {array.ndim} axes")
    if path and (not re.fullmatch(r"labels/[\w-][\w.-]*", path) or path == "labels/zarr.json"):
        raise InputError(f"label {path.removeprefix('labels/')!r} must be a name of letters, digits, '.', '_' and '-'")
    if rule not in _METHODS:
        raise InputError(f"rule {rule!r} is not known; choose from {', '.join(_METHODS)}")
    if rule.startswith("mode") and dtype.kind == "f":
        raise InputError(f"rule {rule!r} is of labels; {dtype} has no labels")
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise InputError(f"dtype {dtype} cannot be written; give integers, floating point or bool")
    if path:
        return ArraySpec(path, dtype.name, tuple(axis for axis in axes if axis != "c"), rule="mode")
    channels = int(array.shape[0]) if "c" in axes else 1
    if channels < 1:
        raise InputError(f"the image has {channels} channels; give at least one")
    return ArraySpec(path, dtype.name, axes, channels, rule=rule)
