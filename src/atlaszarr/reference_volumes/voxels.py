"""The voxels of a volume: plane by plane from a stream that is read once, or at random from a local file."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..engine.array_layout import ArrayLayout, Encoding
from ..errors import AtlaszarrError, InputError, TargetError
from ..stores.failures import disk_code
from ..stores.input_file import cut_short, too_long
from .header import Header
from .orientation import Orientation

#: The most bytes that the streams below read or return at once.
_PART = 2**20
#: The most characters of a number in a text: a float64 in full has 24.
_LONGEST_NUMBER = 64


def decompressed(stream: BinaryIO, header: Header) -> Any:
    """A binary stream of the voxels in the dtype of the header, which decodes another stream as it is read."""
    if header.compression == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="rb")
    if header.compression == "bzip2":
        return bz2.BZ2File(stream)
    if header.compression == "zlib":
        return _Inflated(stream)
    return _Numbers(stream, header) if header.compression == "text" else stream


class _Inflated(io.RawIOBase):
    """The bytes of a zlib or gzip stream, never decompressed beyond what is asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: the header tells zlib from gzip
        self._input = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), _PART)
        while wanted and not self._decoder.eof:
            self._input = self._input or self._stream.read(_PART)
            part = self._decoder.decompress(self._input, wanted)
            if not (part or self._input or self._decoder.eof):
                raise EOFError
            self._input = self._decoder.unconsumed_tail
            if part:
                buffer[: len(part)] = part
                return len(part)
        return 0


class _Numbers(io.RawIOBase):
    """The bytes of numbers in ASCII, separated by white space."""

    def __init__(self, stream: BinaryIO, header: Header) -> None:
        self._stream = stream
        self._header = header
        self._rest = b""
        self._bytes = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._bytes:
            part = self._stream.read(_PART)
            text = self._rest + part
            words, self._rest = text.split(), b""
            if not words and not part:
                return 0
            if words and part and not text[-1:].isspace():
                self._rest = words.pop()
            self._bytes = memoryview(self._convert([*words, *[self._rest][: len(self._rest) > _LONGEST_NUMBER]]))
        count = min(len(buffer), len(self._bytes))
        buffer[:count], self._bytes = self._bytes[:count], self._bytes[count:]
        return count

    def _convert(self, words: list[bytes]) -> bytes:
        dtype = self._header.dtype
        number: Any = float if dtype.kind == "f" else int
        try:
            # Python's numbers may have underscores.
            if any(len(word) > _LONGEST_NUMBER or b"_" in word for word in words):
                raise ValueError
            with np.errstate(over="ignore"):
                return np.array([number(word) for word in words], dtype).tobytes()
        except (ValueError, OverflowError):
            if half := len(words) // 2:  # finds the first word that is no number
                return self._convert(words[:half]) + self._convert(words[half:])
            text = words[0][:_LONGEST_NUMBER].decode("ascii", "backslashreplace")
            raise InputError(
                f"{self._header.name} holds {text!r} among its voxels, which is not {dtype.newbyteorder('=')}; "
                "get the file again",
                code="damaged-file",
            ) from None


def stream_planes(stream: BinaryIO, header: Header) -> Iterator[NDArray[Any]]:
    """Read the planes of a stream of voxels along the slowest axis of the file, each of length 1 along it.

    The last plane is yielded after the end of the stream was read.

    Raises
    ------
    InputError
        If the stream is damaged, or longer or shorter than its header declares.
    """
    count = header.shape[header.slowest]
    shape = [1 if axis == header.slowest else n for axis, n in enumerate(header.shape)]
    for done in range(count):
        plane = np.empty(shape, header.dtype, order="F" if header.fastest_first else "C")
        buffer = plane.reshape(-1, order="A").view(np.uint8).data
        filled = 0
        while filled < len(buffer):
            with reporting_damage(header.name):
                part = stream.readinto(buffer[filled:])  # type: ignore[attr-defined]
            if not part:
                raise cut_short(header.name, f"{count} planes of voxels", done)
            filled += part
        if done == count - 1:
            with reporting_damage(header.name):
                more = stream.read(1)
            if more:
                raise too_long(header.name, header.size)
        yield plane


