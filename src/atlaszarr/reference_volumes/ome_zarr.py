"""The finest level of an OME-Zarr as a lazy volume, with a header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..engine.absent_chunks import AbsentChunks
from ..engine.ome_reader import StoredImage
from ..errors import InputError
from ..stores.target import Target
from .header import MICRONS, Header

if TYPE_CHECKING:
    import dask.array as da


def is_ome_zarr(uri: str) -> bool:
    """Whether a path or URL ends in ``.zarr``."""
    return uri.partition("?")[0].rstrip("/").endswith(".zarr")


def open_ome_zarr(uri: str, storage_options: Mapping[str, Any], name: str) -> tuple[da.Array, Header, AbsentChunks]:
    """Open the finest level.

    Returns
    -------
    array : dask array
        Axes (z, y, x).
    header : Header
    absent : AbsentChunks
        The chunks that the array lacks.

    Raises
    ------
    InputError
        If it is not an OME-Zarr of a 3-D volume, or has a transformation that is not supported.
    TargetError
        If it cannot be read, or lacks a chunk that its ledger records.
    """
    image = StoredImage.at(Target.of(uri, storage_options))
    names = image.names
    if sorted(axis for axis in names if axis in "zyx") != ["x", "y", "z"]:
        raise InputError(f"{name} has the axes {', '.join(names)}; give a volume with z, y and x", code="missing-axis")
    array, absent = image.lazy(0)
    for axis, n in zip(names, array.shape, strict=True):
        if axis not in "zyx" and n != 1:
            raise InputError(f"{name} has {n} entries along {axis}; give a 3-D volume", code="wrong-dimensions")
    array = array[tuple(slice(None) if axis in "zyx" else 0 for axis in names)]
    left = [axis for axis in names if axis in "zyx"]
    array = array.transpose([left.index(axis) for axis in "zyx"])
    spatial = [names.index(axis) for axis in "zyx"]
    axes = [image.axes[k] for k in spatial]
    microns = [micron for axis in axes if (micron := MICRONS.get(str(axis.unit).lower())) is not None]
    words = [axis.orientation or "" for axis in axes]
    oriented = all("-to-" in word for word in words)
    spacing: tuple[float, float, float] | None = None
    position: tuple[float, float, float] | None = None
    numbers = ""
    if len(microns) == len(axes):
        z, y, x = (float(f"{image.scales[0][k] * micron:.9g}") for k, micron in zip(spatial, microns, strict=True))
        spacing = z, y, x
        z, y, x = (
            float(f"{image.translations[0][k] * micron:.9g}") for k, micron in zip(spatial, microns, strict=True)
        )
        position = z, y, x
        sizes, first = ([f"{values[0][k]:g}" for k in spatial] for values in (image.scales, image.translations))
        numbers = f"scale {' x '.join(sizes)} ({axes[0].unit}), translation {', '.join(first)}"
    header = Header(
        name,
        tuple(map(int, array.shape)),
        array.dtype,
        fastest_first=False,
        spacing=spacing,
        origin="".join(word[0] for word in words) if oriented else None,
        position=position,
        numbers=numbers,
        reason="its axes have no unit of length" if oriented else "its axes have no RFC-4 orientations",
    )
    absent.list()
    return array, header, absent
