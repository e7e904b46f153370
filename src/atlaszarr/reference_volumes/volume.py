"""`open_annotation` and `open_template`: a reference volume from any file as a lazy array, validated, in one frame."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine.absent_chunks import AbsentChunks
from ..errors import InputError, TargetError
from ..geometry.spaces import reference_space
from ..stores.locations import shown
from .header import Header
from .labels import as_labels, distinct
from .ome_zarr import is_ome_zarr, open_ome_zarr
from .open_file import Content, reading_content
from .orientation import ORIGIN, Orientation, sides_remark

if TYPE_CHECKING:
    import dask.array as da


@dataclass(frozen=True)
class ReferenceVolume:
    """A volume of an atlas: an annotation or a template.

    Attributes
    ----------
    array : dask array
        Axes (z, y, x) = (p, i, r). It pickles for other processes of the same machine.
    voxel_size : tuple of float
        Along (z, y, x), in um.
    uri : str
        Its path or URL, without parameters and passwords.
    orientation : Orientation
        How the axes of the file become (z, y, x).
    size : int or None
        Bytes of the file; None for an OME-Zarr.
    sha256 : str or None
        Digest of the file (hexadecimal); None if it was not read as a whole.
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
        """`remarks`, and how many chunks are absent; on a web server, which lists nothing, of those that were read."""
        absent = None if self.absent is None else self.absent.remark(f"level 0 of {self.uri}")
        return self.remarks if absent is None else (*self.remarks, absent)

    def identity(self) -> dict[str, Any]:
        """The digest of its file with the orientation, or of its voxels if the file was not read as a whole.

        The same volume at another path has the same identity.
        """
        if self.sha256 is not None:
            return {"sha256": self.sha256, "orientation": asdict(self.orientation)}
        content = hashlib.blake2b(digest_size=16)
        for block in self._blocks():
            content.update(np.ascontiguousarray(block).data)
        return {"voxels": content.hexdigest(), "blocks": [list(lengths) for lengths in self.array.chunks]}

    def find_labels(self) -> NDArray[np.uint32]:
        """The labels that occur, sorted, without 0: `labels`, or found in one pass over the array, chunk by chunk.

        Raises
        ------
        InputError
            If a value is not a label; see `open_annotation`.
        """
        if self.labels is not None:
            return self.labels
        found = np.empty(0, np.uint32)
        for block in self._blocks():
            found = np.union1d(found, distinct(block))
        return found

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

    A file that can only be read from its beginning (compressed, or not on a local disk) is read once, here, and kept in
    a folder of its own in `spool_folder` until the context ends; its labels are checked on the way. Of an OME-Zarr and
    of an uncompressed local file nothing is kept, and labels are checked block by block as they are computed.

    Parameters
    ----------
    uri : str or path-like
        NRRD, NIfTI (either may be compressed), TIFF, or an OME-Zarr (its finest level): a local path, or any URL that
        fsspec opens. The name of an OME-Zarr ends in ``.zarr``; the other formats are recognised by their content.
    spool_folder : str or path-like
        An existing local folder with room for the compressed voxels.
    storage_options : mapping, optional
        To fsspec.
    orientation : str, optional
        Where the axes of the file begin, see `Orientation.of`, for instance ``asl``; default that of the file.
    voxel_size : float or three of them, optional
        Along (z, y, x) of the result, in um; default that of the file.
    origin : str
        Where z, y and x of the result begin: ``asl``, or ``asr`` for x from right to left, as BrainGlobe names it. A
        volume of the CCF, which is recognised by its extent, is not flipped, since ``asl`` and ``asr`` are two names
        of one frame; a remark says so.

    Yields
    ------
    ReferenceVolume
        With a uint32 array.

    Raises
    ------
    InputError
        If the file is empty, cut short, damaged or not a volume; if its orientation or voxel size is missing and not
        given; if an OME-Zarr has a transformation that is not supported; if a label is negative, fractional, NaN or
        above 4294967295.
    NotFoundError, SourceError
        If it is missing, or cannot be read.
    TargetError
        If its voxels cannot be stored in `spool_folder`, or an OME-Zarr cannot be read or lacks a chunk that its
        ledger records.
    """
    with _opened(uri, spool_folder, storage_options, (orientation, voxel_size, origin), annotation=True) as volume:
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
    """Open a template, or any other volume of intensities, in the dtype of its file (float64 where that scales them).

    Parameters, yields and errors are the same as in `open_annotation`, except for the labels.
    """
    with _opened(uri, spool_folder, storage_options, (orientation, voxel_size, origin), annotation=False) as volume:
        yield volume


@contextmanager
def _opened(
    uri: str | os.PathLike[str],
    spool_folder: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
    stated: tuple[str | None, float | Sequence[float] | None, str],
    *,
    annotation: bool,
) -> Iterator[ReferenceVolume]:
    text, options = os.fspath(uri), dict(storage_options or {})
    name = shown(text)
    if is_ome_zarr(text):
        array, header, absent = open_ome_zarr(text, options, name)
        frame, spacing, remarks = _frame(header, *stated)
        array = _labelled(frame.apply(array), header) if annotation else frame.apply(array)
        yield ReferenceVolume(
            array, spacing, name, frame, remarks=remarks + _converted(header, annotation), absent=absent
        )
        return
    with ExitStack() as kept:

        def make_folder() -> Path:
            return kept.enter_context(_spool_folder(spool_folder))

        with reading_content(text, options, make_folder) as content:
            header = content.header
            frame, spacing, remarks = _frame(header, *stated)
            labels = None
            if content.is_mapped:
                array = content.mapped(frame)
                array = _labelled(array, header) if annotation else array
            elif annotation:
                array, labels = _spooled_labels(content, make_folder(), frame)
            else:
                array = content.spooled(make_folder(), frame, header.values, header.value_dtype)
            size, digest = content.size_and_digest()
        if header.data_file is not None:
            remarks += (f"the voxels of {name} are in {content.file.name}; size and digest are those of the latter",)
        remarks += _converted(header, annotation)
        yield ReferenceVolume(array, spacing, name, frame, size, digest, remarks, labels)


def _spooled_labels(content: Content, folder: Path, frame: Orientation) -> tuple[Any, NDArray[np.uint32]]:
    """The spooled array of an annotation, and the labels that occur."""
    found = np.empty(0, np.uint32)

    def convert(stored: NDArray[Any]) -> NDArray[np.uint32]:
        nonlocal found
        labels = as_labels(content.header.values(stored), content.header.name)
        found = np.union1d(found, distinct(labels))
        return labels

    array = content.spooled(folder, frame, convert, np.dtype(np.uint32))
    return array, found


def _labelled(array: Any, header: Header) -> Any:
    """An array whose blocks are checked and converted as they are computed."""
    if array.dtype == np.uint32:
        return array
    return array.map_blocks(partial(as_labels, name=header.name), dtype=np.uint32, meta=np.empty((0, 0, 0), np.uint32))


def _converted(header: Header, annotation: bool) -> tuple[str, ...]:
    """A remark if labels are not stored as unsigned integers."""
    dtype = header.value_dtype
    if not annotation or dtype.kind in "bu":
        return ()
    return (f"the labels of {header.name} are {dtype}; they are converted to uint32, and refused where that loses any",)


def _frame(
    header: Header, orientation: str | None, voxel_size: float | Sequence[float] | None, wanted: str
) -> tuple[Orientation, tuple[float, float, float], tuple[str, ...]]:
    """The orientation, the voxel size along (z, y, x), and remarks: as given, else by the header."""
    name, remarks = header.name, header.remarks
    origin = orientation if orientation is not None else header.origin
    if origin is None:
        raise InputError(f"the orientation of {name} is not known: {header.doubt}; give the orientation, as asl")
    frame = Orientation.of(origin, wanted)
    if orientation is not None and header.origin not in (None, orientation.lower()):
        remarks = (
            f"the axes of {name} begin at {header.origin} by its header; they are read as {orientation}, as given",
        )
    size = found = None if header.spacing is None else frame.order(header.spacing)
    if voxel_size is not None:
        size = _lengths(voxel_size)
        if found is not None and not np.allclose(found, size, rtol=1e-4, atol=0):
            remarks += (f"the voxels of {name} are {found} um by its header; they are read as {size} um, as given",)
    elif size is None or not all(math.isfinite(length) and length > 0 for length in size):
        raise InputError(f"the voxel size of {name} is not known: {header.doubt}; give it, in um")
    # A volume of the CCF that differs in the name of its sides alone is not flipped.
    kept = Orientation((0, 1, 2), (False, False, False))
    if frame == replace(kept, flipped=(False, False, True)) and reference_space(9).is_covered(header.shape, size):
        return kept, size, (*remarks, sides_remark(name))
    return frame, size, remarks


def _lengths(voxel_size: float | Sequence[float]) -> tuple[float, float, float]:
    try:
        z, y, x = (float(length) for length in np.broadcast_to(np.asarray(voxel_size, np.float64), 3))
    except (TypeError, ValueError):
        raise InputError(f"voxel size {voxel_size!r} must be one length in um, or three along z, y, x") from None
    if not all(math.isfinite(length) and length > 0 for length in (z, y, x)):
        raise InputError(f"voxel size {voxel_size!r} must be positive")
    return z, y, x


@contextmanager
def _spool_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder in the given one, removed at the end of the context."""
    try:
        made = tempfile.TemporaryDirectory(prefix="atlaszarr-", dir=Path(folder).expanduser().absolute())
    except OSError as error:
        raise TargetError(f"cannot keep voxels in {os.fspath(folder)}: {error.strerror}") from None
    with made as path:
        yield Path(path)
