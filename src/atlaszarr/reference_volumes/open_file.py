"""The format of a volume's file, recognised by its first bytes, and its voxels as a lazy array: mapped or spooled."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import AtlaszarrError, InputError, NotFoundError
from ..stores.input_file import InputFile, cut_short, too_long
from ..stores.locations import normalize
from .header import MOST_SKIPPED, Header
from .metaimage import is_metaimage, read_metaimage_header
from .nifti import BEGINNING, is_nifti, read_nifti_header
from .nrrd import read_nrrd_header
from .orientation import Orientation
from .other_formats import GZIP, not_a_volume
from .tiff import TIFF_BEGINNINGS, read_tiff_header, tiff_planes
from .voxels import CHUNK, MappedVolume, decompressed, reporting_damage, spool, spool_error, stream_planes

#: The most bytes of the name of a file, on all usual file systems.
_LONGEST_NAME = 255
#: Bytes read at once from what is skipped.
_PART = 2**20


@dataclass(frozen=True)
class VolumeFile:
    """An open file of a volume, whose header was read.

    Attributes
    ----------
    header : Header
    file : InputFile
        The file with the voxels.
    stream : binary file or None
        The voxels from the first one on, uncompressed; None for a TIFF.
    path : Path or None
        A local file with the voxels, in the layout of the header.
    """

    header: Header
    file: InputFile
    stream: BinaryIO | None
    path: Path | None

    @property
    def is_mapped(self) -> bool:
        """Whether the voxels can be read at random from the file."""
        return self.header.compression == "none" and self.path is not None

    def map(self, orientation: Orientation) -> Any:
        """The dask array (z, y, x) over the local file.

        Raises
        ------
        InputError
            If the size of the file differs from that in its header.
        """
        import dask.array as da
        from dask.base import tokenize

        header, path = self.header, self.path
        assert path is not None
        status = path.stat()
        available = status.st_size - header.offset
        if available < header.size:
            raise cut_short(header.name, f"{header.size} bytes of voxels", available)
        # In a TIFF other parts follow the voxels.
        if available > header.size and self.stream is not None:
            raise too_long(header.name, header.size)
        volume = MappedVolume(str(path), header, orientation)
        token = tokenize(str(path), status.st_size, status.st_mtime_ns, repr(header), orientation)
        meta = np.empty((0, 0, 0), volume.dtype)
        return da.from_array(volume, CHUNK, name=f"mapped-{token}", meta=meta, asarray=False, inline_array=True)

    def spool(
        self,
        folder: Path,
        orientation: Orientation,
        convert: Callable[[NDArray[Any]], NDArray[Any]],
        dtype: np.dtype[Any],
    ) -> Any:
        """Write all voxels to a zarr array in a folder, and return the dask array (z, y, x) over it."""
        if self.stream is not None:
            planes = stream_planes(self.stream, self.header)
        else:
            assert self.path is not None
            planes = tiff_planes(self.path, self.header)
        return spool(folder / "voxels.zarr", self.header, orientation, planes, convert, dtype)

    def size_and_digest(self) -> tuple[int, str | None]:
        """Size of the file in bytes, and its SHA-256 if the whole file was read."""
        if self.is_mapped and self.path is not None and self.path == self.file.path:
            return self.path.stat().st_size, None
        return self.file.finish()


@contextmanager
def open_volume_file(
    uri: str, storage_options: Mapping[str, Any], make_folder: Callable[[], Path]
) -> Iterator[VolumeFile]:
    """Open a file and read its header.

    Parameters
    ----------
    uri : str
    storage_options : mapping
    make_folder : callable
        Makes the folder for a copy of a remote file whose format needs random access.

    Raises
    ------
    InputError
        If the file is empty, its format is not known, or its header cannot be read.
    """
    with ExitStack() as stack:
        file = stack.enter_context(InputFile.open(uri, storage_options))
        beginning = file.stream.peek(BEGINNING)[:BEGINNING]
        if not beginning:
            raise InputError(f"{file.name} is empty (0 bytes); get the file again", code="empty-file")
        if beginning.startswith(TIFF_BEGINNINGS):
            path = file.path or _copy(file, make_folder)
            yield VolumeFile(read_tiff_header(path, file.name), file, None, path)
            return
        stream: Any = file.stream
        if beginning.startswith(GZIP):
            stream = gzip.GzipFile(fileobj=file.stream)
            header = _compressed_nifti_header(stream, file.name)
        elif beginning.startswith(b"NRRD"):
            header = read_nrrd_header(stream, file.name)
        elif is_metaimage(beginning):
            header = read_metaimage_header(stream, file.name)
        elif is_nifti(beginning):
            header = read_nifti_header(stream, file.name)
        else:
            raise not_a_volume(beginning, file.name)
        if header.data_file is not None:
            file = stack.enter_context(_data_file(uri, header, storage_options))
            stream = file.stream
        yield _at_voxels(header, file, stream, make_folder)


def _compressed_nifti_header(stream: gzip.GzipFile, name: str) -> Header:
    """The header of a NIfTI that is compressed as a whole."""
    with reporting_damage(name):
        beginning = stream.read(BEGINNING)
        if not is_nifti(beginning):
            raise not_a_volume(beginning, name, compressed=True)
        return replace(read_nifti_header(stream, name, beginning), compression="gzip")  # type: ignore[arg-type]


def _at_voxels(header: Header, file: InputFile, stream: Any, make_folder: Callable[[], Path]) -> VolumeFile:
    """The file whose stream, which is at the end of its header, is moved to the first voxel."""
    if header.skip == -1:
        path, first = file.path, header.offset
        if path is None:
            path, first = _copy(file, make_folder), 0  # from the end of the header
        header = replace(header, offset=max(first, path.stat().st_size - header.size))
        return VolumeFile(header, file, stream, path)
    offset = header.offset
    for _ in range(header.lines):
        offset += len(line := stream.readline(MOST_SKIPPED))
        if not line.endswith(b"\n"):
            raise _nothing_after(header)
    if not isinstance(stream, gzip.GzipFile):
        stream = decompressed(stream, header)
    left = header.skip
    while left:
        with reporting_damage(header.name):
            part = stream.read(min(left, _PART))
        if not part:
            raise _nothing_after(header)
        left -= len(part)
    return VolumeFile(replace(header, offset=offset + header.skip), file, stream, file.path)


def _nothing_after(header: Header) -> InputError:
    text = f"{header.name} is cut short: it ends within the lines or bytes before its voxels; get the file again"
    return InputError(text, code="truncated-file")


def _copy(file: InputFile, make_folder: Callable[[], Path]) -> Path:
    """A local copy of what is left of a file that is not local, for a format that needs random access."""
    path = make_folder() / "source"
    try:
        file.copy_to(path)
    except OSError as error:
        if isinstance(error, AtlaszarrError):
            raise
        raise spool_error(path.parent, error) from None
    return path


def _data_file(uri: str, header: Header, storage_options: Mapping[str, Any]) -> InputFile:
    """The data file of a detached header, in the folder of the header."""
    name = str(header.data_file).removeprefix("./")
    plain = name and len(name.encode()) <= _LONGEST_NAME and not any(mark in name for mark in "/\\%\n\0")
    if not plain or name.split()[:1] in ([], ["LIST"]) or name == "..":
        raise InputError(
            f"{header.name} names the data file {name[:_LONGEST_NAME]!r}; it must be one file in the folder of the "
            "header",
            code="invalid-data-file",
        )
    folder = normalize(uri).partition("?")[0].rpartition("/")[0]
    try:
        return InputFile.open(f"{folder}/{name}", storage_options)
    except NotFoundError:
        raise NotFoundError(
            f"{header.name} has its voxels in {name}, which is missing; put both into one folder",
            code="file-not-found",
        ) from None
