"""A TIFF stack, as tifffile reads it: without an orientation; with a voxel size if it is an OME-TIFF or ImageJ's."""

from __future__ import annotations

import logging
import lzma
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..engine.ome import microns_in
from ..errors import AtlaszarrError, InputError
from .header import Header, quoted

if TYPE_CHECKING:
    from tifffile import TiffFile

#: The first bytes of a TIFF: little and big endian, classic and BigTIFF.
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: Axes along which lie the components of a voxel, by tifffile's letters.
_COMPONENTS = {"C": "channels", "S": "samples"}
#: Compressions whose decoders in tifffile have no bound on their output, by TIFF's numbers (two of deflate, one of
#: LZMA): a decoder that has, and as many compressed bytes as become 135 MB at most, since deflate makes at most 1032
#: bytes of one and LZMA 7000. imagecodecs bounds all others, except for those that are images.
_DECODERS: dict[int, tuple[Callable[[], Any], int]] = {
    **dict.fromkeys((8, 32946), (zlib.decompressobj, 2**17)),
    34925: (lzma.LZMADecompressor, 2**13),
}
#: Compressions whose segments are images with a size of their own, by TIFF's numbers.
JPEG, JPEG_2000, PNG = (6, 7, 33007, 34892), (33003, 33004, 33005, 34712), (34933,)
#: The first bytes of a JPEG 2000 codestream: its start, and the marker of the size (ISO/IEC 15444-1, annex A).
_CODESTREAM = b"\xff\x4f\xff\x51"
#: The version of a BigTIFF, after the byte order.
_BIG = 43
#: The most pages: two images with the most planes.
_MOST_PAGES = 2**19
#: Bytes read or decompressed at once.
_PART = 2**20
#: Bytes that a segment may have beyond its size, for padding.
_SLACK = 2**16