@contextmanager
def reporting_damage(name: str) -> Iterator[None]:
    """Raise an InputError that names the file for any error of a decompressor."""
    try:
        yield
    except EOFError:
        raise InputError(
            f"{name} is cut short within its compressed voxels; get the file again", code="truncated-file"
        ) from None
    except (OSError, zlib.error) as error:
        # bz2 raises an OSError without errno, as gzip does with BadGzipFile.
        if isinstance(error, AtlaszarrError) or getattr(error, "errno", None) is not None:
            raise
        raise InputError(
            f"{name} is damaged within its compressed voxels ({error}); get the file again", code="damaged-file"
        ) from None


@dataclass(frozen=True)
class MappedVolume:
    """Uncompressed voxels in a local file, as an array (z, y, x) that reads the regions it is indexed with.

    It is small to pickle.

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
        """Number of voxels along (z, y, x)."""
        return self.orientation.order(self.header.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self.header.value_dtype

    @property
    def ndim(self) -> int:
        """The number of axes: 3."""
        return 3

    def __getitem__(self, region: Any) -> NDArray[Any]:
        header = self.header
        order: Any = "F" if header.fastest_first else "C"
        stored = np.memmap(self.path, header.dtype, "r", header.offset, header.shape, order)
        return np.array(header.values(self.orientation.apply(stored)[region]), order="C")


#: Side of a chunk of the lazy array, in voxels.
CHUNK = 64
#: The most bytes of voxels in memory at once.
SLAB = 3 * 2**27
#: The most bytes of a plane, stored or converted: with its copies they stay under 1 GB. BigBrain at 20 um has 115 MB.
PLANE = 2**28
#: Threads that compress chunks while the source waits.
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
        The folder of the array; it must not exist.
    header : Header
    orientation : Orientation
    planes : iterator of ndarray
        The planes of the source along its slowest axis, each with the axes of the source.
    convert : callable
        Converts a stored plane to the values to write.
    dtype : dtype
        The dtype of the converted values.

    Returns
    -------
    dask array
        Over the zarr array, with its chunks.

    Raises
    ------
    InputError
        If a plane is too large to hold in memory.
    TargetError
        If the array cannot be written.
    """
    import dask.array as da
    import zarr

    slow = header.slowest
    plane = header.size // header.shape[slow] // header.dtype.itemsize * dtype.itemsize
    if (largest := max(plane, header.size // header.shape[slow])) > PLANE:
        raise InputError(
            f"{header.name} declares planes of {largest} bytes; the most that is supported is {PLANE}",
            code="plane-too-large",
        )
    axis = orientation.axes.index(slow)
    shape = orientation.order(header.shape)
    chunk = [min(CHUNK, n) for n in shape]
    chunk[axis] = min(chunk[axis], SLAB // plane)
    layout = Encoding().layout(shape, chunk, dtype)
    with _reporting_disk_errors(path):
        path.mkdir(parents=True)
        for name, body in layout.documents().items():
            (path / name).write_bytes(body)
    first, second = (n for k, n in enumerate(header.shape) if k != slow)
    if header.fastest_first:
        buffer = np.empty((chunk[axis], second, first), dtype).swapaxes(1, 2)
    else:
        buffer = np.empty((chunk[axis], first, second), dtype)
    # Slabs end where chunks do. Along a flipped axis the far end is read first.
    starts = range(0, shape[axis], chunk[axis])
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in reversed(starts) if orientation.flipped[axis] else starts:
            count = min(chunk[axis], shape[axis] - start)
            slab = buffer[:count]
            for row, stored in zip(slab, planes, strict=False):
                row[...] = np.moveaxis(convert(stored), slow, 0)[0]
            slab = orientation.apply(np.moveaxis(slab, 0, slow))
            with _reporting_disk_errors(path):
                _write(path, slab, axis, start // chunk[axis], layout, threads)
    return da.from_zarr(zarr.open_array(path, mode="r"))


def _write(
    path: Path,
    slab: NDArray[Any],
    axis: int,
    index: int,
    layout: ArrayLayout,
    threads: ThreadPoolExecutor,
) -> None:
    """Write the chunks of a slab, which is one chunk thick along an axis, with this index along it."""

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
def _reporting_disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise spool_error(path.parent, error) from None


def spool_error(folder: str | os.PathLike[str], error: OSError) -> TargetError:
    """The error for a spool folder that cannot be written to."""
    text = f"cannot write voxels to {os.fspath(folder)}: {error.strerror}; choose another spool folder"
    return TargetError(text, code=disk_code(error))
