"""The finest level of an OME-Zarr, as ngff-zarr reads it: lazy, with what its metadata says of its axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..source_files import local_path, reading
from .header import MICRONS, Header


def is_ome_zarr(uri: str) -> bool:
    """Whether a path or URL is named as a zarr folder is."""
    return uri.partition("?")[0].rstrip("/").endswith(".zarr")


def open_ome_zarr(uri: str, storage_options: Mapping[str, Any], name: str) -> tuple[Any, Header]:
    """The lazy array of the finest level, and what is said of it.

    Raises
    ------
    InputError
        If it is no OME-Zarr, or not of a 3-D volume.
    SourceError
        If it cannot be read.
    """
    import dask.array as da
    import numpy as np
    import zarr
    from ngff_zarr import from_ngff_zarr

    options = dict(storage_options) or None
    place = str(local_path(uri) or uri.rstrip("/"))
    with reading(name):
        try:
            multiscales = from_ngff_zarr(place, storage_options=options)
            image = multiscales.images[0]
            level = multiscales.metadata.datasets[0].path
            # ngff-zarr's own array may be over a reader that does not pickle.
            found = zarr.open_array(f"{place}/{level}", mode="r", storage_options=options)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, FileNotFoundError) as error:
            # An unfinished target of atlaszarr is one of these: it has no OME-Zarr metadata yet.
            raise InputError(f"{name} does not open as an OME-Zarr image ({type(error).__name__})") from None
    array = da.from_zarr(found)
    dims = list(image.dims)
    for axis in [axis for axis in dims if axis not in "zyx"]:
        if array.shape[dims.index(axis)] != 1:
            raise InputError(f"{name} has {array.shape[dims.index(axis)]} entries along {axis}; give a 3-D volume")
        array = array[(slice(None),) * dims.index(axis) + (0,)]
        dims.remove(axis)
    if sorted(dims) != ["x", "y", "z"]:
        raise InputError(f"{name} has the axes {', '.join(image.dims)}; give a volume with z, y and x")
    array = array.transpose([dims.index(axis) for axis in "zyx"])
    units = {MICRONS.get(str((image.axes_units or {}).get(axis, "")).lower()) for axis in "zyx"}
    micron = units.pop() if len(units) == 1 else None
    spacing = None
    if micron is not None:
        z, y, x = (float(f"{image.scale[axis] * micron:.9g}") for axis in "zyx")
        spacing = (z, y, x)
    orientations = getattr(image, "axes_orientations", None) or {}
    words = [str(getattr(orientations[axis].value, "value", "")) for axis in "zyx" if axis in orientations]
    origin = "".join(word[0] for word in words) if len(words) == 3 and all("-to-" in word for word in words) else None
    header = Header(
        name,
        tuple(map(int, array.shape)),
        np.dtype(array.dtype),
        fastest_first=False,
        spacing=spacing,
        origin=origin,
        doubt="its metadata has no RFC-4 orientations" if origin is None else "its axes have no unit of length",
    )
    return array, header
