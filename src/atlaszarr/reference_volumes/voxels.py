"""The voxels behind a header: plane by plane from a stream that is read once, or at random from a local file."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..engine.codecs import ArrayLayout, Encoding
from ..errors import AtlaszarrError, InputError, TargetError
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


#: Side of a chunk, in voxels.
CHUNK = 64
#: Bytes of voxels in memory at once.
SLAB = 3 * 2**27
#: Threads that compress chunks; the source is read in between.
_THREADS = 2


def spool(
    path: Path,
    header: Header,
    orientation: Orientation,
    planes: Iterator[NDArray[Any]],
    convert: Callable[[NDArray[Any]], NDArray[Any]],
    dtype: np.dtype[Any],
) -> Any:
    """Write a volume slab by slab as a zarr v3 array (z, y, x), and open it.

    Parameters
    ----------
    path : Path
        Where; nothing is there yet.
    header : Header
    orientation : Orientation
    planes : iterator of ndarray
        The planes of the source along its slowest axis, along the axes of the source.
    convert : callable
        From a plane as it is stored to what is kept.
    dtype : dtype
        Of what `convert` gives.

    Returns
    -------
    dask array
        Over the zarr array, with its chunks.

    Raises
    ------
    InputError
        If a plane is too large.
    TargetError
        If it cannot be written.
    """
    import dask.array as da
    import zarr

    slow = header.slowest
    plane = header.size // header.shape[slow] // header.dtype.itemsize * dtype.itemsize
    if plane > SLAB:
        raise InputError(f"{header.name} declares planes of {plane} bytes, more than the {SLAB} that are read at once")
    axis = orientation.axes.index(slow)
    shape = orientation.order(header.shape)
    chunk = [min(CHUNK, n) for n in shape]
    chunk[axis] = min(chunk[axis], SLAB // plane)
    layout = Encoding().layout(shape, chunk, dtype)
    with _keeping(path):
        path.mkdir(parents=True)
        for name, body in layout.documents().items():
            (path / name).write_bytes(body)
    first, second = (n for k, n in enumerate(header.shape) if k != slow)
    if header.fastest_first:
        buffer = np.empty((chunk[axis], second, first), dtype).swapaxes(1, 2)
    else:
        buffer = np.empty((chunk[axis], first, second), dtype)
    # Slabs end where chunks do; of an axis that runs the other way, the one that is read first is its far end.
    starts = range(0, shape[axis], chunk[axis])
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in reversed(starts) if orientation.flipped[axis] else starts:
            count = min(chunk[axis], shape[axis] - start)
            slab = buffer[:count]
            for place, stored in zip(slab, planes, strict=False):
                place[...] = np.moveaxis(convert(stored), slow, 0)[0]
            slab = orientation.apply(np.moveaxis(slab, 0, slow))
            with _keeping(path):
                _write(path, slab, (axis, start // chunk[axis]), layout, threads)
    return da.from_zarr(zarr.open_array(path, mode="r"))


def _write(
    path: Path,
    slab: NDArray[Any],
    place: tuple[int, int],
    layout: ArrayLayout,
    threads: ThreadPoolExecutor,
) -> None:
    """Put the chunks of a slab, which is one chunk thick along one axis and lies at an index along it."""
    axis, index = place

    def put(corner: tuple[int, ...]) -> None:
        chunk = layout.chunk
        part = slab[tuple(slice(i * n, (i + 1) * n) for i, n in zip(corner, chunk, strict=True))]
        key = [index if k == axis else i for k, i in enumerate(corner)]
        file = path / layout.key(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(layout.encode(part))

    counts = [-(-n // c) for n, c in zip(slab.shape, layout.chunk, strict=True)]
    for _ in threads.map(put, np.ndindex(*counts)):
        pass


@contextmanager
def _keeping(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"cannot keep voxels in {path.parent}: {error.strerror}; choose another spool folder"
        ) from None
