"""The strips or tiles of a TIFF slide: which of them a box of pixels needs, and the pixels that they hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..boxes import Box, area
from ..errors import ImageError, InputError
from .slide_file import Interval, SlideFile

#: The most bytes of a strip or tile: a slide of one strip at the tier for 3 um has half of it.
_LARGEST_SEGMENT = 2**30
#: Longest side of a slide, and of a tile, in pixels: three times the longest of 100055044.
_LONGEST_SIDE = 2**17
#: The tag that says which corner of the picture the first pixel is: 1, the upper left one, to 8 (TIFF 6.0, page 36).
_ORIENTATION, _LAST_ORIENTATION = 274, 8
#: Compressions whose decoded pixels have a bound, by TIFF's numbers: none, LZW, deflate, PackBits, LZMA, Zstandard,
#: JPEG, JPEG 2000, PNG, WebP (of at most 16,383 x 16,383 pixels).
_COMPRESSIONS = frozenset(
    (1, 5, 8, 32946, 32773, 34925, 34926, 50000, 6, 7, 33007, 34892, 33003, 33004, 33005, 34712, 34933, 34927, 50001)
)
#: Channels of a grey image and of one in colour.
_CHANNELS = (1, 3)


class TiffSlide:
    """The first image of a TIFF file, 8 bits a channel, in grey or in red, green and blue.

    Parameters
    ----------
    file : SlideFile
        Its header is fetched.

    Attributes
    ----------
    size : tuple of int
        Width and height in pixels.

    Raises
    ------
    ImageError
        If the file is not such a TIFF.
    """

    def __init__(self, file: SlideFile) -> None:
        from tifffile import TIFF, TiffFile

        self._file = file
        with _explaining(file), file.header():
            page: Any = TiffFile(cast(IO[bytes], file), name="slide", _multifile=False).pages.first
            self._page = page
            self._offsets, self._counts = [*map(int, page.dataoffsets)], [*map(int, page.databytecounts)]
            self._orientation = int(page.tags.valueof(_ORIENTATION, 1))
            self._tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
            self.size = (int(page.imagewidth), int(page.imagelength))
            length = int(page.tilelength) if page.is_tiled else min(int(page.rowsperstrip), self.size[1])
            self._tile = (int(page.tilewidth) if page.is_tiled else self.size[0], length)
            self._validate()
            if page.compression != 1:
                TIFF.DECOMPRESSORS[page.compression]  # fails if its package is missing, before pixels are fetched
        self._grid = (-(-self.size[0] // self._tile[0]), -(-self.size[1] // self._tile[1]))
        self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
        self._segment_bytes = math.prod(self._tile) * (1 if self._planes > 1 else page.samplesperpixel)
        if self._segment_bytes > _LARGEST_SEGMENT:
            raise self._unsupported(f"strips or tiles of {self._segment_bytes:,} bytes", "slide-too-large")
        if len(self._offsets) != len(self._counts) or len(self._offsets) < math.prod(self._grid) * self._planes:
            raise ImageError(f"slide {file.name} lacks strips or tiles", code="slide-damaged")
        if page.compression == 1:
            # The count of some writers runs on to the end of the file.
            self._counts = [min(count, self._segment_bytes) for count in self._counts]
        self._validate_overlaps()

    def _validate_overlaps(self) -> None:
        """Raise ImageError if two strips or tiles have a byte in common: one of them would have the other's pixels."""
        filled = sorted((at, at + count) for at, count in zip(self._offsets, self._counts, strict=True) if at and count)
        if any(before[1] > after[0] for before, after in pairwise(filled)):
            raise ImageError(f"slide {self._file.name} is damaged: its strips or tiles overlap", code="slide-damaged")

    def validate_size(self, size: tuple[int, int]) -> None:
        """Raise ImageError if the slide has another size than in its record, which rounds down.

        One pixel more is fine.
        """
        if not all(0 <= found - recorded <= 1 for found, recorded in zip(self.size, size, strict=True)):
            smaller = self.size[0] < size[0] or self.size[1] < size[1]
            raise ImageError(
                f"slide {self._file.name} has {self.size[0]} x {self.size[1]} pixels, "
                f"{'less than' if smaller else 'not'} the {size[0]} x {size[1]} of its record",
                code="slide-size-mismatch",
            )

    def _validate(self) -> None:
        page, sides = self._page, (*self.size, *self._tile)
        if min(sides) < 1:
            raise ImageError(f"slide {self._file.name} is damaged: a side of it has no pixels", code="slide-damaged")
        if max(sides) > _LONGEST_SIDE:
            text = "{} x {} pixels, in strips or tiles of {} x {}".format(*sides)
            raise ImageError(
                f"slide {self._file.name} has {text}; a side of at most {_LONGEST_SIDE:,} is supported",
                code="slide-too-large",
            )
        if page.imagedepth != 1 or page.samplesperpixel not in _CHANNELS:
            raise self._unsupported(f"{page.samplesperpixel} channels")
        if page.dtype != np.uint8 or page.bitspersample != 8:
            raise self._unsupported(f"{page.bitspersample} bits a channel ({page.dtype})")
        if page.compression not in _COMPRESSIONS:
            name = getattr(page.compression, "name", page.compression)
            raise ImageError(
                f"slide {self._file.name} has compression {name}, which is not supported", code="slide-compression"
            )
        if page.planarconfig not in (1, 2):
            raise self._unsupported(f"planar configuration {page.planarconfig}")
        if 2 <= self._orientation <= _LAST_ORIENTATION:
            raise ImageError(
                f"slide {self._file.name} is stored turned or mirrored (its orientation is {self._orientation}); only "
                "orientation 1 is supported",
                code="slide-turned",
            )
        # 0 and 1 are grey, 2 is red, green and blue; decoders of JPEG turn YCbCr (6) into it.
        as_jpeg = page.photometric == 6 and page.compression in (6, 7, 34892, 33007)
        if page.photometric not in ((0, 1) if page.samplesperpixel == 1 else (2,)) and not as_jpeg:
            raise self._unsupported(f"photometric interpretation {getattr(page.photometric, 'name', page.photometric)}")

    def _unsupported(self, what: str, code: str = "slide-not-rgb") -> ImageError:
        return ImageError(
            f"slide {self._file.name} has {what}; slides of 8 bits in grey or RGB are supported", code=code
        )

    def intervals(self, boxes: Sequence[Box]) -> list[Interval]:
        """The bytes of the strips or tiles that boxes touch.

        Raises
        ------
        ImageError
            If a strip or tile has no bytes.
        """
        found = []
        for segment in self._touched(boxes):
            offset, count = self._offsets[segment], self._counts[segment]
            if offset < 1 or count < 1:
                raise ImageError(
                    f"slide {self._file.name} is cut short: strip or tile {segment} has no bytes",
                    code="slide-truncated",
                )
            found.append((offset, offset + count))
        return found

    def crops(self, boxes: Sequence[Box]) -> list[NDArray[np.uint8]]:
        """The pixels of boxes (left, top, right, bottom), whose `intervals` are known.

        Returns
        -------
        list of ndarray, uint8, shape (height, width, 3)

        Raises
        ------
        ImageError
            If a strip or tile cannot be decoded.
        """
        crops = [np.empty((bottom - top, right - left, 3), np.uint8) for left, top, right, bottom in boxes]
        for segment, touching in self._touched(boxes).items():
            pixels, plane, left, top = self._decoded(segment)
            for number in touching:
                _paste(crops[number], boxes[number], pixels, plane, left, top)
        return crops

    def _decoded(self, segment: int) -> tuple[NDArray[np.uint8], int | None, int, int]:
        """Pixels of a segment (rows, columns, channels), its channel if it holds one of three, its corner."""
        # Imported here, since few clients read slides.
        from ..reference_volumes.tiff import JPEG, JPEG_2000, PNG, encoded_size, validate_segment

        offset, count = self._offsets[segment], self._counts[segment]
        body = self._file.bytes_of((offset, offset + count))
        with _explaining(self._file):
            compression = int(self._page.compression)
            validate_segment(compression, count, iter([body]), self._segment_bytes)
            if compression in (*JPEG, *JPEG_2000, *PNG):
                self._validate_encoded(segment, encoded_size(compression, body))
            decoded, (plane, _, top, left, _), shape = self._page.decode(body, segment, **self._tables)
            if decoded is None or decoded.dtype != np.uint8 or decoded.ndim != 4:
                raise ValueError(f"strip or tile {segment} has no pixels of 8 bits")
        pixels = decoded[0, : shape[1], : shape[2]]
        if self._page.photometric == 0:
            pixels = 255 - pixels
        return pixels, plane if self._planes > 1 else None, int(left), int(top)

    def _validate_encoded(self, segment: int, size: tuple[int, int]) -> None:
        """Raise a ValueError if a segment that is an image has another size than its place.

        The last one of a row or column may have the rest of the slide alone.
        """
        row, column = divmod(segment % math.prod(self._grid), self._grid[0])
        for found, length, whole, position in zip(size, self._tile, self.size, (column, row), strict=True):
            if found not in (length, min(length, whole - position * length)):
                raise ValueError(f"strip or tile {segment} is an image of {size[0]} x {size[1]} pixels")

    def _touched(self, boxes: Sequence[Box]) -> dict[int, list[int]]:
        """The segments that boxes touch, each with the numbers of the boxes, in the order of the file's grid."""
        across, down = self._grid
        width, height = self._tile
        found: dict[int, list[int]] = {}
        for number, box in enumerate(boxes):
            if not area(box):
                continue
            left, top, right, bottom = box
            rows, columns = range(top // height, -(-bottom // height)), range(left // width, -(-right // width))
            for plane, row, column in product(range(self._planes), rows, columns):
                found.setdefault((plane * down + row) * across + column, []).append(number)
        return dict(sorted(found.items()))


def _paste(
    crop: NDArray[np.uint8], box: Box, pixels: NDArray[np.uint8], plane: int | None, left: int, top: int
) -> None:
    """Copy what a segment at (left, top) has of a box; a grey one into all channels."""
    rows, columns = pixels.shape[:2]
    x, y = max(left, box[0]), max(top, box[1])
    x_end, y_end = min(left + columns, box[2]), min(top + rows, box[3])
    part = pixels[y - top : y_end - top, x - left : x_end - left]
    place = crop[y - box[1] : y_end - box[1], x - box[0] : x_end - box[0]]
    if plane is None:
        place[...] = part
    else:
        place[..., plane] = part[..., 0]


@contextmanager
def _explaining(file: SlideFile) -> Iterator[None]:
    """Turn the errors of `reading_tiff` into an ImageError."""
    from ..reference_volumes.tiff import reading_tiff

    try:
        with reading_tiff(f"slide {file.name}"):
            yield
    except InputError as error:
        message = str(error).rpartition("; ")[0]
        if error.code == "missing-dependency":
            raise ImageError(
                f"{message}; install atlaszarr[slides], or use the image source api", code=error.code
            ) from None
        file.validate_header()
        raise ImageError(message, code="slide-damaged") from None
