"""Displacement fields in files: ``.npy`` as in atldld, and OME-Zarr 0.6 (RFC-5).

An interrupted save leaves nothing that opens as a field: the metadata of an OME-Zarr is written last.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from tokenize import TokenError
from typing import Any, Literal

import numpy as np

from ..engine import ome
from ..engine.array_layout import Encoding
from ..engine.inputs import locations_read
from ..engine.ome_reader import StoredImage
from ..engine.pyramid import Pyramid
from ..errors import AtlaszarrWarning, InputError, brief
from ..stores.failures import reading
from ..stores.input_file import InputFile, cut_short, too_long
from ..stores.local import whole_file
from ..stores.locations import local_path, overlap, shown
from ..stores.target import Target
from .fields import ArrayField, Field, blocks, regular

_VERSION = "0.6"
_SIDE = 512
_CHUNK = (2, _SIDE, _SIDE)
#: Bytes from the beginning of a .npy file that hold its header; NumPy itself refuses one of more than 10,000.
_NPY_HEADER = 2**14
#: The most bytes of a remote .npy file, which is read into memory: a field over 8192 x 8192 pixels in float32.
_LARGEST_NPY = 2**29
_PART = 2**20


def save(field: Field, path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
    """Write a field block by block.

    Parameters
    ----------
    field : Field
    path : str or path-like
        ``.npy`` on a local disk: float32, (rows, columns, 2), delta_x and delta_y, as in atldld. ``.zarr``, a path or
        any URL that fsspec opens: an OME-Zarr 0.6 displacement field in pixels, with array ``0``, float64,
        (2, rows, columns), components along y, then x.
    storage_options : mapping, optional
        Options for fsspec, for a URL.

    Raises
    ------
    InputError
        If the target exists or the field is read from it, the name has another suffix, or an option is not supported.
    TargetError
        If the target cannot be written.
    """
    name = os.fspath(path)
    if name.endswith(".npy"):
        if storage_options:
            raise InputError(
                f"storage option {next(iter(storage_options))!r} is not supported for {name!r}; .npy files are local",
                code="not-supported",
            )
        _save_npy(field, name)
    elif name.rstrip("/").endswith(".zarr"):
        target = Target.of(path, storage_options)
        _refuse_overlap(field, target.url)
        _save_zarr(field, target)
    else:
        raise InputError(f"displacement field {name!r} must end in .npy or .zarr", code="unknown-suffix")


def load(path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> ArrayField:
    """Open a field lazily.

    Parameters
    ----------
    path : str or path-like
        ``.npy`` as `save` writes it, or an OME-Zarr, on a local disk or at any URL that fsspec opens.
    storage_options : mapping, optional
        Options for fsspec, for a URL.

    Returns
    -------
    ArrayField
        Displacements in pixels of the image.

    Raises
    ------
    InputError
        If the file is not a two-dimensional displacement field, or has a transformation that is not supported.
    NotFoundError, SourceError, TargetError
        If the file is missing or cannot be read.

    Notes
    -----
    An OME-Zarr has displacements d along all spatial axes, in their order and unit. Of three axes, one has length 1,
    and its component is left out. Point k of the grid is at q = t + s k, by the scale s and translation t of the field,
    and is mapped to q + d, which is pixel (q + d - t') / s' of the image. The attributes of the group,
    ``{"atlaszarr": {"image": {"scale": [...], "translation": [...]}}}``, give s' and t' along the spatial axes;
    without them, s' = s and t' = t. ``"axes"`` next to them names the axes of the image's rows and columns; if these
    are not in the order of the array, the field is transposed.
    """
    if os.fspath(path).endswith(".npy"):
        return _load_npy(os.fspath(path), storage_options)
    return _load_zarr(Target.of(path, storage_options))


def _save_npy(field: Field, name: str) -> None:
    path = local_path(name)
    if path is None:
        raise InputError(
            f"{shown(name)!r} is a URL, where .npy is not supported; give a local path, or a name that ends in .zarr",
            code="not-supported",
        )
    _refuse_overlap(field, str(path))
    if path.exists():
        raise InputError(f"{name} exists; remove it or choose another name", code="target-exists")
    header = {"descr": "<f4", "fortran_order": False, "shape": (*field.shape, 2)}
    folder = Target.of(path.parent)
    with ExitStack() as opened:
        with folder.reporting("write to"):
            file = opened.enter_context(whole_file(path))
            np.lib.format.write_array_header_1_0(file, header)
        for _, across in groupby(blocks(field.chunks), key=lambda block: block[0][0]):
            parts = [field.displacements(*block) for _, block in across]
            with folder.reporting("write to"):
                file.write(np.moveaxis(np.concatenate(parts, axis=2), 0, 2).astype("<f4").tobytes())
        with folder.reporting("write to"):
            opened.close()


def _refuse_overlap(field: Field, location: str) -> None:
    """Refuse to write a field into its own source."""
    for source in locations_of(field):
        if overlap(source, location):
            raise InputError(
                f"target {location} overlaps {shown(source)}, which the field is read from; choose another target",
                code="target-overlaps-source",
            )


def locations_of(field: Any) -> Iterator[str]:
    """The paths and URLs that a field is read from, as far as they are known."""
    if isinstance(field, ArrayField):
        yield from locations_read(field.first) | locations_read(field.second)
    yield from getattr(field, "locations", ())  # of a refinement
    for inner in (getattr(field, name, None) for name in ("inner", "outer")):
        if inner is not None:
            yield from locations_of(inner)


def _load_npy(name: str, storage_options: Mapping[str, Any] | None) -> ArrayField:
    with InputFile.open(name, storage_options) as file, reading(file.name):
        beginning = file.stream.read(_NPY_HEADER)
        header = io.BytesIO(beginning)
        try:
            version = np.lib.format.read_magic(header)
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise ValueError(f"version {version} is not known")
            # Of 3.0 the header is in UTF-8, which only names of fields need.
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(header)
        except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
            # NumPy evaluates the header by Python's parser, which raises the last four.
            raise InputError(f"{file.name} is not a valid .npy file: {error}", code="damaged-file") from None
        if len(shape) != 3 or shape[2] != 2 or min(shape) < 1 or dtype.kind not in "iuf":
            raise InputError(
                f"{file.name} has dtype {dtype} and shape {shape}; a field has real numbers of shape (rows, columns, "
                "2), delta_x and delta_y",
                code="invalid-array",
            )
        order: Literal["C", "F"] = "F" if is_fortran else "C"
        size, offset = math.prod(shape) * dtype.itemsize, header.tell()
        values: np.ndarray[Any, Any]
        if file.path is not None:
            _check_size(file.name, size, file.path.stat().st_size - offset)
            values = np.memmap(file.path, dtype, "r", offset, shape, order)
        else:
            if size > _LARGEST_NPY:
                raise InputError(
                    f"{file.name} declares {size} bytes, and at most {_LARGEST_NPY} are read into memory; copy it to a "
                    "local disk",
                    code="file-too-large",
                )
            body = bytearray(beginning[offset:])
            while len(body) <= size and (part := file.stream.read(_PART)):
                body += part
            _check_size(file.name, size, len(body))
            values = np.frombuffer(body, dtype).reshape(shape, order=order)
            values.setflags(write=False)
    return ArrayField(np.asarray(values[..., 0]), np.asarray(values[..., 1]), relative=True)


def _check_size(name: str, declared: int, available: int) -> None:
    """Refuse a file that is shorter or longer than its header declares."""
    if available < declared:
        raise cut_short(name, f"{declared} bytes of numbers", available)
    if available > declared:
        raise too_long(name, declared)


def _save_zarr(field: Field, target: Target) -> None:
    if target.list_keys():
        raise InputError(f"{target.url} is not empty; remove it or choose another name", code="target-not-empty")
    layout = Encoding().layout((2, *field.shape), _CHUNK, "float64", fill=np.nan)
    documents = layout.documents(("c", "y", "x"))
    target.write_all((f"0/{name}", body) for name, body in documents.items())
    target.write_all(
        (f"0/{layout.key((0, *index))}", layout.encode(np.asarray(field.displacements(*block)[::-1])))
        for index, block in blocks(regular(field.shape, _SIDE))
    )
    pixels, grid = ome.Geometry((1.0, 1.0, 1.0), unit=None), Pyramid.over((1, *field.shape), _SIDE, levels=1)
    content = ome.displacement_field(_VERSION, "displacement", "cyx", pixels, grid)
    target.write_all(ome.group(_VERSION, ome.attributes(_VERSION, content, {})).items())


def _load_zarr(target: Target) -> ArrayField:
    image = StoredImage.at(target)
    types = [axis.type for axis in image.axes]
    if "displacement" not in types:
        raise InputError(
            f"{target.url} has axes of type {', '.join(map(str, types))}; a displacement field has an axis of type "
            "displacement",
            code="not-a-displacement-field",
        )
    if types != ["displacement", *["space"] * (len(types) - 1)]:
        raise InputError(
            f"{target.url} has axes of type {', '.join(map(str, types))}; a displacement field has components first, "
            "then spatial axes",
            code="wrong-axes",
        )
    if not image.is_scaled:
        raise InputError(f"{target.url} has a level without a scale; write it with one", code="missing-scale")
    if image.is_reordered:
        raise InputError(
            f"{target.url} has a transformation that changes the order of its axes; write the field in the order of "
            "its coordinate system",
            code="wrong-axes",
        )
    grid = list(zip(image.scales[0][1:], image.translations[0][1:], strict=True))
    frame, axes = _image_frame(image)
    array, absent = image.lazy(0)
    if array.shape[0] != len(grid) or len(grid) != len(frame):
        raise InputError(
            f"{target.url} has shape {array.shape}; a displacement field needs a component for each spatial axis",
            code="shape-mismatch",
        )
    field = _in_pixels(target, array, grid, frame, sorted(axes))
    absent.list()
    if (text := absent.remark()) is not None:
        warnings.warn(text, AtlaszarrWarning, stacklevel=4)  # at the call of Displacement.load
    if len(axes) == 2 and axes[0] > axes[1]:
        return ArrayField(field.second.T, field.first.T, relative=True)
    return field


def _image_frame(image: StoredImage) -> tuple[list[tuple[float, float]], list[int]]:
    """Scale and translation of the image along the spatial axes, and the axes of its rows and columns.

    The default is the scale and translation of the field, without axes.
    """
    names = image.names[1:]
    given = image.own.get("image") or {"scale": image.scales[0][1:], "translation": image.translations[0][1:]}
    try:
        steps = [(float(s), float(t)) for s, t in zip(given["scale"], given["translation"], strict=True)]
        down, across = given.get("axes") or ("", "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{image.target.url} has damaged attributes of its image ({brief(error)}); write it again",
            code="damaged-metadata",
        ) from None
    if not all(0 < step < math.inf and math.isfinite(start) for step, start in steps):
        raise InputError(
            f"{image.target.url} has an image with scale {given['scale']} and translation {given['translation']}; "
            "they must be finite, and the scale positive",
            code="damaged-metadata",
        )
    return steps, [names.index(name) for name in (down, across) if name in names]


def _in_pixels(
    target: Target,
    whole: Any,
    grid: list[tuple[float, float]],
    frame: list[tuple[float, float]],
    axes: list[int],
) -> ArrayField:
    """Displacements in pixels along the axes of the image if they are recorded, otherwise along the two long axes."""
    import dask.array as da

    lengths = whole.shape[1:]
    long = [axis for axis, n in enumerate(lengths) if n > 1 or len(lengths) == 2]
    if len(set(axes)) == 2 and set(long) <= set(axes):
        long = axes  # either may have a single pixel
    if len(long) != 2:
        raise InputError(
            f"{target.url} has a grid of shape {lengths}; a displacement field of a section has two axes longer than 1",
            code="shape-mismatch",
        )
    parts = []
    for position, axis in enumerate(long):
        part = whole[(axis, *(slice(None) if k in long else 0 for k in range(len(lengths))))].astype("float64")
        (s, t), (image_s, image_t) = grid[axis], frame[axis]
        part = part / image_s
        if grid[axis] != frame[axis]:
            k = da.arange(lengths[axis], chunks=part.chunks[position], dtype="float64")
            shift = (s / image_s - 1) * k + (t - image_t) / image_s
            part = part + (shift[:, np.newaxis] if position == 0 else shift)
        parts.append(part)
    return ArrayField(parts[1], parts[0], relative=True)
