"""Section images of the Allen API: requests, validated answers, decoded pixels; tiers, and windows of large images."""

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
#: `primary` is the service's default.
VIEWS = ("primary", "expression", "projection")
#: Longest side of a window, in pixels of the tier: 12 MB decoded.
WINDOW = 2048
#: Largest image that is fetched whole, in pixels: 50 MB decoded.
LARGEST_WHOLE = 4096**2
#: Largest image of one request, in pixels: 3 GB decoded. The largest images of the Allen Institute are about 30,000 x
#: 30,000 pixels.
LARGEST_IMAGE = 2**30
#: Largest JPEG, in bytes: seven times the size of the largest image at 0.157 bytes per pixel.
_LARGEST_JPEG = 2**30
#: Cost of a request in pixels: 0.05 s at 20 requests per second. At 12 Mbit/s that is 75 kB, or half a million pixels
#: of 0.157 bytes (see `atlaszarr.dataset_build.plan`).
_REQUEST_COST = 500_000
#: Decoded pixels kept in memory per process, in bytes.
LIMIT = 512 * 2**20


@dataclass(frozen=True)
class ImageRequest:
    """All parameters of a section image: equal requests get equal bytes.

    Attributes
    ----------
    image_id : int
    width, height : int
        Size of the answer, in pixels of the tier.
    downsample : int
        Tier: each step halves the size.
    view : str
        One of `VIEWS`.
    left, top : int or None
        Corner of a region, in full-resolution pixels of the slide (the image starts at its record's x and y); None
        for the whole image.
    quality : int or None
        JPEG quality, 0 to 100; None for the service's default.
    range : tuple of int or None
        (r0, r1, g0, g1, b0, b1) of a fluorescence image, 0 to 4095.
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
    def offset(self) -> tuple[float, float]:
        """Where the whole image begins within the full-resolution image, along x and y, in full-resolution pixels."""
        return (0.0, 0.0)

    def window(self, origin: tuple[int, int], box: Box) -> ImageRequest:
        """The request for a box (left, top, right, bottom) of a whole image, whose origin on the slide is (x, y)."""
        left, top, right, bottom = box
        x, y = origin[0] + (left << self.downsample), origin[1] + (top << self.downsample)
        return replace(self, left=x, top=y, width=right - left, height=bottom - top)

    @property
    def name(self) -> str:
        """The image's name within a build: its id, followed by the corner of a region."""
        return f"{self.image_id}" if self.left is None else f"{self.image_id}/{self.left},{self.top}"

    def url(self, api_url: str) -> str:
        """The URL at the image service."""
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
        """The cache key: SHA-256 of the API's URL and all parameters."""
        identity = {"api_url": api_url, **{name: getattr(self, name) for name in self.__dataclass_fields__}}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def largest_body(self) -> int:
        """Largest size of a JPEG that is read, in bytes: more than the uncompressed pixels, at most 1 GiB."""
        return min(4 * self.width * self.height + 2**16, _LARGEST_JPEG)

    def decode(self, body: bytes) -> Pixels:
        """Validate and decode an answer.

        To bound the memory, the size in the header is compared with the requested size before pixels are decoded.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3)

        Raises
        ------
        ImageError
            If the body is not a JPEG, does not have the requested size or three channels, or is damaged.
        """
        import simplejpeg

        label = f"section image {self.image_id} at downsample {self.downsample}"
        if not body.startswith(b"\xff\xd8"):
            raise ImageError(
                f"{label}: the answer of {len(body)} bytes is not a JPEG image: {body[:40]!r}", code="not-a-jpeg"
            )
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(body)
            if (width, height) != (self.width, self.height):
                raise ImageError(
                    f"{label}: is {width} x {height} pixels, not {self.width} x {self.height}", code="wrong-image-size"
                )
            if colours not in ("YCbCr", "RGB"):
                raise ImageError(f"{label}: has colour space {colours}, not three channels", code="wrong-channels")
            return np.asarray(simplejpeg.decode_jpeg(body, colorspace="RGB"))
        except ValueError as error:
            raise ImageError(f"{label}: cannot be decoded: {error}", code="damaged-image") from error