@contextmanager
def reading_tiff(name: str) -> Iterator[None]:
    """Raise an InputError that names the file for any error of tifffile and the decoders.

    This includes missing pages, which tifffile only logs: the first such error ends the reading, since a damaged file
    may have thousands. Nothing is logged in this thread.
    """
    logged: list[str] = []
    thread = get_ident()

    def raise_errors(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        if record.levelno >= logging.ERROR:
            logged.append(record.getMessage())
            raise ValueError(logged[0])
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(raise_errors)
    try:
        yield
        if logged:
            raise ValueError(logged[0])
    except Exception as error:  # the decoders raise several families of errors
        if isinstance(error, AtlaszarrError) and not logged:
            raise
        reason = quoted((logged or [str(error)])[0])
        hint, code = "get the file again", "damaged-file"
        if "imagecodecs" in reason or "No module named" in reason:
            hint, code = "pip install imagecodecs, or save it uncompressed", "missing-dependency"
        raise InputError(
            f"{name} is a TIFF that cannot be read: {reason or type(error).__name__}; {hint}", code=code
        ) from None
    finally:
        logger.removeFilter(raise_errors)


def read_tiff_header(path: Path, name: str) -> Header:
    """Read the header of the first series of a local TIFF: its voxel size is that of OME metadata or of ImageJ.

    The resolution tags alone are not read: many writers put the dots per inch of a screen there.

    Raises
    ------
    InputError
        If the file is damaged, or not a 3-D volume of one value per voxel.
    """
    from tifffile import TiffFile

    _validate_chain(path, name)
    with reading_tiff(name), TiffFile(path) as tiff:
        if not tiff.series:
            raise InputError(f"{name} is a TIFF without an image; get the file again", code="damaged-file")
        series = tiff.series[0]
        axes, shape = _kept_axes(series.axes, tuple(map(int, series.shape)), name)
        order: Literal["<", ">"] = ">" if tiff.byteorder == ">" else "<"
        dtype = np.dtype("V1") if series.dtype is None else series.dtype
        whole = series.dataoffset is not None
        if not whole and len(shape) == 3 and len(series.pages) != shape[0]:
            raise InputError(
                f"{name} has {len(series.pages)} pages for {shape[0]} planes; save one plane per page",
                code="not-supported",
            )
        sizes = _ome_sizes(tiff.ome_metadata) if tiff.is_ome else _imagej_sizes(tiff) if tiff.is_imagej else {}
        spacing, numbers = _spacing(sizes, axes) if len(shape) == 3 else (None, "")
        return Header(
            name,
            shape,
            dtype.newbyteorder(order) if whole else dtype,
            fastest_first=False,
            compression="none" if whole else "pages",
            offset=int(series.dataoffset or 0),
            spacing=spacing,
            reason="a TIFF does not record it reliably",
            remarks=_remarks(len(tiff.series), shape, name),
            numbers=numbers,
        )


def _validate_chain(path: Path, name: str) -> None:
    """Refuse pages that overlap or follow one another in a circle, which tifffile reads for ever.

    A TIFF is a chain of directories: a number of tags, the tags, and the offset of the next directory (TIFF 6.0,
    section 2; BigTIFF has longer ones). An offset outside the file is left to tifffile.

    Raises
    ------
    InputError
        If the directories together are longer than the file, or more than `_MOST_PAGES`.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        beginning = file.read(16)
        order: Literal["little", "big"] = "little" if beginning[:2] == b"II" else "big"
        # Bytes of an offset, of a number of tags, and of a tag.
        width, count, tag = (8, 8, 20) if int.from_bytes(beginning[2:4], order) == _BIG else (4, 2, 12)
        offset = int.from_bytes(beginning[width : 2 * width], order)
        left, pages = size, 0
        while 0 < offset < size:
            file.seek(offset)
            length = count + tag * int.from_bytes(file.read(count), order)
            left, pages = left - length - width, pages + 1
            if left < 0 or pages > _MOST_PAGES:
                raise InputError(
                    f"{name} is a TIFF whose pages overlap, form a circle, or are more than {_MOST_PAGES}; get the "
                    "file again",
                    code="damaged-file",
                )
            file.seek(offset + length)
            offset = int.from_bytes(file.read(width), order)


def _remarks(images: int, shape: tuple[int, ...], name: str) -> tuple[str, ...]:
    """A remark if there is more than one image."""
    size = " x ".join(map(str, shape))
    return (f"{name} has {images} images; the first, of {size} voxels, is read",) if images > 1 else ()


def _kept_axes(axes: str, shape: tuple[int, ...], name: str) -> tuple[str, tuple[int, ...]]:
    """The axes (tifffile's letters) and the shape, without axes of length 1 beyond three."""
    for letter, length in zip(axes, shape, strict=True):
        if letter in _COMPONENTS and length > 1:
            raise InputError(
                f"{name} has {length} {_COMPONENTS[letter]} per voxel; save one of them alone", code="wrong-dimensions"
            )
    kept = list(range(len(shape)))
    # Those that are not axes of space go first.
    for axis in sorted(kept, key=lambda axis: axes[axis] in "ZYX"):
        if len(kept) > 3 and shape[axis] == 1:
            kept.remove(axis)
    return "".join(axes[axis] for axis in kept), tuple(shape[axis] for axis in kept)


def _ome_sizes(document: str | None) -> dict[str, tuple[float, str]]:
    """Size and unit along each axis, by the OME-XML of the first image."""
    sizes = {}
    for pixels in ElementTree.fromstring(document or "<none/>").iter():
        if pixels.tag.rpartition("}")[2] == "Pixels":
            for axis in "XYZ":
                if f"PhysicalSize{axis}" in pixels.attrib:
                    unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")  # the default of the OME schema
                    sizes[axis] = (float(pixels.attrib[f"PhysicalSize{axis}"]), unit)
            break
    return sizes


def _imagej_sizes(tiff: TiffFile) -> dict[str, tuple[float, str]]:
    """Size and unit along each axis, as ImageJ writes them: pixels per unit in the tags of the first page."""
    metadata = tiff.imagej_metadata or {}
    tags, unit = tiff.pages.first.tags, str(metadata.get("unit", "")).replace("\\u00B5", "µ")
    sizes = {}
    for axis, tag in (("X", "XResolution"), ("Y", "YResolution")):
        if tag in tags:
            count, length = tags[tag].value
            if count:
                sizes[axis] = (length / count, unit)
    if "spacing" in metadata:
        sizes["Z"] = (float(metadata["spacing"]), unit)
    return sizes if unit else {}


def _spacing(sizes: dict[str, tuple[float, str]], axes: str) -> tuple[tuple[float, float, float] | None, str]:
    """The voxel size along pages, rows and columns in um, and the sizes as the file writes them."""
    numbers = " x ".join(f"{sizes[axis][0]:.6g} {sizes[axis][1]}" for axis in "ZYX" if axis in sizes)
    lengths = []
    # An axis of pages that is not named Z (I, Q, T) is the depth.
    for letter in "Z" + axes[1:]:
        size, unit = sizes.get(letter, (0.0, ""))
        length = size * float(microns_in(unit) or 0)
        if not (math.isfinite(length) and length > 0):
            return None, numbers and f"spacing {numbers}"
        lengths.append(length)
    return (lengths[0], lengths[1], lengths[2]), f"spacing {numbers}"


def tiff_planes(path: Path, header: Header) -> Iterator[NDArray[Any]]:
    """Decode the planes of a TIFF one by one, each of length 1 along the pages.

    Raises
    ------
    InputError
        If a plane cannot be decoded, or its page has other sizes than the volume.
    """
    from tifffile import TiffFile

    with ExitStack() as stack:
        with reading_tiff(header.name):
            pages: Any = stack.enter_context(TiffFile(path)).series[0].pages
        for number in range(header.shape[0]):
            with reading_tiff(header.name):
                page = pages[number]
                if page is None or math.prod(page.shape) != math.prod(header.shape[1:]):
                    raise ValueError(f"plane {number} is not {header.shape[1]} x {header.shape[2]}")
                _check_segments(page)
                plane = page.asarray(maxworkers=1).reshape(1, *header.shape[1:])
            yield plane


def _check_segments(page: Any) -> None:
    """Raise a ValueError if a segment of a page decompresses to more bytes than its shape needs."""
    most = math.prod(page.chunks) * page.dtype.itemsize
    handle = page.parent.filehandle

    def parts(offset: int, count: int) -> Iterator[bytes]:
        handle.seek(offset)
        while count > 0 and (body := handle.read(min(count, _PART))):
            count -= len(body)
            yield body

    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        validate_segment(int(page.compression), int(count), parts(offset, int(count)), most)


def validate_segment(compression: int, count: int, parts: Iterable[bytes], most: int) -> None:
    """Raise a ValueError if a segment of a TIFF decompresses to more bytes than its shape needs.

    Parameters
    ----------
    compression : int
        TIFF's number of the compression.
    count : int
        Compressed bytes.
    parts : iterable of bytes
        The compressed bytes, in parts.
    most : int
        Bytes of its shape.
    """
    if compression in (*JPEG, *JPEG_2000, *PNG):
        width, height = encoded_size(compression, b"".join(parts))
        if width * height > most:
            raise ValueError(f"a segment is an image of {width} x {height} pixels, more than its shape has")
        return
    make_decoder, safe = _DECODERS.get(compression, (None, 0))
    if make_decoder is None or count <= safe:
        return
    decoder, size, left = make_decoder(), 0, count
    for part in parts:
        if decoder.eof:
            break
        left -= len(part)
        body, more = part, True
        while more:
            out = decoder.decompress(body, _PART)
            size += len(out)
            if size > most + _SLACK:
                raise ValueError(f"a segment has more than the {most} bytes of its shape")
            body = getattr(decoder, "unconsumed_tail", b"")
            more = not decoder.eof and (bool(body) or not getattr(decoder, "needs_input", True))
    if decoder.eof and (left > _SLACK or len(decoder.unused_data) > _SLACK):
        raise ValueError("a segment has bytes after its compressed ones")


def encoded_size(compression: int, body: bytes) -> tuple[int, int]:
    """Width and height of a segment of `JPEG`, `JPEG_2000` or `PNG`, by its own header.

    Raises
    ------
    ValueError
        If it has no such header.
    """
    if compression in JPEG:
        import simplejpeg

        height, width, *_ = simplejpeg.decode_jpeg_header(body)
        return int(width), int(height)
    if compression in PNG:
        fields = body[16:24]  # after the signature, and the length and the name of the first part
    else:
        # After the marker: a length, a capability, the ends of the image along x and y, and its beginnings.
        found = body.find(_CODESTREAM)
        fields = body[found + 8 : found + 16] if found >= 0 else b""
    if len(fields) < 8:
        raise ValueError("a segment is an image without a size")
    return int.from_bytes(fields[:4], "big"), int.from_bytes(fields[4:], "big")
