"""A slide in a store as a seekable file, of which no byte is fetched twice."""

from __future__ import annotations

import hashlib
import io
import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ..errors import AtlaszarrError, ImageError
from ..stores.locations import shown
from ..stores.target import Target

#: Half-open: start, stop.
Interval = tuple[int, int]
#: Cost of a request in bytes: ranges that lie nearer to each other are fetched together. S3 answers a small request
#: after about 0.1 s (its guide to performance says 0.1 to 0.2), in which 10 MB/s make a megabyte.
REQUEST_COST = 2**20
#: Bytes of the first request, and of each further one for the header: they hold the directory and the offsets of 5000
#: strips, and take less than a hundredth of a second at 10 MB/s.
HEAD = 2**16
#: The most bytes of the header of a slide: the offsets and lengths, in 8 bytes each, of a million strips.
_LARGEST_HEADER = 2**24
#: The most bytes that are fetched of one slide. The whole slides of 100055044 at the finest tier have 2.2 GB before
#: compression, of which its sections cover less than half.
_LARGEST_READ = 2**30
#: The most bytes of a request: the size that S3's guide to performance advises, and what comes within the 30 s that a
#: request may take at 0.6 MB/s.
_LARGEST_REQUEST = 2**24
#: The ETag of an object that S3 received in one part is its MD5; that of one in several parts ends in their number.
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class SlideHead:
    """A slide and the parts of it that are fetched already; picklable.

    Attributes
    ----------
    key : str
        The key of the slide in its store.
    size : int
        In bytes.
    tag : str or None
        Its ETag.
    parts : tuple of (int, bytes)
        The bytes that are fetched already, with their positions.
    is_validated : bool
        Whether all bytes are fetched, and have the MD5 of the ETag.
    """

    key: str
    size: int
    tag: str | None
    parts: tuple[tuple[int, bytes], ...] = field(repr=False)
    is_validated: bool = False

    @property
    def fetched(self) -> int:
        """Bytes that are fetched already."""
        return sum(len(body) for _, body in self.parts)