@dataclass(frozen=True)
class SectionImage:
    """A validated section image, still as JPEG: small enough to keep and to send to workers."""

    request: ImageRequest
    body: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Digest of the JPEG body."""
        return hashlib.sha256(self.body).hexdigest()

    def pixels(self) -> Pixels:
        """The decoded pixels; the most recently used ones stay in memory, so they must not be written to.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3)

        Raises
        ------
        ImageError
            See `ImageRequest.decode`.
        """
        key = (self.sha256, self.request.width, self.request.height)  # all that `decode` depends on
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
            _evict(future)
        return future.result()


#: Decoded images by digest and size, the least recently used first; futures, so that each image is decoded once.
_DECODED: OrderedDict[tuple[str, int, int], Future[Pixels]] = OrderedDict()
_LOCK = threading.Lock()


def _evict(newest: Future[Pixels]) -> None:
    """Drop the least recently used images until the rest fits into `LIMIT`; the newest stays, whatever its size."""
    done = {key: future for key, future in _DECODED.items() if future.done()}
    size = sum(future.result().nbytes for future in done.values())
    for key, future in done.items():
        if size <= LIMIT:
            break
        if future is not newest:
            size -= future.result().nbytes
            del _DECODED[key]


def release_pixels(digests: Iterable[str]) -> None:
    """Drop the decoded pixels of images, given the SHA-256 of their JPEG bodies."""
    unwanted = set(digests)
    with _LOCK:
        for key in [key for key, future in _DECODED.items() if key[0] in unwanted and future.done()]:
            del _DECODED[key]


@dataclass(frozen=True)
class MissingImage:
    """A section image that could not be fetched, with the reason."""

    request: ImageRequest
    url: str
    reason: str


@dataclass(frozen=True)
class ImagedSections:
    """The sections of a dataset that have a view, and the requests for their images.

    Attributes
    ----------
    sections : tuple of Section
        In order of depth.
    requests : tuple of ImageRequest
        One whole image per section.
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
    """Select the images of a dataset for a grid of a resolution.

    Parameters
    ----------
    dataset : SectionDataset
    resolution : float
        Voxel size of the grid, in um.
    downsample : int, optional
        Tier of all images; default for each section the coarsest whose pixel is not larger than `resolution`.
    view, quality, range
        Same as in `AllenClient.image`.

    Raises
    ------
    InputError
        If an option is invalid.
    RecordError
        If no section has the view.
    """
    validate_options(view, quality, range)
    from .slide_images import refuse_options, slide_crop  # their requests are of the class of this module

    if any(section.slide is not None for section in dataset.sections):
        refuse_options(view, quality, range)
    sections = tuple(section for section in dataset.sections if view == "primary" or section.expression)
    if not sections:
        raise RecordError(
            f"section dataset {dataset.id} has no section with alignment and a {view} view", code="no-sections"
        )
    skipped = tuple(
        SkippedSection(section.image_id, section.section_number, f"has no {view} view")
        for section in dataset.sections
        if section not in sections
    )
    requests = tuple(
        whole_image(
            section,
            tier_for(section, resolution) if downsample is None else downsample,
            view=view,
            quality=quality,
            range=range,
        )
        if section.slide is None
        else slide_crop(section, section.slide, resolution, downsample)
        for section in sections
    )
    return ImagedSections(sections, requests, skipped)


def whole_image(section: Section, downsample: int, **options: Any) -> ImageRequest:
    """The request for a whole section image at a tier; InputError if the image has no such tier."""
    size = tier_size(section.image_id, section.width, section.height, downsample)
    return ImageRequest(section.image_id, *size, downsample, **options)


def tier_size(image_id: int, width: int, height: int, downsample: int) -> tuple[int, int]:
    """Width and height of a section image at a tier: floor(width / 2^d), floor(height / 2^d).

    Raises
    ------
    InputError
        If `downsample` is negative or leaves less than a pixel.
    """
    if downsample < 0 or not min(width, height) >> downsample:
        raise InputError(
            f"downsample {downsample} is not a tier of section image {image_id} of {width} x {height} pixels; choose "
            f"0 to {min(width, height).bit_length() - 1}",
            code="tier-out-of-range",
        )
    return width >> downsample, height >> downsample


