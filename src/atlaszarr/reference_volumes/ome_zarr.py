"""The finest level of an OME-Zarr 0.4, 0.5 or 0.6, lazy, with what its metadata says of its axes.

Through zarr-python, which reaches any fsspec URL and whose arrays pickle; ngff-zarr's own reader does neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..engine.absent_chunks import AbsentChunks
from ..engine.inputs import absent_of, readable
from ..engine.ome_reader import attributes_of
from ..engine.zarr_reader import ChunkedArray, layout_at
from ..errors import InputError
from ..stores.failures import reading
from ..stores.locations import is_url, normalize_folder
from ..stores.target import Target
from .header import MICRONS, Header


def is_ome_zarr(uri: str) -> bool:
    """Whether a path or URL is named as a zarr folder is."""
    return uri.partition("?")[0].rstrip("/").endswith(".zarr")


def open_ome_zarr(uri: str, storage_options: Mapping[str, Any], name: str) -> tuple[Any, Header, AbsentChunks | None]:
    """The lazy array (z, y, x) of the finest level, what is said of it, and the chunks that it lacks if that is known.

    Raises
    ------
    InputError
        If it is no OME-Zarr, or not of a 3-D volume.
    SourceError
        If it cannot be read.
    TargetError
        If it lacks a chunk that its ledger records.
    """
    import dask.array as da
    import numpy as np
    import zarr

    place = normalize_folder(uri)
    if storage_options and not is_url(place):
        raise InputError(f"storage option {next(iter(storage_options))!r} is not supported for the path {name}")
    options = dict(storage_options) or None
    with reading(name):
        try:
            target = None
            if place.startswith(("http://", "https://")) and "?" not in place:
                # Without zarr, which fails where a public bucket forbids to read a key that is absent.
                attributes = attributes_of(Target.of(place, options))
                target = Target.of(place, options).public()
            else:
                attributes = zarr.open_group(place, mode="r", storage_options=options).attrs.asdict()
            multiscales = attributes.get("ome", attributes)["multiscales"][0]
            level = multiscales["datasets"][0]
            axes = multiscales["axes"] if "axes" in multiscales else multiscales["coordinateSystems"][0]["axes"]
            dims = [str(axis["name"]) for axis in axes]
            steps = [*level["coordinateTransformations"], *multiscales.get("coordinateTransformations", ())]
            scale = _scale(steps, len(dims))
            read = None if target is None else _over_http(target, str(level["path"]))
            if read is None:
                read = readable(zarr.open_array(f"{place}/{level['path']}", mode="r", storage_options=options))
            absent = absent_of(read)
            chunked = isinstance(read, ChunkedArray)
            array = da.from_array(read, chunks=read.chunk, name=False) if chunked else da.from_zarr(read)
        except InputError:
            raise
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, FileNotFoundError) as error:
            # An unfinished target of atlaszarr is one of these: it has no OME-Zarr metadata yet.
            raise InputError(f"{name} does not open as an OME-Zarr image ({type(error).__name__})") from None
    if sorted(axis for axis in dims if axis in "zyx") != ["x", "y", "z"] or array.ndim != len(dims):
        raise InputError(f"{name} has the axes {', '.join(dims)}; give a volume with z, y and x")
    if several := [axis for axis, n in zip(dims, array.shape, strict=True) if axis not in "zyx" and n != 1]:
        n = array.shape[dims.index(several[0])]
        raise InputError(f"{name} has {n} entries along {several[0]}; give a 3-D volume")
    array = array[tuple(slice(None) if axis in "zyx" else 0 for axis in dims)]
    left = [axis for axis in dims if axis in "zyx"]
    described = {axis: axes[dims.index(axis)] for axis in "zyx"}
    microns = [MICRONS.get(str(one.get("unit")).lower()) for one in described.values()]
    spacing = tuple(
        float(f"{scale[dims.index(axis)] * micron:.9g}")
        for axis, micron in zip("zyx", microns, strict=True)
        if micron is not None
    )
    words = [str((one.get("orientation") or {}).get("value", "")) for one in described.values()]
    oriented = all("-to-" in word for word in words)
    header = Header(
        name,
        tuple(int(array.shape[left.index(axis)]) for axis in "zyx"),
        np.dtype(array.dtype),
        fastest_first=False,
        spacing=(spacing[0], spacing[1], spacing[2]) if len(spacing) == 3 else None,
        origin="".join(word[0] for word in words) if oriented else None,
        remarks=_remarks(steps, [dims.index(axis) for axis in "zyx"], microns, spacing, name),
        doubt="its axes have no unit of length" if oriented else "its axes have no RFC-4 orientations",
    )
    if absent is not None:
        absent.list()
    return array.transpose([left.index(axis) for axis in "zyx"]), header, absent


def _over_http(target: Target, path: str) -> ChunkedArray | None:
    """An array in codecs that are known here; else None."""
    place = replace(target, url=f"{target.url}/{path}")
    layout = layout_at(place)
    return None if layout is None or layout.codecs is None else ChunkedArray(place, layout)


def _scale(steps: list[Any], count: int) -> list[float]:
    """The scales of a level's transformations, one after another; those of 0.6 lie in a sequence."""
    flat = [step for outer in steps for step in outer.get("transformations", [outer])]
    scales = [step["scale"] for step in flat if step["type"] == "scale"]
    return [math.prod(float(scale[axis]) for scale in scales) for axis in range(count)]


def _remarks(
    steps: list[Any], axes: list[int], microns: list[float | None], spacing: tuple[float, ...], name: str
) -> tuple[str, ...]:
    """That a volume lies elsewhere than a volume of a space does, if it says so."""
    if len(spacing) < len(axes):
        return ()
    flat = [step for outer in steps for step in outer.get("transformations", [outer])]
    moved = [step["translation"] for step in flat if step["type"] == "translation"]
    first = [sum(float(one[axis]) for one in moved) * (micron or 0) for axis, micron in zip(axes, microns, strict=True)]
    # The centre of its first voxel: by its own anchor, or by that of the finest volume of its space.
    if all(-size / 2 < at <= size / 2 for at, size in zip(first, spacing, strict=True)):
        return ()
    place = ", ".join(f"{at:g}" for at in first)
    return (f"the first voxel of {name} lies at {place} um by its metadata; it is taken for the first of the space",)
