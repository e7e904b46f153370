"""Decoded section images of one process, so that the blocks it computes decode each image once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from .images import ImageRequest, MissingImage, Pixels, SectionImage

#: Digest of a JPEG body, and the size that it must have.
_Key = tuple[str, int, int]
#: Decoded pixels that one process keeps, in bytes.
LIMIT = 512 * 2**20


class DecodedImages:
    """The most recently used decoded images, up to a number of bytes; one decoding at a time for each.

    Parameters
    ----------
    limit : int
        Bytes of pixels kept. A single image may be larger: it is then dropped as soon as the next one comes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._images: OrderedDict[_Key, Future[Pixels]] = OrderedDict()

    def get(self, image: SectionImage) -> Pixels:
        """The pixels of an image: uint8, shape (height, width, 3). Not to be written to."""
        key = (image.sha256, image.request.width, image.request.height)  # what is checked on decoding
        with self._lock:
            known = self._images.get(key)
            if known is None:
                future = self._images[key] = Future()
            else:
                self._images.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            future.set_result(image.request.decode(image.body))
        except BaseException as error:
            with self._lock:
                del self._images[key]
            future.set_exception(error)
            raise
        with self._lock:
            self._forget(future)
        return future.result()

    def _forget(self, newest: Future[Pixels]) -> None:
        """Drop the images used longest ago until the rest keeps within the limit."""
        whole = {key: f for key, f in self._images.items() if f.done()}
        kept = sum(f.result().nbytes for f in whole.values())
        for key, future in whole.items():
            if kept <= self._limit:
                break
            if future is not newest:
                kept -= future.result().nbytes
                del self._images[key]


DECODED = DecodedImages(LIMIT)


def pixels_of(images: Iterable[SectionImage | MissingImage]) -> Callable[[ImageRequest], Pixels | None]:
    """What gives the pixels of a request among images, decoded when they are asked for; None if they lack it."""
    had = {image.request: image for image in images if isinstance(image, SectionImage)}
    return lambda request: DECODED.get(had[request]) if request in had else None
