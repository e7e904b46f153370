"""What was fetched of slides by this process, so that images that are asked for one by one share it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .slide_file import SlideHead

#: Bytes kept per process: 30 slides of the tier for 25 um, uncompressed.
_LIMIT = 2**28
_LOCK = threading.Lock()


@dataclass
class KeptSlide:
    """A slide that one thread at a time reads.

    Attributes
    ----------
    head : SlideHead or None
        What was fetched of it; None for nothing.
    """

    head: SlideHead | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


#: By the id of an image source and the key of a slide, the least recently used first.
_KEPT: OrderedDict[tuple[str, str], KeptSlide] = OrderedDict()


@contextmanager
def kept_slide(source: str, key: str) -> Iterator[KeptSlide]:
    """Hold a slide of an image source, whose `head` the caller replaces by what it knows afterwards."""
    with _LOCK:
        slide = _KEPT.setdefault((source, key), KeptSlide())
        _KEPT.move_to_end((source, key))
    try:
        with slide.lock:
            yield slide
    finally:
        with _LOCK:
            _evict(slide)


def _evict(newest: KeptSlide) -> None:
    """Drop the least recently used slides until the rest fits into `_LIMIT`, and the newest if nothing is known of it.

    One of which nothing is known yet may be under way in another thread.
    """
    size = 0
    for key, slide in reversed(list(_KEPT.items())):
        size += 0 if slide.head is None else slide.head.fetched
        if slide.head is None if slide is newest else size > _LIMIT:
            del _KEPT[key]
