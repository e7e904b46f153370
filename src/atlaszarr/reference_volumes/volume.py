"""`open_annotation` and `open_template`: a reference volume from any file as a lazy array, validated, in one frame."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine.absent_chunks import AbsentChunks
from ..errors import InputError
from ..geometry.spaces import reference_space
from ..stores.locations import shown
from ..stores.temporary import temporary_folder
from .header import Header
from .labels import as_labels, distinct
from .ome_zarr import is_ome_zarr, open_ome_zarr
from .open_file import VolumeFile, open_volume_file
from .orientation import ORIGIN, Orientation, sides_remark
from .voxels import spool_error

if TYPE_CHECKING:
    import dask.array as da


@dataclass(frozen=True)
class ReferenceVolume:
    """A volume of an atlas: an annotation or a template.

    Attributes
    ----------
    array : dask array
        Axes (z, y, x) = (p, i, r). Other processes of the same machine can unpickle it.
    voxel_size : tuple of float
        Along (z, y, x), in um.
    uri : str
        The path or URL, without parameters and passwords.
    orientation : Orientation
        How the axes of the file become (z, y, x).
    size : int or None
        Size of the file in bytes; None for an OME-Zarr.
    sha256 : str or None
        Digest of the file (hexadecimal); None if the file was not read as a whole.
    remarks : tuple of str
        Warnings for the user.
    labels : ndarray or None
        The labels that occur, sorted, without 0, uint32; None unless an annotation was read as a whole.
    absent : AbsentChunks or None
        The chunks that an OME-Zarr lacks; None for other files.
    """

    array: da.Array
    voxel_size: tuple[float, float, float]
    uri: str
    orientation: Orientation
    size: int | None = None
    sha256: str | None = None
    remarks: tuple[str, ...] = ()
    labels: NDArray[np.uint32] | None = None
    absent: AbsentChunks | None = None

    @property
    def all_remarks(self) -> tuple[str, ...]:
        """`remarks`, and one on the absent chunks: on a web server, which lists nothing, on those that were read."""
        absent = self.absent and self.absent.remark(f"level 0 of {self.uri}")
        return (*self.remarks, absent) if absent else self.remarks

    def identity(self) -> dict[str, Any]:
        """What identifies the volume wherever its file lies, in JSON's types.

        It is the digest of the file with the orientation, or of the voxels if the file was not read as a whole.
        """
        if self.sha256 is not None:
            return {"sha256": self.sha256, "orientation": asdict(self.orientation)}
        voxels = hashlib.blake2b(digest_size=16)
        for block in self._blocks():
            voxels.update(np.ascontiguousarray(block).data)
        return {"voxels": voxels.hexdigest(), "blocks": [list(lengths) for lengths in self.array.chunks]}

    def find_labels(self) -> NDArray[np.uint32]:
        """The labels that occur, sorted, without 0: `labels`, or those of one pass over the array, chunk by chunk.

        Raises
        ------
        InputError
            If a value is not a label; see `open_annotation`.
        """
        if self.labels is not None:
            return self.labels
        labels = np.empty(0, np.uint32)
        for block in self._blocks():
            labels = np.union1d(labels, distinct(block))
        return labels

    def _blocks(self) -> Iterator[NDArray[Any]]:
        """The chunks of the array, computed one after the other."""
        for index in np.ndindex(*self.array.numblocks):
            yield self.array.blocks[index].compute()


@contextmanager
def open_annotation(
    uri: str | os.PathLike[str],
    spool_folder: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    orientation: str | None = None,
    voxel_size: float | Sequence[float] | None = None,
    origin: str = ORIGIN,
) -> Iterator[ReferenceVolume]:
    """Open an annotation: labels as uint32, each the id of a structure or 0.

    A file that can only be read from its beginning (compressed, or not on a local disk) is read once, here: its labels
    are validated and stored in a new folder in `spool_folder` until the context ends. An OME-Zarr or an uncompressed
    local file is read block by block as the array is computed, and its labels are validated then.

    Parameters
    ----------
    uri : str or path-like
        A local path, or any URL that fsspec opens, of an NRRD, NIfTI or MetaImage (each may be compressed, and have
        its voxels in another file of the same folder), a TIFF, or an OME-Zarr (its finest level), or a label group or
        level in one. A folder, or a URL with a part that ends in ``.zarr``, is an OME-Zarr; the other formats are
        recognised by their first bytes.
    spool_folder : str or path-like
        An existing local folder with room for the compressed voxels.
    storage_options : mapping, optional
        Options for fsspec.
    orientation : str, optional
        The sides at which the axes of the file begin, such as ``asl``, see `Orientation.of`; default: by the header.
    voxel_size : float or sequence of 3 floats, optional
        Along (z, y, x) of the result, in um; default: by the header.
    origin : str
        The sides at which z, y and x of the result begin: ``asl``, or ``asr`` for x from right to left, as BrainGlobe
        names it. A volume of the CCF, which is recognised by its extent, is not flipped, since ``asl`` and ``asr``
        are two names of one frame; a remark says so.

    Yields
    ------
    ReferenceVolume
        With a uint32 array.

    Raises
    ------
    InputError
        If the file is empty, cut short, damaged or not a volume; if neither its header nor the caller gives its
        orientation or voxel size; if an OME-Zarr has a transformation that is not supported; if a label is negative,
        fractional, NaN or above 4294967295.
    NotFoundError
        If the file does not exist.
    SourceError
        If the file cannot be read.
    TargetError
        If the voxels cannot be stored in `spool_folder`; if an OME-Zarr cannot be read, or lacks a chunk that its
        ledger records.
    """
    with _open(uri, spool_folder, storage_options, (orientation, voxel_size, origin), annotation=True) as volume:
        yield volume


@contextmanager
def open_template(
    uri: str | os.PathLike[str],
    spool_folder: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    orientation: str | None = None,
    voxel_size: float | Sequence[float] | None = None,
    origin: str = ORIGIN,
) -> Iterator[ReferenceVolume]:
    """Open a template, or any other volume of intensities, in the dtype of its file (float64 if the file scales them).

    Parameters, yields and errors are the same as in `open_annotation`, except for labels.
    """
    with _open(uri, spool_folder, storage_options, (orientation, voxel_size, origin), annotation=False) as volume:
        yield volume


@contextmanager
def _open(
    uri: str | os.PathLike[str],
    spool_folder: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
    given: tuple[str | None, float | Sequence[float] | None, str],
    *,
    annotation: bool,
) -> Iterator[ReferenceVolume]:
    text, options = os.fspath(uri), dict(storage_options or {})
    name = shown(text)
    if is_ome_zarr(text):
        array, header, absent = open_ome_zarr(text, options, name)
        orientation, size, remarks = _frame(header, *given)
        array = orientation.apply(array)
        if annotation:
            array, remarks = _lazy_labels(array, header), remarks + _label_remarks(header)
        yield ReferenceVolume(array, size, name, orientation, remarks=remarks, absent=absent)
        return
    with ExitStack() as stack:

        def make_folder() -> Path:
            return stack.enter_context(_folder_in(spool_folder))

        with open_volume_file(text, options, make_folder) as opened:
            header = opened.header
            orientation, size, remarks = _frame(header, *given)
            labels = None
            if opened.is_mapped:
                array = opened.map(orientation)
                array = _lazy_labels(array, header) if annotation else array
            elif annotation:
                array, labels = _spool_labels(opened, make_folder(), orientation)
            else:
                array = opened.spool(make_folder(), orientation, header.values, header.value_dtype)
            length, digest = opened.size_and_digest()
        if header.data_file is not None:
            remarks += (f"the voxels of {name} are in {opened.file.name}; size and digest are those of that file",)
        if annotation:
            remarks += _label_remarks(header)
        yield ReferenceVolume(array, size, name, orientation, length, digest, remarks, labels)


def _spool_labels(opened: VolumeFile, folder: Path, orientation: Orientation) -> tuple[da.Array, NDArray[np.uint32]]:
    """The spooled array of an annotation, and the labels that occur."""
    found = np.empty(0, np.uint32)

    def convert(stored: NDArray[Any]) -> NDArray[np.uint32]:
        nonlocal found
        labels = as_labels(opened.header.values(stored), opened.header.name)
        found = np.union1d(found, distinct(labels))
        return labels

    array = opened.spool(folder, orientation, convert, np.dtype(np.uint32))
    return array, found


def _lazy_labels(array: Any, header: Header) -> Any:
    """A dask array of labels, which are validated and converted block by block as they are computed."""
    if array.dtype == np.uint32:
        return array
    return array.map_blocks(partial(as_labels, name=header.name), dtype=np.uint32, meta=np.empty((0, 0, 0), np.uint32))


def _label_remarks(header: Header) -> tuple[str, ...]:
    """A remark if labels are not stored as unsigned integers."""
    dtype = header.value_dtype
    if dtype.kind in "bu":
        return ()
    return (f"the labels of {header.name} are {dtype}; they are converted to uint32 if that is exact, else refused",)


def _frame(
    header: Header, orientation: str | None, voxel_size: float | Sequence[float] | None, wanted: str
) -> tuple[Orientation, tuple[float, float, float], tuple[str, ...]]:
    """The orientation, the voxel size along (z, y, x), and remarks: as given, else by the header."""
    name, remarks = header.name, header.remarks
    if header.contradiction:
        if orientation is None or voxel_size is None:
            raise InputError(
                f"the header of {name} contradicts itself: {header.contradiction}; give both the voxel size and the "
                "orientation",
                code="contradictory-header",
            )
        remarks += (f"the header of {name} contradicts itself: {header.contradiction}; both are read as given",)
    if header.unit_assumed and voxel_size is None and header.spacing is not None:
        remarks += (f"{name} has no unit ({header.numbers}); it is read as mm",)
    origin = orientation if orientation is not None else header.origin
    if origin is None:
        raise InputError(
            f"the orientation of {name} is not known: {header.reason}; give the orientation, such as asl",
            code="missing-orientation",
        )
    frame = Orientation.of(origin, wanted)
    if orientation is not None and header.origin not in (None, orientation.lower()):
        remarks = (
            f"the axes of {name} begin at {header.origin} by its header; they are read as {orientation}, as given",
        )
    size = recorded = None if header.spacing is None else frame.order(header.spacing)
    if voxel_size is not None:
        size = _lengths(voxel_size)
        if recorded is not None and not np.allclose(recorded, size, rtol=1e-4, atol=0):
            remarks += (f"the voxels of {name} are {recorded} um by its header; they are read as {size} um, as given",)
    elif size is None or not all(math.isfinite(length) and length > 0 for length in size):
        raise InputError(
            f"the voxel size of {name} is not known: {header.reason}; give it, in um", code="missing-voxel-size"
        )
    # A volume of the CCF that differs in the names of its sides alone is not flipped.
    unflipped = Orientation((0, 1, 2), (False, False, False))
    if frame == replace(unflipped, flipped=(False, False, True)) and reference_space(9).is_covered(header.shape, size):
        return unflipped, size, (*remarks, sides_remark(name))
    return frame, size, remarks


def _lengths(voxel_size: float | Sequence[float]) -> tuple[float, float, float]:
    try:
        z, y, x = (float(length) for length in np.broadcast_to(np.asarray(voxel_size, np.float64), 3))
        if not all(math.isfinite(length) and length > 0 for length in (z, y, x)):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"voxel size {voxel_size!r} must be one positive length in um, or three along z, y, x",
            code="invalid-voxel-size",
        ) from None
    return z, y, x


@contextmanager
def _folder_in(spool_folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder in the spool folder, removed at the end of the context."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(spool_folder))
        except OSError as error:
            raise spool_error(spool_folder, error) from None
        yield folder
