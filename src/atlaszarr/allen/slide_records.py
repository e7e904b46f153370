"""The records of the open-data bucket: on which slides the section images of a dataset lie.

A bucket has ``section_data_set_<ID>/section_data_set.json``, and the slides of tier T under
``section_data_set_<ID>/downsample_<T>/``. The record has no alignments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import RecordError
from .records import Record, number_of, record_of
from .slide_places import SlidePlace, SlideTier

#: The name of a file in a folder: no path, no control characters, no longer than file systems have.
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. +-]{0,200}")
_TIER = re.compile(r"downsample_(0|[1-9][0-9]?)")
#: The tier whose pixels have the width of 2^17 pixels: more than the longest side of any image.
_COARSEST = 17
#: Longest side of a slide, in pixels: three times the longest of 100055044.
_LONGEST_SIDE = 2**17


def folder_of(dataset: int) -> str:
    """The folder of a section dataset in the bucket."""
    return f"section_data_set_{dataset}"


def slide_places(record: Record, dataset: int) -> dict[int, SlidePlace]:
    """The place of each section image, by its id, from the record of a dataset in the bucket.

    An image whose entry is invalid has a place with a `problem`.

    Raises
    ------
    RecordError
        If the record is of another dataset, or has no list of images.
    """
    label = f"the image source's record of section dataset {dataset}"
    if number_of(record, "id", int, label) != dataset:
        raise RecordError(f"{label} has the id {record['id']}", code="invalid-record")
    images = record.get("section_images")
    if not isinstance(images, list) or not all(isinstance(image, Mapping) for image in images):
        raise RecordError(f"{label} has section_images {images!r:.40}, not a list of records", code="invalid-record")
    places: dict[int, SlidePlace] = {}
    for image in images:
        id = number_of(image, "id", int, f"a section image in {label}")
        name = f"section image {id} in {label}"
        try:
            if id in places:
                raise RecordError(f"{name} has two entries", code="invalid-record")
            places[id] = _place(image, folder_of(dataset), name)
        except RecordError as error:
            places[id] = SlidePlace(problem=str(error))
    return places


def _place(image: Record, folder: str, label: str) -> SlidePlace:
    file = image.get("image_file_name")
    if not isinstance(file, str) or not _FILE.fullmatch(file):
        raise RecordError(f"{label} has image_file_name {file!r:.40}, not the name of a file", code="invalid-record")
    tiers = []
    for key, tier in record_of(image, "downsampling", label).items():
        found = _TIER.fullmatch(key)
        if found is None or int(found[1]) > _COARSEST or not isinstance(tier, Mapping):
            raise RecordError(f"{label} has {key!r:.40} in downsampling, not a tier", code="invalid-record")
        tiers.append(_tier(int(found[1]), tier, f"{label} at {key}"))
    if not tiers:
        raise RecordError(f"{label} has no tier", code="invalid-record")
    return SlidePlace(
        folder,
        file,
        number_of(image, "section_number", int, label),
        number_of(image, "resolution", float, label),
        tuple(sorted(tiers, key=lambda tier: tier.downsample)),
    )


def _tier(downsample: int, tier: Record, label: str) -> SlideTier:
    names = ("x", "y", "width", "height", "image_file_width", "image_file_height")
    x, y, width, height, slide_width, slide_height = (number_of(tier, name, int, label) for name in names)
    spans = ((x, width, slide_width), (y, height, slide_height))
    if not all(start >= 0 and length > 0 and start + length <= end <= _LONGEST_SIDE for start, length, end in spans):
        raise RecordError(
            f"{label} has a section of {width} x {height} pixels at {x},{y}, which does not lie on its slide of "
            f"{slide_width} x {slide_height}",
            code="invalid-record",
        )
    return SlideTier(downsample, x, y, width, height, slide_width, slide_height)
