"""Section images as the image service serves them: requests, checked answers, and their decoded pixels.

Then which images of a dataset a resolution takes, and which windows of a large one.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from ..boxes import Box
from ..errors import ImageError, InputError, RecordError
from .records import Section, SectionDataset, SkippedSection

Pixels = NDArray[np.uint8]
#: `primary` is what the service answers without being asked for a view.
VIEWS = ("primary", "expression", "projection")
#: Longest side of a window, in pixels of the tier: 12 MB decoded.
WINDOW = 2048
#: Most pixels of an image that is fetched whole: 50 MB decoded.
LARGEST_WHOLE = 4096**2
#: Cost of a request in pixels: 0.05 s at 20 requests a second, in which a line of 12 Mbit/s brings 75 kB, or half a
#: million pixels of 0.157 bytes (see `atlaszarr.dataset_build.plan`).
_REQUEST = 500_000
#: Bytes of decoded pixels that one process keeps.
LIMIT = 512 * 2**20


@dataclass(frozen=True)
class ImageRequest:
    """All that defines a section image: two equal requests get equal bytes.

    Attributes
    ----------
    image_id : int
    width, height : int
        Size of the answer, in pixels of the tier.
    downsample : int
        The tier: every step halves.
    view : str
        One of `VIEWS`.
    left, top : int or None
        Corner of a region, in full-resolution pixels of the slide, on which the image begins at its record's
        x and y; None for the whole image.
    quality : int or None
        JPEG quality, 0 to 100; None for the service's own.
    range : tuple of int or None
        Six limits r0, r1, g0, g1, b0, b1 of a fluorescence image, 0 to 4095.
    """

    image_id: int
    width: int
    height: int
    downsample: int = 0
    view: str = "primary"
    left: int | None = None
    top: int | None = None
    quality: int | None = None
    range: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Its name within a build: the id, and of a region the corner."""
        return f"{self.image_id}" if self.left is None else f"{self.image_id}/{self.left},{self.top}"

    def url(self, api_url: str) -> str:
        """The address at the image service."""
        parameters: dict[str, Any] = {"downsample": self.downsample}
        if self.quality is not None:
            parameters["quality"] = self.quality
        if self.view != "primary":
            parameters["view"] = self.view
        if self.range is not None:
            parameters["range"] = ",".join(map(str, self.range))
        if self.left is not None:
            parameters |= {"left": self.left, "top": self.top, "width": self.width, "height": self.height}
        return f"{api_url}/section_image_download/{self.image_id}?{urlencode(parameters, safe=',')}"

    def key(self, api_url: str) -> str:
        """The key in a cache: SHA-256 of all that defines the image, the service included."""
        identity = {"api_url": api_url, **{name: getattr(self, name) for name in self.__dataclass_fields__}}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def largest_body(self) -> int:
        """Most bytes of a JPEG of this size: more than its pixels take uncompressed."""
        return 4 * self.width * self.height + 2**16

    def decode(self, body: bytes) -> Pixels:
        """Check an answer and decode it.

        The size in the header is compared with the requested one before a pixel is decoded: that bounds the memory.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3)

        Raises
        ------
        ImageError
            If it is not a JPEG, has another size, does not have three channels, or is damaged.
        """
        import simplejpeg

        label = f"section image {self.image_id} at downsample {self.downsample}"
        if not body.startswith(b"\xff\xd8"):
            raise ImageError(f"{label}: the answer of {len(body)} bytes is not a JPEG image: {body[:40]!r}")
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(body)
            if (width, height) != (self.width, self.height):
                raise ImageError(f"{label}: is {width} x {height} pixels, not {self.width} x {self.height}")
            if colours not in ("YCbCr", "RGB"):
                raise ImageError(f"{label}: has colour space {colours}, not three channels")
            return np.asarray(simplejpeg.decode_jpeg(body, colorspace="RGB"))
        except ValueError as error:
            raise ImageError(f"{label}: cannot be decoded: {error}") from error


