"""The finest level of an OME-Zarr as a lazy volume, with a header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..engine.absent_chunks import AbsentChunks
from ..engine.ome_reader import StoredImage
from ..geometry.spaces import direction
from ..stores.locations import local_path
from ..stores.target import Target
from .header import Header

if TYPE_CHECKING:
    import dask.array as da

#: How the names of files end that are volumes of other formats, also within a folder that ends in ``.zarr``.
_FILES = (".nrrd", ".nhdr", ".nii", ".gz", ".mha", ".mhd", ".tif", ".tiff")


def is_ome_zarr(uri: str) -> bool:
    """Whether a path or URL is that of an OME-Zarr, or of a label group or level in one.

    A folder is never a volume of another format. A URL has a part that ends in ``.zarr``, and is not that of a file.
    """
    path = local_path(uri)
    if path is not None and path.exists():
        return path.is_dir()
    parts = uri.partition("?")[0].rstrip("/").lower().split("/")
    return any(part.endswith(".zarr") for part in parts) and not parts[-1].endswith(_FILES)


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
    geometry = image.geometries[0]
    array, absent = image.volume(0)
    words = [direction(geometry.orientation.get(axis, "")) for axis in "zyx"]
    oriented = all("-to-" in word for word in words)
    spacing: tuple[float, float, float] | None = None
    position: tuple[float, float, float] | None = None
    if (micron := geometry.micron) is not None:
        z, y, x = (float(f"{length * micron:.9g}") for length in geometry.scale)
        spacing = z, y, x
        a, b, c = (float(f"{length * micron:.9g}") for length in geometry.translation)
        position = a, b, c
    reasons = []
    if spacing is None:
        reasons.append("it has no size with a unit of length")
    if not oriented:
        reasons.append("its axes have no RFC-4 orientations")
    header = Header(
        name,
        tuple(map(int, array.shape)),
        array.dtype,
        fastest_first=False,
        spacing=spacing,
        origin="".join(word[0] for word in words) if oriented else None,
        reason=" and ".join(reasons),
        position=position,
        numbers=image.numbers,
    )
    absent.list()
    return array, header, absent
