"""The voxels behind a header: plane by plane from a stream that is read once, or at random from a local file."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import AtlaszarrError, InputError
from .header import Header
from .orientation import Orientation


def unpacked(stream: BinaryIO, compression: str) -> BinaryIO:
    """A stream, decompressed as it is read."""
    opened: Any = stream
    if compression == "gzip":
        opened = gzip.GzipFile(fileobj=stream, mode="rb")
    elif compression == "bzip2":
        opened = bz2.BZ2File(stream)
    found: BinaryIO = opened
    return found


def stream_planes(stream: BinaryIO, header: Header) -> Iterator[NDArray[Any]]:
    """The planes of a stream of voxels along the slowest axis of the file: each of length 1 along it.

    The last one is given once the stream is known to end there.

    Raises
    ------
    InputError
        If the stream is damaged, or longer or shorter than the header says.
    """
    count = header.shape[header.slowest]
    shape = [1 if axis == header.slowest else n for axis, n in enumerate(header.shape)]
    for done in range(count):
        plane = np.empty(shape, header.dtype, order="F" if header.fastest_first else "C")
        buffer = plane.reshape(-1, order="A").view(np.uint8).data
        filled = 0
        while filled < len(buffer):
            with decompressing(header.name):
                part = stream.readinto(buffer[filled:])  # type: ignore[attr-defined]
            if not part:
                raise InputError(
                    f"{header.name} is cut short: its header declares {count} planes of voxels, and it holds {done}; "
                    "get it again"
                )
            filled += part
        if done == count - 1:
            with decompressing(header.name):
                more = stream.read(1)
            if more:
                raise InputError(f"{header.name} holds more than the {header.size} bytes of voxels of its header")
        yield plane


@contextmanager
def decompressing(name: str) -> Iterator[None]:
    """Turn what a decompressor raises into an InputError that names the file."""
    try:
        yield
    except EOFError:
        raise InputError(f"{name} is cut short within its compressed voxels; get it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name} is damaged within its compressed voxels ({error}); get it again") from None
    except OSError as error:
        if isinstance(error, AtlaszarrError) or error.errno is not None:
            raise
        # What bz2 raises.
        raise InputError(f"{name} is damaged within its compressed voxels ({error}); get it again") from None


@dataclass(frozen=True)
class MappedVolume:
    """Uncompressed voxels in a local file, as an array (z, y, x) that is read where it is asked for; small to pickle.

    Attributes
    ----------
    path : str
    header : Header
    orientation : Orientation
    """

    path: str
    header: Header
    orientation: Orientation

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return self.orientation.order(self.header.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.header.value_dtype

    @property
    def ndim(self) -> int:
        """Three."""
        return 3

    def __getitem__(self, region: Any) -> NDArray[Any]:
        header = self.header
        order: Any = "F" if header.fastest_first else "C"
        stored = np.memmap(self.path, header.dtype, "r", header.offset, header.shape, order)
        return np.array(header.values(self.orientation.apply(stored)[region]), order="C")