@dataclass(frozen=True)
class SectionImage:
    """A section image that passed its checks, still as JPEG: small enough to send to workers and to keep."""

    request: ImageRequest
    body: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Digest of the JPEG body."""
        return hashlib.sha256(self.body).hexdigest()

    def pixels(self) -> Pixels:
        """Its pixels, decoded once while they are among the most recently used ones; not to be written to.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3)

        Raises
        ------
        ImageError
            See `ImageRequest.decode`.
        """
        key = (self.sha256, self.request.width, self.request.height)  # what decoding checks
        with _LOCK:
            known = _DECODED.get(key)
            if known is None:
                future = _DECODED[key] = Future()
            else:
                _DECODED.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            future.set_result(self.request.decode(self.body))
        except BaseException as error:
            with _LOCK:
                del _DECODED[key]
            future.set_exception(error)
            raise
        with _LOCK:
            _forget(future)
        return future.result()


#: Decoded images by digest and size, the least recently used first; a future, so that each is decoded once.
_DECODED: OrderedDict[tuple[str, int, int], Future[Pixels]] = OrderedDict()
_LOCK = threading.Lock()


def _forget(newest: Future[Pixels]) -> None:
    """Drop the least recently used images until the rest keeps within `LIMIT`; the newest stays, however large."""
    done = {key: future for key, future in _DECODED.items() if future.done()}
    kept = sum(future.result().nbytes for future in done.values())
    for key, future in done.items():
        if kept <= LIMIT:
            break
        if future is not newest:
            kept -= future.result().nbytes
            del _DECODED[key]


@dataclass(frozen=True)
class MissingImage:
    """A section image that could not be fetched, and why."""

    request: ImageRequest
    url: str
    reason: str


@dataclass(frozen=True)
class ImagedSections:
    """The sections of a dataset that have a view, and the requests for its images.

    Attributes
    ----------
    sections : tuple of Section
        In order of depth.
    requests : tuple of ImageRequest
        The whole image of each, at its tier.
    skipped : tuple of SkippedSection
        The sections without that view.
    """

    sections: tuple[Section, ...]
    requests: tuple[ImageRequest, ...]
    skipped: tuple[SkippedSection, ...]


def imaged_sections(
    dataset: SectionDataset,
    resolution: float,
    *,
    downsample: int | None = None,
    view: str = "primary",
    quality: int | None = None,
    range: tuple[int, ...] | None = None,
) -> ImagedSections:
    """The images of a dataset for a resolution.

    Parameters
    ----------
    dataset : SectionDataset
    resolution : float
        Of the grid that the images are registered to, in um.
    downsample : int, optional
        Tier of all images; default for each the coarsest whose pixel is not larger than `resolution`.
    view, quality, range
        To the image service; see `AllenClient.image`.

    Raises
    ------
    InputError
        If an option is not known or does not fit.
    RecordError
        If no section has the view.
    """
    check_options(view, quality, range)
    if downsample is not None and downsample < 0:
        raise InputError(f"downsample {downsample} must not be negative")
    shown = tuple(section for section in dataset.sections if view == "primary" or section.expression)
    if not shown:
        raise RecordError(f"section dataset {dataset.id} has no section with alignment and a {view} view")
    skipped = tuple(
        SkippedSection(section.image_id, section.section_number, f"has no {view} view")
        for section in dataset.sections
        if section not in shown
    )
    requests = tuple(
        whole_image(
            section,
            tier_for(section, resolution) if downsample is None else downsample,
            view=view,
            quality=quality,
            range=range,
        )
        for section in shown
    )
    return ImagedSections(shown, requests, skipped)


def whole_image(section: Section, downsample: int, **options: Any) -> ImageRequest:
    """The request for a whole tier: floor(width / 2^d) x floor(height / 2^d) pixels.

    Raises
    ------
    InputError
        If nothing is left of the image at this tier.
    """
    width, height = section.width >> downsample, section.height >> downsample
    if not (width and height):
        raise InputError(
            f"downsample {downsample} leaves nothing of section image {section.image_id} "
            f"({section.width} x {section.height}); the coarsest tier is {section.tier_count - 1}"
        )
    return ImageRequest(section.image_id, width, height, downsample, **options)


def tier_for(section: Section, resolution: float) -> int:
    """The coarsest tier of a section image whose pixel is not larger than a voxel of `resolution` um."""
    fitting = [d for d in range(section.tier_count) if section.resolution * 2**d <= resolution]
    return fitting[-1] if fitting else 0


def check_options(view: str, quality: int | None, range: tuple[int, ...] | None) -> None:
    """Refuse options that the image service does not know (InputError)."""
    if view not in VIEWS:
        raise InputError(f"view {view!r} is not known; choose from {', '.join(VIEWS)}")
    if quality is not None and not 0 <= quality <= 100:
        raise InputError(f"quality {quality} is outside 0 to 100")
    if range is not None:
        pairs = list(zip(range[::2], range[1::2], strict=False))
        if len(range) != 6 or not all(0 <= low < high <= 4095 for low, high in pairs):
            raise InputError(f"range {range} is not six numbers R0,R1,G0,G1,B0,B1 with 0 <= low < high <= 4095")


@dataclass(frozen=True)
class TierImage:
    """The image of a section at a tier, fetched whole or in windows.

    Attributes
    ----------
    whole : ImageRequest
        The request for all of it.
    origin : tuple of int
        (x, y) of its first pixel on the slide, in full-resolution pixels.
    windows : tuple of int
        Number of windows across and down; (1, 1) if it is fetched whole.
    """

    whole: ImageRequest
    origin: tuple[int, int]
    windows: tuple[int, int] = (1, 1)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the tier."""
        return self.whole.width, self.whole.height

    def requests(self, box: Box) -> Iterator[ImageRequest]:
        """The requests for a box of pixels, row by row; none if it is empty."""
        return (self._request(window) for window in self._windows(box))

    def crop(self, box: Box, fetched: Callable[[ImageRequest], Pixels | None]) -> Pixels | None:
        """The pixels of a box.

        Parameters
        ----------
        box : tuple of int
            Within the image.
        fetched : callable
            The pixels of a request; None if they are missing.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3), or None
            None if any of its windows is missing.
        """
        left, top, right, bottom = box
        found = np.empty((bottom - top, right - left, 3), np.uint8)
        for window in self._windows(box):
            pixels = fetched(self._request(window))
            if pixels is None:
                return None
            x, y, x_end, y_end = (*map(max, window[:2], box[:2]), *map(min, window[2:], box[2:]))
            if (x, y, x_end, y_end) == box:
                return pixels[top - window[1] : bottom - window[1], left - window[0] : right - window[0]]
            part = pixels[y - window[1] : y_end - window[1], x - window[0] : x_end - window[0]]
            found[y - top : y_end - top, x - left : x_end - left] = part
        return found

    def _windows(self, box: Box) -> Iterator[Box]:
        left, top, right, bottom = box
        if left >= right or top >= bottom:
            return
        width, height = self.size
        w, h = (-(-length // count) for length, count in zip(self.size, self.windows, strict=True))
        for y in range(top // h * h, bottom, h):
            for x in range(left // w * w, right, w):
                yield (x, y, min(x + w, width), min(y + h, height))

    def _request(self, window: Box) -> ImageRequest:
        if self.windows == (1, 1):
            return self.whole
        left, top, right, bottom = window
        x, y = self.origin
        tier = self.whole.downsample
        return replace(
            self.whole, left=x + (left << tier), top=y + (top << tier), width=right - left, height=bottom - top
        )


def tier_image(section: Section, whole: ImageRequest, boxes: Iterable[Box] | None = None) -> TierImage:
    """The cheaper way to fetch some boxes of a section image: all of it, or the windows they touch.

    An image of more than 4096 x 4096 pixels is never fetched whole: that bounds the memory. Otherwise the cost counts
    pixels, and half a million more for every request.

    Parameters
    ----------
    section : Section
    whole : ImageRequest
        The request for all of the image at the tier.
    boxes : iterable of tuple of int, optional
        In pixels of the tier, within the image; default all of it.
    """
    windows = (-(-whole.width // WINDOW), -(-whole.height // WINDOW))
    cut = TierImage(whole, (section.x, section.y), windows)
    pixels = whole.width * whole.height
    if pixels > LARGEST_WHOLE:
        return cut
    touched = {request for box in boxes or () for request in cut.requests(box)}
    cost = sum(request.width * request.height + _REQUEST for request in touched)
    return cut if touched and cost < pixels + _REQUEST else TierImage(whole, cut.origin)


def pixels_of(images: Iterable[SectionImage | MissingImage]) -> Callable[[ImageRequest], Pixels | None]:
    """A function from a request to its pixels among some images; None if it is missing."""
    found = {image.request: image for image in images if isinstance(image, SectionImage)}
    return lambda request: found[request].pixels() if request in found else None
