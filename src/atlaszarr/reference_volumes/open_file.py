"""The format of a volume's file, recognised by its first bytes, and its voxels as a lazy array: mapped or spooled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, NotFoundError
from ..stores.input_file import InputFile
from ..stores.locations import normalize
from .header import Header
from .nifti import is_nifti, read_nifti_header
from .nrrd import read_nrrd_header
from .orientation import Orientation
from .tiff import BEGINNINGS, read_tiff_header, tiff_planes
from .voxels import CHUNK, MappedVolume, decompressing, spool, stream_planes, unpacked

#: Bytes by which a format is recognised.
_BEGINNING = 352
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Content:
    """A volume's file after its header was read.

    Attributes
    ----------
    header : Header
    file : InputFile
        The file with the voxels.
    stream : binary file or None
        The voxels, uncompressed, from the first one on.
    path : Path or None
        A local file with the voxels, in the layout of the header.
    """

    header: Header
    file: InputFile
    stream: BinaryIO | None
    path: Path | None

    @property
    def is_mapped(self) -> bool:
        """Whether the voxels can be read at random from their file."""
        return self.header.compression == "none" and self.path is not None

    def mapped(self, orientation: Orientation) -> Any:
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
        held = status.st_size - header.offset
        if held < header.size:
            raise InputError(
                f"{header.name} is cut short: its header declares {header.size} bytes of voxels, and it holds "
                f"{max(held, 0)}; get it again"
            )
        # The other parts of a TIFF follow its voxels.
        if held > header.size and self.stream is not None:
            raise InputError(f"{header.name} holds more than the {header.size} bytes of voxels of its header")
        volume = MappedVolume(str(path), header, orientation)
        token = tokenize(str(path), status.st_size, status.st_mtime_ns, repr(header), orientation)
        meta = np.empty((0, 0, 0), volume.dtype)
        return da.from_array(volume, CHUNK, name=f"mapped-{token}", meta=meta, asarray=False, inline_array=True)

    def spooled(
        self,
        folder: Path,
        orientation: Orientation,
        convert: Callable[[NDArray[Any]], NDArray[Any]],
        dtype: np.dtype[Any],
    ) -> Any:
        """The dask array (z, y, x) over a zarr array in a folder, to which this method writes all voxels."""
        path = folder / "voxels.zarr"
        if self.stream is not None:
            return spool(path, self.header, orientation, stream_planes(self.stream, self.header), convert, dtype)
        assert self.path is not None
        return spool(path, self.header, orientation, tiff_planes(self.path, self.header), convert, dtype)

    def size_and_digest(self) -> tuple[int, str | None]:
        """Size of the file in bytes, and its SHA-256 if all of it was read."""
        if self.is_mapped and self.path == self.file.path:
            return self.path.stat().st_size, None  # type: ignore[union-attr]
        return self.file.finish()


@contextmanager
def reading_content(uri: str, storage_options: Mapping[str, Any], make_folder: Callable[[], Path]) -> Iterator[Content]:
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
        If it is empty, its format is not known, or its header cannot be read.
    """
    with ExitStack() as opened:
        file = opened.enter_context(InputFile.open(uri, storage_options))
        beginning = file.stream.peek(_BEGINNING)[:_BEGINNING]
        if not beginning:
            raise InputError(f"{file.name} is empty (0 bytes); get it again")
        if beginning.startswith(b"NRRD"):
            header = read_nrrd_header(file.stream, file.name)
            if header.data_file is not None:
                file = opened.enter_context(_data_file(uri, header, storage_options))
            yield Content(header, file, unpacked(file.stream, header.compression), file.path)
        elif beginning.startswith(_GZIP):
            stream = unpacked(file.stream, "gzip")
            with decompressing(file.name):
                header = read_nifti_header(stream, file.name)
            yield Content(replace(header, compression="gzip"), file, stream, None)
        elif is_nifti(beginning):
            yield Content(read_nifti_header(file.stream, file.name), file, file.stream, file.path)
        elif beginning.startswith(BEGINNINGS):
            path = file.path
            if path is None:
                path = make_folder() / "source.tif"
                file.copy_to(path)
            yield Content(read_tiff_header(path, file.name), file, None, path)
        else:
            raise InputError(f"{file.name} is neither NRRD, NIfTI, TIFF nor OME-Zarr; it begins {beginning[:8]!r}")


def _data_file(uri: str, header: Header, storage_options: Mapping[str, Any]) -> InputFile:
    """The file that a detached header names, in the folder of the header."""
    folder = normalize(uri).partition("?")[0].rpartition("/")[0]
    try:
        return InputFile.open(f"{folder}/{header.data_file}", storage_options)
    except NotFoundError:
        raise NotFoundError(
            f"{header.name} has its voxels in {header.data_file}, which is missing; put both into one folder"
        ) from None
