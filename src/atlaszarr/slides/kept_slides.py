"""Parts of slides that this process has fetched, kept in memory so that requests for single images share them."""

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
    """A slide, read by one thread at a time.

    Attributes
    ----------
    head : SlideHead or None
        The parts that are fetched; None if there are none.
    """

    head: SlideHead | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


#: By the id of an image source and the key of a slide, the least recently used first.
_KEPT: OrderedDict[tuple[str, str], KeptSlide] = OrderedDict()


@contextmanager
def kept_slide(source: str, key: str) -> Iterator[KeptSlide]:
    """Lock a slide of an image source; before it leaves, the caller sets `head` to all that is fetched."""
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
    """Keep the most recently used slides that fit into `_LIMIT` together, and drop the newest if it has no parts.

    Another slide without parts is kept, since another thread may be fetching it.
    """
    size = 0
    for key, slide in reversed(list(_KEPT.items())):
        more = 0 if slide.head is None else slide.head.fetched
        if size + more > _LIMIT if more else slide is newest:
            del _KEPT[key]
        else:
            size += more
