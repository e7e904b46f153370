"""`open_annotation` and `open_template`: a reference volume from any file as a lazy array, validated, in one frame."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assets.locate import Located, locate
from ..engine.absent_chunks import AbsentChunks
from ..engine.label_counts import distinct
from ..stores.locations import output_path, shown
from ..stores.temporary import temporary_folder
from .frame import Frame, frame_of
from .header import Header
from .labels import as_labels
from .ome_zarr import is_ome_zarr, open_ome_zarr
from .open_file import VolumeFile, open_volume_file
from .orientation import ORIGIN, Orientation
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
    contradictions : tuple of str
        Those of `remarks` on options that contradict the header.
    position : tuple of float or None
        Centre of the first voxel along (z, y, x), in um, in the anatomical frame of the header; None if the header
        has no origin, or for the CCF.
    is_ccf : bool
        Whether the volume has the extent and the axes of the CCF.
    begins : str
        The sides at which the axes of the file begin, as they are read; empty if it is not known.
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
    contradictions: tuple[str, ...] = ()
    position: tuple[float, float, float] | None = None
    is_ccf: bool = False
    begins: str = ""

    @property
    def extent(self) -> tuple[float, float, float]:
        """Size along (z, y, x), in um."""
        z, y, x = (n * size for n, size in zip(self.array.shape, self.voxel_size, strict=True))
        return z, y, x

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
        for block in self.blocks():
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
        for block in self.blocks():
            labels = np.union1d(labels, distinct(block))
        return labels

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The chunks of the array, computed one after the other."""
        for index in np.ndindex(*self.array.numblocks):
            yield self.array.blocks[index].compute(scheduler="threads")  # one after another: not on a cluster


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
        recognised by their first bytes. An annotation may also be an asset that `atlaszarr.assets.locate.locate` takes.
    spool_folder : str or path-like
        An existing local folder with room for the compressed voxels.
    storage_options : mapping, optional
        Options for fsspec.
    orientation : str, optional
        The sides at which the axes of the file begin, such as ``asl``, see `Orientation.of`; default: by the header.
    voxel_size : float or sequence of 3 floats, optional
        Along (z, y, x) of the result, in um; default: by the header. The origin of the header is kept in voxels.
    origin : str
        The sides at which z, y and x of the result begin: ``asl``, or ``asr`` for x from right to left, as BrainGlobe
        names it. A volume of the CCF, which is recognised by its extent, is not flipped, since ``asl`` and ``asr``
        are two names of one frame; a remark says so. The old headers of the Allen Institute, which have wrong axes,
        and their copies by ITK are corrected, with a remark.

    Yields
    ------
    ReferenceVolume
        With a uint32 array.

    Raises
    ------
    InputError
        If the file is empty, cut short, damaged or not a volume; if neither its header nor the caller gives its
        orientation or voxel size; if its header contradicts itself or the extent of the CCF; if by its header a voxel
        is under 0.1 um or over 5 mm, or the volume longer than 0.5 m, and the caller gives no voxel size; if an
        OME-Zarr has a transformation that is not supported; if a label is negative, fractional, NaN or above
        4294967295.
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
    located = locate(uri, storage_options) if annotation else Located(os.fspath(uri))
    text, options = located.annotation, dict(storage_options or {})
    name = shown(text)
    if is_ome_zarr(text):
        array, header, absent = open_ome_zarr(text, options, name)
        frame = frame_of(header, *given)
        array = frame.orientation.apply(array)
        remarks: tuple[str, ...] = ()
        if annotation:
            array, remarks = _lazy_labels(array, header), (*located.remarks, *_label_remarks(header))
        yield _volume(array, name, frame, remarks, absent=absent)
        return
    with ExitStack() as stack:

        def make_folder() -> Path:
            return stack.enter_context(_folder_in(spool_folder))

        with open_volume_file(text, options, make_folder) as opened:
            header = opened.header
            frame = frame_of(header, *given)
            orientation, labels, remarks = frame.orientation, None, ()
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
        yield _volume(array, name, frame, remarks, size=length, sha256=digest, labels=labels)


def _volume(array: Any, name: str, frame: Frame, remarks: tuple[str, ...], **more: Any) -> ReferenceVolume:
    """The volume with an array (z, y, x) in a frame."""
    return ReferenceVolume(
        array,
        frame.voxel_size,
        name,
        frame.orientation,
        remarks=(*frame.remarks, *remarks),
        contradictions=frame.contradictions,
        position=frame.position,
        is_ccf=frame.is_ccf,
        begins=frame.begins,
        **more,
    )


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


@contextmanager
def _folder_in(spool_folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder in the spool folder, removed at the end of the context."""
    output_path(spool_folder)  # raises an InputError if it is not a path
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(spool_folder))
        except OSError as error:
            raise spool_error(spool_folder, error) from None
        yield folder
