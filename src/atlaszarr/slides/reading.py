"""Read boxes of pixels of a slide with few requests, and only the strips or tiles that they touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..boxes import Box
from ..errors import ImageError
from ..stores.target import Target
from .slide_file import Interval, SlideFile, SlideHead
from .tiff_slide import TiffSlide


@dataclass(frozen=True)
class SlideBox:
    """A box of pixels of a slide.

    Attributes
    ----------
    box : tuple of int
        (left, top, right, bottom).
    size : tuple of int
        Width and height of the slide, by its record.
    """

    box: Box
    size: tuple[int, int]


@dataclass(frozen=True)
class SlideCost:
    """What must be fetched to read boxes of a slide.

    Attributes
    ----------
    head : SlideHead
        With the parts that hold the header.
    ranges : tuple of (int, int)
        Further ranges to fetch.
    problems : tuple of ImageError or None
        For each box, why it cannot be read, as far as the header shows; None for nothing.
    """

    head: SlideHead
    ranges: tuple[Interval, ...]
    problems: tuple[ImageError | None, ...]


class SlidePixels(NamedTuple):
    """What was fetched of a slide.

    Attributes
    ----------
    head : SlideHead
        With all parts that are fetched.
    boxes : list of ndarray, uint8, shape (height, width, 3), or ImageError
        The pixels of each box; the error if the slide is cut short, damaged, or has another size than in its record.
    """

    head: SlideHead
    boxes: list[NDArray[np.uint8] | ImageError]


def open_head(target: Target, key: str) -> SlideHead:
    """Fetch the first bytes of a slide; ImageError if it is missing or the store cannot be read."""
    return SlideFile.open(target, key).head


def cost_of(target: Target, head: SlideHead, boxes: Sequence[SlideBox]) -> SlideCost:
    """Read the header of a slide, and choose the ranges that boxes need.

    Raises
    ------
    ImageError
        If the slide is not supported.
    """
    file = SlideFile(target, head)
    problems, ranges = _needed(file, TiffSlide(file), boxes)
    return SlideCost(file.head, tuple(ranges), tuple(problems))


def read_boxes(target: Target, head: SlideHead, boxes: Sequence[SlideBox]) -> SlidePixels:
    """Fetch what boxes of a slide need, and decode it.

    A slide that does not have the MD5 of its ETag is fetched a second time.

    Raises
    ------
    ImageError
        If the slide cannot be read, or is not supported.
    """
    file = SlideFile(target, head)
    slide = TiffSlide(file)
    found, ranges = _needed(file, slide, boxes)
    file.fetch(ranges)
    if not file.is_intact():
        file = SlideFile.open(target, head.key)
        slide = TiffSlide(file)
        found, ranges = _needed(file, slide, boxes)
        file.fetch(ranges)
        file.validate()
    readable = [error is None for error in found]
    wanted = [box.box for box in compress(boxes, readable)]
    decoded: list[NDArray[np.uint8] | ImageError]
    try:
        decoded = [*slide.crops(wanted)]
    except ImageError:  # of one of them
        decoded = [_decoded(slide, box) for box in wanted]
    left = iter(decoded)
    return SlidePixels(file.head, [next(left) if error is None else error for error in found])


def _decoded(slide: TiffSlide, box: Box) -> NDArray[np.uint8] | ImageError:
    try:
        return slide.crops([box])[0]
    except ImageError as error:
        return error


def _needed(
    file: SlideFile, slide: TiffSlide, boxes: Sequence[SlideBox]
) -> tuple[list[ImageError | None], list[Interval]]:
    """Why each box cannot be fetched, None if it can; and the ranges to fetch for those that can."""
    problems: list[ImageError | None] = []
    intervals: list[Interval] = []
    for box in boxes:
        try:
            slide.validate_size(box.size)
            wanted = slide.intervals([box.box])
            file.validate_ends(wanted)
        except ImageError as error:
            problems.append(error)
        else:
            problems.append(None)
            intervals += wanted
    return problems, file.missing(intervals)