def tier_for(section: Section, resolution: float) -> int:
    """The coarsest tier of a section image whose pixel is not larger than `resolution` (um)."""
    return max((d for d in range(section.tier_count) if section.resolution * 2**d <= resolution), default=0)


def validate_options(view: str, quality: int | None, range: tuple[int, ...] | None) -> None:
    """Raise InputError for an option that the image service does not support."""
    if view not in VIEWS:
        raise InputError(f"view {view!r} is not known; choose from {', '.join(VIEWS)}", code="unknown-value")
    if quality is not None and not 0 <= quality <= 100:
        raise InputError(f"quality {quality} is outside 0 to 100", code="out-of-range")
    if range is not None:
        pairs = list(zip(range[::2], range[1::2], strict=False))
        if len(range) != 6 or not all(0 <= low < high <= 4095 for low, high in pairs):
            raise InputError(
                f"range {range} is not six numbers R0,R1,G0,G1,B0,B1 with 0 <= low < high <= 4095", code="out-of-range"
            )


@dataclass(frozen=True)
class TierImage:
    """The image of a section at a tier, fetched whole or in windows.

    Attributes
    ----------
    whole : ImageRequest
        The request for the whole image.
    origin : tuple of int
        (x, y) of the first pixel on the slide, in full-resolution pixels.
    windows : tuple of int
        Number of windows across and down; (1, 1) if the image is fetched whole.
    """

    whole: ImageRequest
    origin: tuple[int, int]
    windows: tuple[int, int] = (1, 1)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the tier."""
        return self.whole.width, self.whole.height

    def requests(self, box: Box) -> Iterator[ImageRequest]:
        """The requests for a box of pixels, row by row; none for an empty box."""
        return (self._request(window) for window in self._windows(box))

    def crop(self, box: Box, fetched: Callable[[ImageRequest], Pixels | None]) -> Pixels | None:
        """The pixels of a box.

        Parameters
        ----------
        box : tuple of int
            (left, top, right, bottom) within the image.
        fetched : callable
            Returns the pixels of a request, or None if they are missing.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3), or None
            None if a window of the box is missing.
        """
        left, top, right, bottom = box
        crop = np.empty((bottom - top, right - left, 3), np.uint8)
        for window in self._windows(box):
            pixels = fetched(self._request(window))
            if pixels is None:
                return None
            x, y, x_end, y_end = (*map(max, window[:2], box[:2]), *map(min, window[2:], box[2:]))
            if (x, y, x_end, y_end) == box:
                return pixels[top - window[1] : bottom - window[1], left - window[0] : right - window[0]]
            part = pixels[y - window[1] : y_end - window[1], x - window[0] : x_end - window[0]]
            crop[y - top : y_end - top, x - left : x_end - left] = part
        return crop

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
        return self.whole if self.windows == (1, 1) else self.whole.window(self.origin, window)


def tier_image(section: Section, whole: ImageRequest, boxes: Iterable[Box] | None = None) -> TierImage:
    """Choose the cheaper way to fetch boxes of a section image: the whole image, or the windows that the boxes touch.

    To bound the memory, an image of more than 4096 x 4096 pixels is always fetched in windows. Otherwise the cost is
    the number of pixels plus half a million per request.

    Parameters
    ----------
    section : Section
    whole : ImageRequest
        The request for the whole image at the tier.
    boxes : iterable of tuple of int, optional
        (left, top, right, bottom) in pixels of the tier; default the whole image.
    """
    windows = (-(-whole.width // WINDOW), -(-whole.height // WINDOW))
    cut = TierImage(whole, (section.x, section.y), windows)
    pixels = whole.width * whole.height
    if pixels > LARGEST_WHOLE:
        return cut
    touched = {request for box in boxes or () for request in cut.requests(box)}
    cost = sum(request.width * request.height + _REQUEST_COST for request in touched)
    return cut if touched and cost < pixels + _REQUEST_COST else TierImage(whole, cut.origin)


def pixels_of(images: Iterable[SectionImage | MissingImage]) -> Callable[[ImageRequest], Pixels | None]:
    """A function that returns the pixels of a request, or None if `images` lacks its image."""
    fetched = {image.request: image for image in images if isinstance(image, SectionImage)}
    return lambda request: fetched[request].pixels() if request in fetched else None
