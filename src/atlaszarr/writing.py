"""`write_multiscales`: write a dask array, xarray.DataArray or NgffImage as OME-Zarr, with the engine of `build`."""

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
    """Write an image, and labels over the same voxels, as one multiscale OME-Zarr.

    Every block is computed once and written at all levels that it contributes to. If the chunks of a dask array and the
    blocks have different edges, one task computes several blocks, up to the next common edge, so that each chunk is
    computed once; if that needs too much memory, a warning gives the number of times that a chunk is computed. A
    ``rechunk`` as the last step does not help: for every block it computes again the chunks that it merges. The same
    call resumes an unfinished target; it validates a finished one, and repairs it if it is damaged.

    Parameters
    ----------
    image : zarr, dask or numpy array, xarray.DataArray or NgffImage
        Shape (z, y, x), (y, x), (c, z, y, x) or (c, y, x); an array without named axes has (y, x), (z, y, x) or
        (c, z, y, x) by its number of axes. Named axes may have any order, and others of length 1, which are dropped.
        Any integer or floating point dtype, or bool.
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
        See `atlaszarr.engine.pyramid.Pyramid.over`.
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
        Default for any other array: dask's token, which differs between processes for some sources, and the files of
        the local zarr arrays that it reads. dask's token of an array on an object store consists of its URL and
        metadata: give an identity if such an array may change.
    storage_options, scheduler, workers, overwrite, take_over, progress
        Same as in `atlaszarr.build`.

    Raises
    ------
    InputError
        If an argument is not valid, the target holds something else, or a zarr array that is read has other metadata
        than the ledger of its image records; nothing is written.
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
    groups = ChunkGroups.of(pyramid, list(arrays.values()), specs[0].dimensions)

    def together(blocks: Sequence[Index]) -> Sequence[Sequence[Index]]:
        if groups.times > 1 and blocks:
            warnings.warn(groups.warning(), AtlaszarrWarning, stacklevel=6)  # at the call of write_multiscales
        return groups.sort(blocks)

    def note(notes: Mapping[str, Mapping[str, int]]) -> None:
        for path, counts in notes.items():
            absent[path].add(counts)

    job = ImageJob(
        multiscale,
        Root(ome_zarr, request),
        _groups(specs, name, geometry, pyramid, ome_zarr),
        partial(_compute, arrays, specs),
        together=None if groups.are_blocks and groups.times == 1 else together,
        notes=note,
    )
    with scheduler_for(scheduler, workers) as running:
        report = write(job, running, overwrite=overwrite, take_over=take_over, progress=progress)
    for chunks in absent.values():
        if (text := chunks.remark()) is not None:
            warnings.warn(text, AtlaszarrWarning, stacklevel=2)
    return report


def _compute(
    arrays: Mapping[str, Any], specs: Sequence[ArraySpec], _level: int, region: Region, _inputs: Sequence[Any]
) -> Block:
    """Compute a region of all arrays at once."""
    parts = [arrays[spec.path][(..., *region[3 - spec.dimensions :])] for spec in specs]
    if any(hasattr(part, "__dask_graph__") for part in parts):
        import dask
        from dask.local import get_sync

        parts = dask.compute(*parts, scheduler=get_sync)
    shape = shape_of(region)
    values = {
        spec.path: _as_declared(spec, np.asarray(part), spec.shape(shape)).reshape(spec.lead + shape)
        for spec, part in zip(specs, parts, strict=True)
    }
    absent = {path: array.absent.take() for path, array in arrays.items() if isinstance(array, StoredArray)}
    return Block(values, notes={path: chunks for path, chunks in absent.items() if chunks})


def _as_declared(spec: ArraySpec, part: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Validate the dtype and shape of a block: dask does not validate the result of a mapped function."""
    if part.dtype.newbyteorder("=") != np.dtype(spec.dtype) or part.shape != shape:
        raise InputError(
            f"a block of {spec.path or 'the image'} has dtype {part.dtype} and shape {part.shape}, but its array "
            f"declares {spec.dtype} and {shape}; correct the dtype or meta of the array",
            code="block-mismatch",
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
