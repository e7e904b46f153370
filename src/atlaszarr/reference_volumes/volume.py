"""`open_annotation` and `open_template`: a reference volume from any file as a lazy array, checked, in one frame."""

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
        Where it is from, without what may be secret.
    orientation : Orientation
        How the axes of the file were brought into this order.
    size : int or None
        Bytes of the file; None of an OME-Zarr.
    sha256 : str or None
        Digest of the file (hexadecimal); None where it was not read as a whole.
    remarks : tuple of str
        What its user should be told.
    labels : ndarray or None
        Of an annotation that was read as a whole: the labels that occur, sorted, without 0, uint32.
    absent : AbsentChunks or None
        Of an OME-Zarr: the chunks that it lacks.
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
        """`remarks`, and how many chunks are absent: of a web server, which lists nothing, those that were read."""
        absent = None if self.absent is None else self.absent.remark(f"level 0 of {self.uri}")
        return self.remarks if absent is None else (*self.remarks, absent)

    def identity(self) -> dict[str, Any]:
        """What tells it from other volumes, wherever it lies: its content, and how that is read.

        The digest of its file where that was read as a whole, else that of its voxels, in one pass over them.
        """
        import dask

        if self.sha256 is not None:
            return {"sha256": self.sha256, "orientation": asdict(self.orientation)}
        content = hashlib.blake2b(digest_size=16)
        for index in np.ndindex(*self.array.numblocks):
            (block,) = dask.compute(self.array.blocks[index])
            content.update(np.ascontiguousarray(block).data)
        return {"voxels": content.hexdigest(), "blocks": [list(lengths) for lengths in self.array.chunks]}

    def find_labels(self) -> NDArray[np.uint32]:
        """The labels that occur, sorted, without 0: `labels`, or found in one pass over the array, chunk by chunk.

        Raises
        ------
        InputError
            If a label is none; see `open_annotation`.
        """
        import dask

        if self.labels is not None:
            return self.labels
        found = np.empty(0, np.uint32)
        for index in np.ndindex(*self.array.numblocks):
            (block,) = dask.compute(self.array.blocks[index])
            found = np.union1d(found, distinct(block))
        return found


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
        NRRD, NIfTI (either may be compressed), TIFF, or an OME-Zarr (its finest level), told apart by content but for
        an OME-Zarr, whose name ends in ``.zarr``: a local path, or any URL that fsspec opens.
    spool_folder : str or path-like
        An existing local folder with room for the compressed voxels.
    storage_options : mapping, optional
        To fsspec.
    orientation : str, optional
        Where the axes of the file begin, see `Orientation.of`, for instance ``asl``; default what the file says.
    voxel_size : float or three of them, optional
        Along (z, y, x) of the result, in um; default what the file says.
    origin : str
        Where z, y and x of the result begin: ``asl``, or ``asr`` to have x run from right to left, as BrainGlobe names
        it. A volume of the CCF, which is known by its extent, is read as it lies, ``asl`` and ``asr`` being two names
        of one frame; a remark says so.

    Yields
    ------
    ReferenceVolume
        With a uint32 array.

    Raises
    ------
    InputError
        If the file is empty, cut short, damaged or no volume; if it does not tell its orientation or voxel size and
        they are not stated; if a label is negative, fractional, NaN or above 4294967295.
    NotFoundError, SourceError
        If it is not there, or cannot be read.
    TargetError
        If its voxels cannot be kept, or an OME-Zarr lacks a chunk that its ledger records.
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

    Parameters, what is yielded and what is raised are as of `open_annotation`, but for the labels.
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
    """A remark on labels that are not stored as labels."""
    dtype = header.value_dtype
    if not annotation or dtype.kind in "bu":
        return ()
    return (f"the labels of {header.name} are {dtype}; they are converted to uint32, and refused where that loses any",)


def _frame(
    header: Header, orientation: str | None, voxel_size: float | Sequence[float] | None, wanted: str
) -> tuple[Orientation, tuple[float, float, float], tuple[str, ...]]:
    """How the axes lie, the voxel size along (z, y, x), and remarks: as stated, else as the file says."""
    name, remarks = header.name, header.remarks
    origin = orientation if orientation is not None else header.origin
    if origin is None:
        raise InputError(f"how the axes of {name} lie is not known: {header.doubt}; state the orientation, as asl")
    frame = Orientation.of(origin, wanted)
    if orientation is not None and header.origin not in (None, orientation.lower()):
        remarks = (
            f"the axes of {name} begin at {header.origin} by its header; they are read as {orientation}, as stated",
        )
    found = None if header.spacing is None else frame.order(header.spacing)
    if voxel_size is None:
        if found is None or not all(math.isfinite(length) and length > 0 for length in found):
            raise InputError(f"the voxel size of {name} is not known: {header.doubt}; state it, in um")
        return _as_it_lies(frame, header, found, remarks)
    stated = _lengths(voxel_size)
    if found is not None and not np.allclose(found, stated, rtol=1e-4, atol=0):
        remarks += (f"the voxels of {name} are {found} um by its header; they are read as {stated} um, as stated",)
    return _as_it_lies(frame, header, stated, remarks)


def _as_it_lies(
    frame: Orientation, header: Header, size: tuple[float, float, float], remarks: tuple[str, ...]
) -> tuple[Orientation, tuple[float, float, float], tuple[str, ...]]:
    """Unturned where a volume of the CCF differs in the name of its sides alone."""
    kept = Orientation((0, 1, 2), (False, False, False))
    if frame != replace(kept, flipped=(False, False, True)) or not reference_space(9).is_covered(header.shape, size):
        return frame, size, remarks
    return kept, size, (*remarks, sides_remark(header.name))


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
    """A folder of its own in the one that is given, for as long as it is needed."""
    try:
        made = tempfile.TemporaryDirectory(prefix="atlaszarr-", dir=Path(folder).expanduser().absolute())
    except OSError as error:
        raise TargetError(f"cannot keep voxels in {os.fspath(folder)}: {error.strerror}") from None
    with made as path:
        yield Path(path)
