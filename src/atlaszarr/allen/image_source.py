"""An image source: section images from the slides of the open-data bucket, or of a folder of the same layout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any
from uuid import uuid4

from ..errors import AtlaszarrError, ImageError, InputError, NotFoundError, RecordError, ServiceError
from ..slides.kept_slides import kept_slide
from ..slides.reading import SlideBox, cost_of, open_head, read_boxes
from ..slides.slide_file import Interval, SlideHead
from ..stores.backend import requests
from ..stores.documents import parse_object
from ..stores.locations import shown
from ..stores.target import Target
from .cache import ImageCache
from .images import ImageRequest, MissingImage, SectionImage
from .records import SectionDataset
from .slide_images import SlideCrop, SlideImage
from .slide_places import SlidePlace
from .slide_records import folder_of, slide_places

#: The Allen Institute's public bucket, and how it is reached unless options say otherwise.
OPEN_DATA = "allen-mouse-brain-atlas"
_PUBLIC = {"anon": True, "region_name": "us-west-2"}
#: Options after which a bucket is not read anonymously.
_CREDENTIALS = ("anon", "key", "secret", "token", "profile")
#: The most bytes of the record of a dataset: that of 100055044 has 30 kB for 16 sections, 10,000 sections have 19 MB.
_LARGEST_RECORD = 2**25
#: The most bytes of pixels that are fetched together; of a slide with more, section by section. All sections of a slide
#: of 100055044 at tier 1 have 240 MB, and so has one of them at tier 0.
_LARGEST_TOGETHER = 2**28


@dataclass(frozen=True)
class ImageFetch:
    """Images that are fetched together: one from the API, or those that a build needs of one slide.

    Attributes
    ----------
    requests : tuple of ImageRequest
    head : SlideHead or None
        Of the slide: what `plan` has read of it.
    ranges : tuple of (int, int)
        Of the slide, those to fetch after its header.
    cached : tuple of ImageRequest
        Those that the cache has an entry for.
    problems : tuple of (ImageRequest, str)
        Those that cannot be read, as far as the records and the header of the slide show, with the reason. They are
        tried nevertheless, and what `fetch` returns is what counts.
    """

    requests: tuple[ImageRequest, ...]
    head: SlideHead | None = None
    ranges: tuple[Interval, ...] = ()
    cached: tuple[ImageRequest, ...] = ()
    problems: tuple[tuple[ImageRequest, str], ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of the ranges."""
        return sum(stop - start for start, stop in self.ranges)


#: What a fetch returns.
Images = dict[ImageRequest, SectionImage | MissingImage]


def single(images: Iterable[ImageRequest]) -> list[ImageFetch]:
    """A fetch for each image."""
    return [ImageFetch((image,)) for image in images]


