"""Open the image that a user passes: its lazy array, axes, geometry, and the stores that it reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AtlaszarrError, InputError, TargetError, reason_of
from ..stores.locations import shown
from ..stores.target import Target
from .absent_chunks import AbsentChunks
from .array_layout import ArrayLayout
from .ome import Geometry, microns_in
from .selections import Selection, StoredPart, index_of, source_of
from .zarr_reader import StoredArray, read_document, target_of

#: Limits of the search for stores: tasks of a dask layer, and levels of nested objects.
_TASKS = 1000
_DEPTH = 6

_AXES = (("z", "y", "x"), ("c", "z", "y", "x"), ("y", "x"), ("c", "y", "x"))
#: Prefix of the names of dask arrays that `opened` makes of a zarr array of another axis order.
_ORDERED = "ordered"
#: The name of each unit in OME-Zarr, by its length in micrometres.
_NAMES = {microns_in(name): name for name in ("meter", "centimeter", "millimeter", "micrometer", "nanometer")}


def opened(image: Any) -> tuple[Any, tuple[str, ...], Geometry]:
    """The array of an image, its axes, and its geometry.

    Parameters
    ----------
    image : path or URL of a zarr array; zarr, dask or numpy array, or anything that dask accepts as one;
        xarray.DataArray or NgffImage

    Returns
    -------
    array : StoredArray, StoredPart, zarr, numpy or dask array
        See `readable`.
    axes : tuple of str
        Of the array: those of the image in the order c, z, y, x, without others.
    geometry : Geometry

    Raises
    ------
    InputError
        If the axes are not y, x, optionally with z and c, in any order, another axis is longer than 1, the image is
        masked, its grid is not regular, or a path or URL has no zarr array.
    """
    dims = getattr(image, "dims", None)
    array = readable(image if dims is None else image.data)
    axes = tuple(map(str, dims)) if dims is not None else ("c", "z", "y", "x")[-array.ndim :]
    if dims is not None and len(axes) == array.ndim and axes not in _AXES:
        array, axes = _ordered(array, axes)
    if len(axes) != array.ndim or axes not in _AXES:
        given = f"axes {dims}" if dims else f"the axes of an array of shape {array.shape}"
        raise InputError(f"{given} must be z, y, x or y, x, after c if there are channels", code="wrong-axes")
    if any(np.isnan(n) for n in array.shape):
        raise InputError(
            f"shape {array.shape} is not known before it is computed; call compute_chunk_sizes() first",
            code="unknown-shape",
        )
    if isinstance(getattr(array, "_meta", array), np.ma.MaskedArray):
        raise InputError(
            "the image is masked; fill it first, and pass the mask as a label if you need it", code="masked-image"
        )
    if hasattr(image, "coords"):
        return array, axes, geometry_of(image)
    if hasattr(image, "scale") and dims is not None:
        orientation = getattr(image, "axes_orientations", None) or {}
        named = {axis: str(getattr(item.value, "value", item.value)) for axis, item in orientation.items()}
        unit = _unit(getattr(image, "axes_units", None) or {})
        return array, axes, Geometry(_spatial(image.scale, 1.0), _spatial(image.translation, 0.0), unit, named)
    return array, axes, Geometry((1.0, 1.0, 1.0), unit=None)


def _ordered(array: Any, axes: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """An array and its axes in the order c, z, y, x, lazily, without other axes of length 1."""
    order = tuple(axis for axis in "czyx" if axis in axes)
    others = [axis for axis, n in zip(axes, array.shape, strict=True) if axis not in order and n != 1]
    if others or order not in _AXES or len(set(axes)) != len(axes):
        return array, axes
    if isinstance(array, StoredArray | StoredPart) or _is_zarr(array):
        import dask.array as da

        name = f"{_ORDERED}-{hashlib.blake2b(identity_of(array).encode(), digest_size=16).hexdigest()}"
        array = da.from_array(array, chunks=getattr(array, "chunk", None) or array.chunks, name=name)
    array = array[tuple(slice(None) if axis in order else 0 for axis in axes)]
    left = [axis for axis in axes if axis in order]
    return array.transpose([left.index(axis) for axis in order]), order


def readable(data: Any) -> Any:
    """What reads regions of an array fastest.

    A `StoredArray` for a zarr array, a `StoredPart` for slices of one, a NumPy array as it is, else a dask array.
    """
    if isinstance(data, str | os.PathLike):
        data = _at(data)
    if isinstance(data, np.ndarray | StoredArray):
        return data
    if _is_zarr(data):
        return StoredArray.of(data) or _absolute(data)
    import dask.array as da

    try:
        array = da.asarray(data)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise InputError(f"the image is not an array that dask accepts: {error}", code="wrong-type") from None
    if (selection := Selection.of(array)) is None:
        return array
    if isinstance(selection.source, np.ndarray):
        return selection.source[tuple(map(index_of, selection.at))]
    stored = _stored(selection.source)
    if stored is None or selection.at == tuple(map(range, stored.shape)):
        return stored or array
    return StoredPart(stored, selection.at)


def _at(location: str | os.PathLike[str]) -> Any:
    """The zarr array at a path or URL: a `StoredArray`, or a ``zarr.Array`` if only that reads its chunks alone."""
    target = Target.of(location)
    public = target.public()  # a public bucket may forbid (403) to read the document that does not exist
    kind = _kind(public)
    if kind == "group":
        example = f", such as {target.url}/0" if _kind(public, "0/") == "array" else ""
        raise InputError(
            f"{target.url} is a group of zarr arrays; give the path of one of them{example}", code="not-an-array"
        )
    if kind is None:
        target.read("zarr.json")  # raises an error if it is forbidden
        raise InputError(
            f"{target.url} is not a zarr array; give the path or URL of one, or an array", code="array-not-found"
        )
    stored = StoredArray.at(public)
    if stored.is_read_by_chunk:
        return stored
    try:
        return _by_zarr(public, stored.layout.zarr_format)
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{target.url} is damaged or has a codec that is not installed ({reason_of(error)})",
            code="damaged-metadata",
        ) from None


def _by_zarr(target: Target, zarr_format: int, given: str = "") -> Any:
    """A ``zarr.Array`` that reads the array in a target."""
    import zarr

    from .zarr_store import TargetStore

    return zarr.open_array(TargetStore(target, given), mode="r", zarr_format=2 if zarr_format == 2 else 3)


def _absolute(array: Any) -> Any:
    """A ``zarr.Array`` that is the same in a process with another working folder."""
    target = target_of(array)
    if target is None or target == target.absolute():
        return array
    return _by_zarr(target.absolute(), array.metadata.zarr_format, target.url)


def _kind(target: Target, folder: str = "") -> str | None:
    """``array`` or ``group``, by the zarr metadata in a folder of a target; None if it has none."""
    for name, kind in (("zarr.json", "array"), (".zgroup", "group"), (".zarray", "array")):
        if (document := read_document(target, folder + name)) is not None:
            return "group" if document.get("node_type") == "group" else kind
    return None


def _stored(source: Any) -> StoredArray | None:
    """The `StoredArray` that reads an array; None if there is none."""
    if isinstance(source, StoredArray):
        return source
    return StoredArray.of(source) if _is_zarr(source) else None


def read_directly(array: Any) -> Any:
    """A dask array whose graph reads zarr arrays by `StoredArray`, which is faster, where that is possible."""
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    layers = dict(array.dask.layers)
    for name in array.dask.layers:
        key = f"original-{name}"
        source = source_of(layers, name) if key in layers else None
        read = _stored(source)
        if read is None and _is_zarr(source):
            read = _absolute(source)
        if read is not None:
            layers[key] = MaterializedLayer({key: read})
    return da.Array(HighLevelGraph(layers, array.dask.dependencies), array.name, array.chunks, meta=array._meta)


def _is_zarr(data: Any) -> bool:
    # By name, since importing zarr takes a while.
    return type(data).__module__.startswith("zarr.") and type(data).__name__ == "Array"


def part_of(array: Any, index: Any) -> NDArray[Any]:
    """Read a part of an array of `opened` that is not a dask array.

    Raises
    ------
    TargetError
        If a chunk of a zarr array cannot be read.
    """
    try:
        return np.asarray(array[index])
    except (AtlaszarrError, MemoryError):
        raise
    except Exception as error:
        if not _is_zarr(array):
            raise
        where = ", ".join(map(shown, sorted(locations_read(array))))
        raise TargetError(
            f"zarr-python cannot read a chunk of {where} ({reason_of(error)}); build or fetch it again",
            code="damaged-chunk",
        ) from error


def _reordered(array: Any) -> Any:
    """The zarr array that `opened` put into another axis order; None for any other dask array."""
    layers = (layer for name, layer in array.dask.layers.items() if name.startswith(f"original-{_ORDERED}-"))
    return next((getattr(held, "value", held) for layer in layers for held in layer.values()), None)


def is_computed(array: Any) -> bool:
    """Whether chunks of an array are computed: not only read, and not in memory, of this process or of a cluster."""
    if not hasattr(array, "__dask_graph__") or Selection.of(array) is not None:
        return False
    from dask.highlevelgraph import MaterializedLayer

    layers = array.dask.layers.values()
    if not all(isinstance(layer, MaterializedLayer) for layer in layers):
        return True
    held = (getattr(value, "value", value) for layer in layers for value in layer.values())
    return not all(isinstance(value, np.ndarray) or type(value).__name__ == "Future" for value in held)


def geometry_of(image: Any) -> Geometry:
    """The geometry of an xarray.DataArray or Dataset, from its one-dimensional coordinates z, y and x.

    Raises
    ------
    InputError
        If a coordinate is not a regular, increasing grid, or the units differ.
    """
    scale, translation, units = {}, {}, {}
    along = {axis: image.coords[axis] for axis in "zyx" if axis in image.coords and image.coords[axis].dims == (axis,)}
    for axis, coordinate in along.items():
        if coordinate.dtype.kind not in "iuf":
            raise InputError(
                f"coordinates along {axis} must be numbers, not {coordinate.dtype}", code="invalid-coordinates"
            )
        values = coordinate.to_numpy()
        if values.size == 1 and coordinate.attrs.get("units"):
            raise InputError(
                f"a single coordinate along {axis} has no step; drop it, or pass more of the image", code="missing-step"
            )
        if not values.size:
            raise InputError(f"the image has no voxels along {axis}; select at least one", code="out-of-range")
        at, single = values.astype(np.float64), values.dtype == np.float32
        steps, rounding = np.diff(at), np.spacing(np.abs(values).max()) if single else 0
        if steps.size and not (steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=2 * rounding)):
            raise InputError(
                f"coordinates along {axis} must increase by a constant step; resample the image to a regular grid",
                code="irregular-grid",
            )
        scale[axis] = float(f"{steps.mean():.{6 if single else 12}g}") if steps.size else 1.0
        translation[axis] = float(at[0])
        units[axis] = coordinate.attrs.get("units")
    return Geometry(_spatial(scale, 1.0), _spatial(translation, 0.0), _unit(units))


def _unit(units: Mapping[str, str | None]) -> str | None:
    """The common unit of the axes, as OME-Zarr spells it."""
    given = (str(unit) for axis, unit in units.items() if axis in "zyx" and unit)
    names = {_NAMES.get(microns_in(unit), unit) for unit in given}
    if len(names) > 1:
        raise InputError(
            f"axes have different units, {', '.join(sorted(names))}; convert them to one", code="different-units"
        )
    return next(iter(names), None)


def _spatial(lengths: Mapping[str, float], default: float) -> tuple[float, float, float]:
    z, y, x = (float(lengths[axis]) if axis in lengths else default for axis in "zyx")
    return z, y, x


def locations_read(array: Any) -> set[str]:
    """Paths or URLs of the zarr stores that an array reads; for a dask array, those of its first tasks."""
    if not hasattr(array, "__dask_graph__"):
        array = array.stored if isinstance(array, StoredPart) else array
        return {array.target.url} if isinstance(array, StoredArray) else set(_locations(array, _DEPTH))
    graph = array.__dask_graph__()
    layers = getattr(graph, "layers", {"": graph}).values()
    tasks = (task for layer in layers for task in islice(layer.values(), _TASKS))
    return {location for task in tasks for location in _locations(task, _DEPTH)}


def identity_of(array: Any) -> str:
    """Identify an array of `opened`: equal arrays have the same text in every process, and different ones do not.

    For a zarr array on a local disk: its path, and a digest of the sizes and modification times of its files. A change
    that keeps the size of a file, within one tick of the file system's clock, goes unnoticed. For one that is given by
    its URL: the URL and the metadata. For any other array: the token of dask, and the same digest of each local zarr
    array that it reads.
    """
    if isinstance(array, StoredArray):
        url = array.target.url
        return _files(array.given or url) if array.target.is_local else _metadata(array.layout, url)
    if isinstance(array, StoredPart):
        return f"{identity_of(array.stored)}, {', '.join(map(str, array.at))}"
    if _is_zarr(array) and (target := target_of(array)) is not None:
        if target.is_local:
            return _files(getattr(array.store, "given", "") or target.url)
        if hasattr(array.store, "target"):  # given by its URL
            return _metadata(ArrayLayout.of(array.metadata.to_dict()), target.url)
    import dask

    names = ("zarr.json", ".zarray", ".zgroup")
    folders = (path for path in locations_read(array) if any(Path(path, name).is_file() for name in names))
    read = map(_files, sorted(folders))
    return "; ".join((str(dask.base.tokenize(array)), *read))


def held_by(array: Any) -> dict[Any, Any]:
    """The tasks of a dask array that are futures of `distributed`, as after ``persist()``, by key."""
    from dask.highlevelgraph import MaterializedLayer

    layers = [layer for layer in array.dask.layers.values() if isinstance(layer, MaterializedLayer)]
    tasks = ((key, getattr(task, "value", task)) for layer in layers for key, task in layer.items())
    return {key: task for key, task in tasks if is_future(task)}


def validate_held(arrays: Iterable[Any], scheduler: Any) -> None:
    """Refuse arrays that another client than the scheduler's has persisted: only that client has their values.

    Raises
    ------
    InputError
        If `scheduler`, a result of `resolve_scheduler`, cannot use them.
    """
    if scheduler == "threads":
        return
    for array in arrays:
        for future in held_by(array).values() if hasattr(array, "__dask_graph__") else ():
            if future.client is not scheduler:
                raise InputError(
                    f"the image is persisted on {future.client.scheduler.address} by a distributed.Client; give that "
                    "client as scheduler, or 'threads'",
                    code="persisted-array",
                )


def is_future(value: Any) -> bool:
    """Whether a value is a future of `distributed`."""
    return type(value).__module__.startswith("distributed.") and hasattr(value, "key")


def absent_of(array: Any) -> AbsentChunks | None:
    """The absent chunks of an array of `opened`; None if it is not a zarr array in a store that `Target` reads."""
    if isinstance(array, StoredArray | StoredPart):
        return array.absent
    read = array
    if hasattr(array, "__dask_graph__"):
        selection = Selection.of(array)
        read = _reordered(array) if selection is None else selection.source
    if isinstance(read, StoredArray):
        return read.absent
    folder, node = (getattr(read, name, None) for name in ("store_path", "node_path"))
    target = target_of(read) if _is_zarr(read) else None
    if isinstance(folder, PurePath):  # of ngff-zarr
        target = Target(str(folder / (node or "")))
    with suppress(InputError):  # its chunks are not regular, or its dtype is not numeric
        return None if target is None else StoredArray.at(target).absent
    return None


def _metadata(layout: ArrayLayout, url: str) -> str:
    # Spelled out, since targets record it: it must not change with the attributes of `ArrayLayout`.
    lengths = f"shape {layout.shape}, chunks {layout.chunk}, objects {layout.unit}"
    return f"{layout.stored} of {lengths}, fill value {layout.fill}, zarr format {layout.zarr_format} of {url}"


def _files(folder: str) -> str:
    known = hashlib.blake2b(digest_size=16)
    with Target(folder).reporting("read"):
        for path, _, names in sorted(os.walk(folder)):
            # As text: objects of `pathlib` take three times as long.
            below = path[len(folder) :].lstrip(os.sep)
            for name in sorted(names):
                status = os.stat(f"{path}/{name}")  # noqa: PTH116
                line = f"{below}{os.sep}{name} {status.st_size} {status.st_mtime_ns}\n"
                known.update(line.lstrip(os.sep).encode(errors="surrogateescape"))
    return f"files {known.hexdigest()} of {folder}"


def _locations(thing: Any, depth: int) -> Iterator[str]:
    """The locations of paths and zarr stores in an object and in the objects that it holds."""
    name, path = type(thing).__name__, getattr(thing, "root", None) or getattr(thing, "path", None)
    if isinstance(thing, PurePath):
        yield thing.as_posix()
    elif isinstance(thing, Target):
        yield thing.url
    elif name == "StorePath":
        yield from (f"{location}/{path or ''}".rstrip("/") for location in _locations(thing.store, depth))
    elif path is not None and "store" in name.lower():
        yield _unstripped(thing.fs, str(path)) if hasattr(thing, "fs") else str(path)
    elif type(thing).__module__.startswith("obstore.") and (prefix := getattr(thing, "prefix", None)) is not None:
        bucket = getattr(thing, "config", {}).get("bucket")
        yield str(prefix) if bucket is None else f"{name.removesuffix('Store').lower()}://{bucket}/{prefix}"
    elif depth:
        for inner in _held(thing):
            yield from _locations(inner, depth - 1)


def _unstripped(filesystem: Any, path: str) -> str:
    """The URL of a path in an fsspec filesystem, which may wrap another."""
    while (inner := getattr(filesystem, "sync_fs", None) or getattr(filesystem, "fs", None)) is not None:
        if type(filesystem).__name__ == "DirFileSystem":
            path = f"{filesystem.path}/{path}"
        filesystem = inner
    return str(filesystem.unstrip_protocol(path)).removeprefix("file://")


def _held(thing: Any) -> list[Any]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple):
        return list(thing[:_TASKS])
    attributes = "args kwargs value array _array store storage _async_array store_path target"
    return [inner for name in attributes.split() if (inner := getattr(thing, name, None)) is not None]
