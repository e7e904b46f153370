"""Decoded section images of one process, so that the blocks it computes decode each image once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from .images import Pixels, SectionImage


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
        self._images: OrderedDict[str, Future[Pixels]] = OrderedDict()

    def get(self, image: SectionImage) -> Pixels:
        """The pixels of an image: uint8, shape (height, width, 3). Not to be written to."""
        with self._lock:
            known = self._images.get(image.sha256)
            if known is None:
                future = self._images[image.sha256] = Future()
            else:
                self._images.move_to_end(image.sha256)
        if known is not None:
            return known.result()
        try:
            future.set_result(image.request.decode(image.body))
        except BaseException as error:
            future.set_exception(error)
            with self._lock:
                del self._images[image.sha256]
            raise
        with self._lock:
            kept = sum(f.result().nbytes for f in self._images.values() if f.done())
            for digest, other in list(self._images.items()):
                if kept <= self._limit:
                    break
                if other.done() and other is not future:
                    kept -= other.result().nbytes
                    del self._images[digest]
        return future.result()