class SlideFile(io.RawIOBase):
    """A slide, readable as a file.

    Parameters
    ----------
    target : Target
        The store.
    head : SlideHead
        The slide; its parts are not fetched again.
    """

    def __init__(self, target: Target, head: SlideHead) -> None:
        self._target, self._head = target, head
        self._starts = [start for start, _ in head.parts]
        self._parts = dict(head.parts)
        self._position = 0
        #: Number of bytes that may still be fetched by reading.
        self._allowance = 0
        #: Whether bytes beyond the end of the file were asked for by reading.
        self._passed_end = False

    @classmethod
    def open(cls, target: Target, key: str) -> SlideFile:
        """Fetch the first bytes of a slide.

        Raises
        ------
        ImageError
            If the slide does not exist, or the store cannot be read.
        """
        with _reading(target, key):
            part = target.read_range(key, 0, HEAD, _LARGEST_READ)
        if part is None:
            raise ImageError(f"there is no slide {name_of(target, key)}", code="slide-not-found")
        if len(part.body) < min(HEAD, part.size):
            raise _cut_short(target, key, len(part.body))
        return cls(target, SlideHead(key, part.size, part.tag, ((part.start, part.body),)))

    @property
    def name(self) -> str:
        """The path or URL of the slide, without secrets."""
        return name_of(self._target, self._head.key)

    @property
    def head(self) -> SlideHead:
        """The slide with all parts that are fetched so far."""
        parts = tuple((start, self._parts[start]) for start in self._starts)
        return replace(self._head, parts=parts)

    @property
    def size(self) -> int:
        """Bytes of the slide."""
        return self._head.size

    @property
    def fetched(self) -> int:
        """Bytes that were fetched so far."""
        return sum(map(len, self._parts.values()))

    @contextmanager
    def header(self) -> Iterator[Self]:
        """A context in which reading the file fetches what it lacks, as much as a header may have."""
        self._allowance = _LARGEST_HEADER
        try:
            yield self
        finally:
            self._allowance = 0

    def validate_header(self) -> None:
        """Raise ImageError if reading the header passed the end of the slide."""
        if self._passed_end:
            raise _cut_short(self._target, self._head.key, self.size, "the end of its header")

    def validate_ends(self, wanted: Iterable[Interval]) -> None:
        """Raise ImageError if an interval ends beyond the slide."""
        if any(stop > self.size for _, stop in wanted):
            raise _cut_short(self._target, self._head.key, self.size)

    def missing(self, wanted: Iterable[Interval]) -> list[Interval]:
        """The ranges to fetch, so that the wanted intervals are known.

        Those that lie near to each other are one range; a long one is fetched in parts of 16 MiB.

        Raises
        ------
        ImageError
            If they have more than a gigabyte.
        """
        ranges: list[Interval] = []
        for start, stop in self._without_known(sorted(wanted)):
            if ranges and start - ranges[-1][1] < REQUEST_COST and not self._knows_between(ranges[-1][1], start):
                ranges[-1] = (ranges[-1][0], stop)
            else:
                ranges.append((start, stop))
        if (total := sum(stop - start for start, stop in ranges)) > _LARGEST_READ:
            raise ImageError(
                f"slide {self.name}: {total:,} bytes of it are needed, more than {_LARGEST_READ:,}; use a coarser "
                "resolution, or the image source api",
                code="slide-too-large",
            )
        return [
            (at, min(at + _LARGEST_REQUEST, stop))
            for start, stop in ranges
            for at in range(start, stop, _LARGEST_REQUEST)
        ]

    def fetch(self, ranges: Sequence[Interval]) -> None:
        """Fetch ranges that are not known yet.

        Raises
        ------
        ImageError
            If the slide has changed, ends before its size, or cannot be read.
        """
        for start, stop in ranges:
            with _reading(self._target, self._head.key):
                part = self._target.read_range(self._head.key, start, stop, _LARGEST_READ)
            if part is None or (part.size, part.tag) != (self._head.size, self._head.tag):
                raise ImageError(f"slide {self.name} changed while it was read", code="slide-changed")
            body = part.body[start - part.start : stop - part.start]
            if len(body) < stop - start:
                raise _cut_short(self._target, self._head.key, start + len(body))
            insort(self._starts, start)
            self._parts[start] = body

    def is_intact(self) -> bool:
        """Whether a slide has the MD5 of its ETag; True if that is not its MD5, or not all of its bytes are known."""
        if self._head.is_validated:
            return True
        tag = self._head.tag or ""
        if not self._target.url.startswith("s3://") or not _MD5.fullmatch(tag) or self.fetched < self.size:
            return True
        digest = hashlib.md5(usedforsecurity=False)
        for start in self._starts:
            digest.update(self._parts[start])
        self._head = replace(self._head, is_validated=digest.hexdigest() == tag)
        return self._head.is_validated

    def validate(self) -> None:
        """Raise ImageError unless the slide `is_intact`."""
        if not self.is_intact():
            raise ImageError(
                f"slide {self.name} is damaged: its MD5 is not its ETag {self._head.tag}", code="slide-damaged"
            )

    def bytes_of(self, interval: Interval) -> bytes:
        """The bytes of an interval that is known."""
        start, stop = interval
        body = self._known(start, stop)
        while start + len(body) < stop:
            more = self._known(start + len(body), stop)
            assert more
            body += more
        return body

    def _known(self, start: int, stop: int) -> bytes:
        """The bytes that are known from `start` on, up to `stop` or the end of a part."""
        at = bisect_right(self._starts, start) - 1
        if at < 0:
            return b""
        first = self._starts[at]
        return self._parts[first][start - first : stop - first]

    def _without_known(self, intervals: Iterable[Interval]) -> Iterable[Interval]:
        end = 0
        for start, stop in intervals:
            at = max(start, end)
            while at < stop:
                if known := self._known(at, stop):
                    at += len(known)
                    continue
                until = min(stop, self._next_known(at))
                yield at, until
                at = until
            end = max(end, stop)

    def _next_known(self, position: int) -> int:
        at = bisect_right(self._starts, position)
        return self._starts[at] if at < len(self._starts) else self.size

    def _knows_between(self, start: int, stop: int) -> bool:
        return start < stop and (bool(self._known(start, start + 1)) or self._next_known(start) < stop)

    # The interface of a file, of which tifffile reads the header.

    def readable(self) -> bool:
        """Whether the file can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether the file has positions: always."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Same as in `io.IOBase`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Same as in `io.RawIOBase`; fetches what is not known, see `header`."""
        start, stop = self._position, min(self._position + len(buffer), self.size)
        self._passed_end |= start + len(buffer) > self.size
        if start >= stop:
            return 0
        unknown = list(self._without_known([(start, stop)]))
        for first, last in unknown:
            # More than is asked for, up to what is known.
            ahead = min(max(last, first + HEAD), self._next_known(first), self.size)
            if ahead - first > self._allowance:
                raise ImageError(
                    f"slide {self.name}: its header has more than {_LARGEST_HEADER:,} bytes", code="slide-too-large"
                )
            self._allowance -= ahead - first
            if not self._known(first, first + 1):
                self.fetch([(first, ahead)])
        body = self.bytes_of((start, stop))
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)


@contextmanager
def _reading(target: Target, key: str) -> Iterator[None]:
    """Turn an error of the store into an ImageError that names the slide."""
    try:
        yield
    except ImageError:
        raise
    except AtlaszarrError as error:
        raise ImageError(f"slide {name_of(target, key)}: {error}", code=error.code) from None


def name_of(target: Target, key: str) -> str:
    """The path or URL of an object, without secrets."""
    return f"{shown(target.url)}/{key}"


def _cut_short(target: Target, key: str, size: int, what: str = "the pixels of the section") -> ImageError:
    return ImageError(
        f"slide {name_of(target, key)} is cut short: it ends after {size:,} bytes, before {what}",
        code="slide-truncated",
    )