class ImageSource:
    """A store of slides with the records of the open-data bucket. Picklable; no option is in its repr.

    Parameters
    ----------
    location : str or path-like
        A folder or a URL.
    options : mapping, optional
        Storage options of a URL. ``s3://allen-mouse-brain-atlas`` is read anonymously, in us-west-2, by default.

    Raises
    ------
    InputError
        If the location or an option is not valid.
    """

    def __init__(self, location: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> None:
        #: Pickled copies have it too, so that they share what is kept of slides.
        self._id = uuid4().hex
        given = dict(options or {})
        if str(location).rstrip("/") == f"s3://{OPEN_DATA}":
            anonymous = not any(name in given for name in _CREDENTIALS)
            given = {**{k: v for k, v in _PUBLIC.items() if k != "anon" or anonymous}, **given}
        try:
            # An object that must not be read counts as absent, as in a public bucket that cannot be listed.
            self._target = Target.of(location, given).public()
        except InputError as error:
            raise InputError(f"image source: {error}", code=error.code) from None
        except AtlaszarrError as error:
            raise ServiceError(f"image source: {error}", code=error.code) from None

    def __repr__(self) -> str:
        return f"ImageSource({self.url!r})"

    @property
    def url(self) -> str:
        """The folder or URL, without secrets."""
        return shown(self._target.url)

    def places(self, dataset: int) -> dict[int, SlidePlace]:
        """Where the images of a dataset lie, by SectionImage id.

        Raises
        ------
        NotFoundError
            If the image source lacks the dataset.
        RecordError
            If its record is not valid.
        ServiceError
            If it cannot be read.
        """
        key = f"{folder_of(dataset)}/section_data_set.json"
        try:
            body = self._target.read(key, _LARGEST_RECORD)
        except InputError as error:
            raise RecordError(str(error), code=error.code) from None
        except AtlaszarrError as error:
            raise ServiceError(f"image source: {error}", code=error.code) from None
        if body is None:
            raise NotFoundError(
                f"image source {self.url} lacks section dataset {dataset} (it has no {key}, or denies to read it); "
                "use --image-source api",
                code="dataset-not-in-image-source",
            )
        try:
            return slide_places(parse_object(body), dataset)
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError(f"{self.url}/{key} is not a valid record: {error}", code="invalid-record") from None

    def imaged(self, dataset: SectionDataset) -> SectionDataset:
        """The dataset with the places of its sections on the slides of this source; errors as in `places`."""
        places = self.places(dataset.id)
        absent = SlidePlace(problem=f"the record of section dataset {dataset.id} in {self.url} does not list it")
        sections = (replace(section, slide=places.get(section.image_id, absent)) for section in dataset.sections)
        return replace(dataset, sections=tuple(sections))

    def fetches(self, images: Iterable[ImageRequest], cache: ImageCache | None) -> list[ImageFetch]:
        """One fetch for each slide of some images, or for each section of a slide that is large at its tier.

        The headers of the slides are read, at most 16 at a time.
        """
        by_slide: dict[str, list[SlideCrop]] = {}
        for image in images:
            assert isinstance(image, SlideCrop)
            by_slide.setdefault(image.slide, []).append(image)
        crops = [sorted(group, key=lambda crop: (crop.image_id, crop.y, crop.x)) for group in by_slide.values()]
        return [fetch for found in requests().map(partial(self._planned, cache=cache), crops) for fetch in found]

    def _planned(self, crops: Sequence[SlideCrop], cache: ImageCache | None) -> list[ImageFetch]:
        """The fetches of the images of a slide; without a head if that cannot be read."""
        wanted = [crop for crop in crops if not crop.problem]
        known = tuple((crop, crop.problem) for crop in crops if crop.problem)
        if not wanted:
            return [ImageFetch(tuple(crops), problems=known)]
        try:
            head = open_head(self._target, wanted[0].slide)
        except ImageError as error:
            return [ImageFetch(tuple(crops), problems=(*known, *((crop, str(error)) for crop in wanted)))]
        groups = [crops]
        if sum(crop.largest_body for crop in crops) > _LARGEST_TOGETHER:
            groups = [list(group) for _, group in groupby(crops, key=lambda crop: crop.image_id)]
        fetches = []
        for group in groups:
            fetch = self._priced(group, head, cache)
            head = fetch.head or head  # with the bytes of the header
            fetches.append(fetch)
        return [replace(fetch, head=head) for fetch in fetches]

    def _priced(self, crops: Sequence[SlideCrop], head: SlideHead, cache: ImageCache | None) -> ImageFetch:
        problems = [(crop, crop.problem) for crop in crops if crop.problem]
        wanted = [crop for crop in crops if not crop.problem]
        cached = tuple(crop for crop in wanted if self.is_cached(crop, head, cache))
        needed = [crop for crop in wanted if crop not in cached]
        ranges: tuple[Interval, ...] = ()
        if needed:
            try:
                cost = cost_of(self._target, head, [_box(crop) for crop in needed])
                head, ranges = cost.head, cost.ranges
                problems += [(crop, str(error)) for crop, error in zip(needed, cost.problems, strict=True) if error]
            except ImageError as error:
                problems += [(crop, str(error)) for crop in needed]
        return ImageFetch(tuple(crops), head, ranges, cached, tuple(problems))

    def fetch(self, fetch: ImageFetch, cache: ImageCache | None) -> Images:
        """Fetch the images of one slide, from the cache as far as it has them; failures are in the result.

        Without a head, what this process has fetched of the slide before serves, as far as it is kept.
        """
        crops = [crop for crop in fetch.requests if isinstance(crop, SlideCrop)]
        found: Images = {crop: self._missing(crop, crop.problem) for crop in crops if crop.problem}
        wanted = [crop for crop in crops if not crop.problem]
        if not wanted:
            return found
        try:
            if fetch.head is not None or self._target.is_local:
                return found | self._read(fetch.head, wanted, cache)[0]
            with kept_slide(self._id, wanted[0].slide) as kept:
                try:
                    images, kept.head = self._read(kept.head, wanted, cache)
                except ImageError:
                    if kept.head is None:
                        raise
                    kept.head = None  # the slide may have changed since
                    images, kept.head = self._read(None, wanted, cache)
                return found | images
        except ImageError as error:
            return found | {crop: self._missing(crop, str(error)) for crop in wanted}

    def _read(
        self, head: SlideHead | None, crops: Sequence[SlideCrop], cache: ImageCache | None
    ) -> tuple[Images, SlideHead]:
        """The images of one slide, from the cache as far as it has them; and what is known of the slide then."""
        head = head or open_head(self._target, crops[0].slide)
        found: Images = {crop: image for crop in crops if (image := self._cached(crop, head, cache)) is not None}
        wanted = [crop for crop in crops if crop not in found]
        if not wanted:
            return found, head
        read = read_boxes(self._target, head, [_box(crop) for crop in wanted])
        for crop, pixels in zip(wanted, read.boxes, strict=True):
            if isinstance(pixels, ImageError):
                found[crop] = self._missing(crop, str(pixels))
                continue
            body = pixels.tobytes()
            found[crop] = SlideImage(crop, body, read.head.tag)
            if (key := self._key(crop, read.head)) is not None and cache is not None:
                cache.put(key, body)
        return found, read.head

    def is_cached(self, crop: SlideCrop, head: SlideHead, cache: ImageCache | None) -> bool:
        """Whether the cache has an entry for an image; the entry is not validated."""
        key = self._key(crop, head)
        return cache is not None and key is not None and key in cache

    def _cached(self, crop: SlideCrop, head: SlideHead, cache: ImageCache | None) -> SlideImage | None:
        key = self._key(crop, head)
        if cache is None or key is None or (body := cache.get(key, crop.largest_body)) is None:
            return None
        return SlideImage(crop, body, head.tag) if len(body) == crop.largest_body else None

    def _key(self, crop: SlideCrop, head: SlideHead) -> str | None:
        """The key in the cache; None for a local slide, and for one without an ETag, which may change unnoticed."""
        return None if self._target.is_local or head.tag is None else crop.key(f"{self.url}#{head.tag}")

    def _missing(self, crop: SlideCrop, reason: str) -> MissingImage:
        return MissingImage(crop, crop.url(self.url), reason)


def _box(crop: SlideCrop) -> SlideBox:
    return SlideBox(crop.box, crop.slide_size)
