"""A tier of a section image as a grid of windows, each of them one request: which of them some pixels take.

Knows nothing of grids or reference spaces: boxes are in pixels of the tier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..boxes import Box
from .images import ImageRequest, Pixels
from .records import Section

#: Side of a window at most, in pixels of the tier: 12 MB decoded.
WINDOW = 2048
#: Pixels of a whole image at most, so that it may be decoded in one piece: 50 MB.
LARGEST_WHOLE = 4096**2
#: What a request costs, in pixels that could be fetched meanwhile: 0.05 s at 20 requests a second, in which a line of
#: 12 Mbit/s brings 75 kB, or 0.5 million pixels of 0.157 bytes (see `atlaszarr.dataset_build.plan`).
_REQUEST = 500_000


@dataclass(frozen=True)
class TierImage:
    """The image of a section at a tier, and how it is fetched.

    Attributes
    ----------
    whole : ImageRequest
        For all of it.
    origin : tuple of int
        (x, y) of its first pixel on the slide, in full-resolution pixels.
    windows : tuple of int
        Into how many windows it is cut, across and down; (1, 1) if it is fetched whole.
    """

    whole: ImageRequest
    origin: tuple[int, int]
    windows: tuple[int, int] = (1, 1)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the tier."""
        return self.whole.width, self.whole.height

    def requests(self, box: Box) -> Iterator[ImageRequest]:
        """The requests that a box of pixels takes, row by row; none for an empty one."""
        return (self._request(window) for window in self._windows(box))

    def crop(self, box: Box, fetched: Callable[[ImageRequest], Pixels | None]) -> Pixels | None:
        """The pixels of a box.

        Parameters
        ----------
        box : tuple of int
            Within the image.
        fetched : callable
            The pixels of a request; None if they could not be had.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3), or None
            None if any of its windows could not be had.
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
    """The cheaper way to fetch what some boxes of a section image show: all of it, or just the windows they touch.

    An image of more than 4096 x 4096 pixels is never fetched whole, so that memory stays bounded. Of a smaller one the
    cost is that of its pixels and, for every request, that of half a million more.

    Parameters
    ----------
    section : Section
    whole : ImageRequest
        For all of the image at the tier wanted.
    boxes : iterable of tuple of int, optional
        In pixels of the tier, within the image; by default what is shown is not known, and taken to be all.
    """
    windows = (-(-whole.width // WINDOW), -(-whole.height // WINDOW))
    cut = TierImage(whole, (section.x, section.y), windows)
    pixels = whole.width * whole.height
    if pixels > LARGEST_WHOLE:
        return cut
    touched = {request for box in boxes or () for request in cut.requests(box)}
    cost = sum(request.width * request.height + _REQUEST for request in touched)
    return cut if touched and cost < pixels + _REQUEST else TierImage(whole, cut.origin)
